# Needs Python 3.11 or newer, git and make. Everything else is installed into .venv, exactly as the lock files say.

PYTHON ?= python3
BIN := .venv/bin
# pip asks no questions and says nothing but errors.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q

# `make serve` is for a laptop, where receivers listen on loopback. Chartwire itself refuses to post to addresses that
# are not public unless its operator opens them: see docs/how-to/operate.md before you set this on a server.
CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS ?= 127.0.0.0/8,::1/128

# The suite starts the real program many times; with kept bytecode it starts twice as fast.
unexport PYTHONDONTWRITEBYTECODE

# Each worker gets a row of files, and at the end takes of another's: servers that a file shares are started once.
SPREAD := -n auto --dist worksteal

# One lock for Linux and macOS and for each Python from 3.11 on.
LOCK := --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster serve test check bench install lock

help: ## show this list
	@echo "Chartwire: ask once for a patient's documents, receive them by signed webhook as soon as each is available."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/installed ## show the main job on invented patients, in about ten seconds
	@$(BIN)/chartwire demo

demo-cluster: .venv/installed ## kill parts of a cluster under load, and see everything arrive, in about a minute
	@$(BIN)/python -m scripts.cluster demo

serve: .venv/installed ## run Chartwire on http://127.0.0.1:8080 with its data in ./data, until Ctrl-C
	@CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS="$(CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS)" $(BIN)/chartwire serve

test: .venv/installed ## run the whole test suite
	@echo "==> tests"
	@$(BIN)/pytest $(SPREAD)
	@echo "==> tests of what depends on where state lives, on PostgreSQL"
	@CHARTWIRE_TEST_PROFILE=cluster $(BIN)/pytest $(SPREAD) tests/store tests/wire tests/e2e tests/chaos

check: .venv/installed ## format, lint, types, layers, tests
	@echo "==> format"
	@$(BIN)/ruff format --check .
	@echo "==> lint"
	@$(BIN)/ruff check .
	@echo "==> types"
	@$(BIN)/mypy
	@echo "==> layers"
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test

bench: .venv/installed ## measure speed as ratios to the bare machine; BENCH=--short takes half a minute, not half an hour
	@$(BIN)/python -m bench $(BENCH)

install: .venv/installed ## make .venv with all that Chartwire and its tests need
	@echo "installed: $(BIN)/chartwire, version $$($(BIN)/chartwire version)"

.venv/installed: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Chartwire needs Python 3.11 or newer, and $(PYTHON) is older or absent: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "==> installing into .venv, as requirements-dev.lock says (a minute or so, once)"
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv >/dev/null 2>&1 || { \
		echo "$(PYTHON) cannot make .venv; on Debian and Ubuntu this helps: apt install python3-venv"; exit 1; }
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

lock: .venv/installed ## renew the lock files from pyproject.toml
	@$(PIP) install uv
	@echo "==> locking the newest versions that pyproject.toml allows"
	@$(BIN)/uv pip compile -q --upgrade $(LOCK) --group dev -o requirements-dev.lock pyproject.toml
	@$(BIN)/uv pip compile -q --upgrade $(LOCK) -c requirements-dev.lock -o requirements.lock pyproject.toml
	@$(BIN)/uv pip compile -q --upgrade $(LOCK) -c requirements-dev.lock --group deploy -o requirements-deploy.lock
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' | \
		$(BIN)/uv pip compile -q --upgrade $(LOCK) -c requirements-dev.lock -o deploy/build.lock -
