"""Chartwire: ask once for a patient's documents, receive them by signed webhook as soon as each is available."""

from importlib.metadata import version

__version__ = version("chartwire")
