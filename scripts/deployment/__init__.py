"""Looks whether what is in `deploy/` fits the program: `python -m scripts.deployment`. Nothing is started for it.

`rules` are our own, `manifests` those for what the Helm chart renders, `tools` are others' programs, each of which is
left out if it is not installed: `pip install --require-hashes -r requirements-deploy.lock`, `apt install prometheus`.
"""
