"""Writes docs/reference/settings.md from `chartwire.settings`; a test tells when it is out of date.

Run it from the root of the project: `.venv/bin/python scripts/settings_reference.py`.
"""

import ast
import inspect
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from chartwire import settings

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"

_INTRODUCTION = """\
# Settings

*Written by `scripts/settings_reference.py` from `src/chartwire/settings.py`: change it there.*

Each setting has a name in the environment. In the TOML file that `CHARTWIRE_CONFIG` (or `--config`) names it is the
same name in lower case, without `CHARTWIRE_`. The command line is stronger than the environment, that is stronger than
the file, and the file is stronger than the default. A wrong or unknown setting stops the start with one line.

```toml
# chartwire.toml
public_url = "https://chartwire.clinic.example"
webhook_allowed_networks = ["10.20.0.0/16"]

[[networks]]
name = "mercy"
kind = "fhir"
base_url = "https://fhir.mercy.example/r4"
auth = "smart"
client_id = "chartwire"
private_key_file = "/etc/chartwire/mercy.pem"
```

Sizes are in bytes; relative paths begin at the folder in which Chartwire was started. Lists of address ranges are
separated by commas in the environment and are lists in TOML; every other list is JSON in the environment.
"""

_NETWORKS = (settings.FhirNetworkSettings, settings.FolderNetworkSettings, settings.SandboxNetworkSettings)


def render() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, "## The installation", "", _table(settings.Settings, "CHARTWIRE_")]
    for model in _NETWORKS:
        kind = get_args(model.model_fields["kind"].annotation)[0]
        parts += ["", f'## `[[networks]]` with `kind = "{kind}"`', "", inspect.getdoc(model) or "", "", _table(model)]
    return "\n".join(parts) + "\n"


def _table(model: type[BaseModel], prefix: str = "") -> str:
    rows = [f"| {'environment' if prefix else 'key'} | value | default | meaning |", "|---|---|---|---|"]
    docs = dict(_docstrings(model))
    for name, field in model.model_fields.items():
        shown = f"{prefix}{name.upper()}" if prefix else name
        meaning = " ".join(docs[name].split()).replace("|", "\\|") if name in docs else _kind(name)
        rows.append(f"| `{shown}` | {_value(field)} | {_default(field)} | {meaning} |")
    return "\n".join(rows)


def _docstrings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The string under each field of a class: Python keeps it in the source alone."""
    body = ast.parse(inspect.getsource(model)).body[0]
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for field, text in pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            yield ast.unparse(field.target), str(text.value.value)


def _kind(name: str) -> str:
    if name != "kind":
        raise SystemExit(f"settings.py says nothing of {name}: add a docstring under it")
    return "What kind of network this table describes."


def _value(field: FieldInfo) -> str:
    words = [_type(field.annotation)]
    for bound in field.metadata:
        for sign, attribute in ((">=", "ge"), (">", "gt"), ("<=", "le"), ("<", "lt")):
            if (limit := getattr(bound, attribute, None)) is not None:
                words.append(f"{sign} {limit}")
    return ", ".join(words)


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in {Union, UnionType}:
        return _type(next(each for each in arguments if each is not NoneType))
    if origin is list:
        return "list"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(f"`{value}`" for value in annotation)
    return {Path: "path", bool: "`true` or `false`", int: "integer", float: "number", str: "text", SecretStr: "text"}[
        annotation
    ]


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    if default is None or default in ("", [], SecretStr("")):
        return ""
    if isinstance(default, list) and isinstance(default[0], BaseModel):
        return "the sandbox network"
    return f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(render())
    print(f"wrote {PAGE}")
