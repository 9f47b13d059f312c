"""A network of five invented patients, whose documents Chartwire makes itself."""

from chartwire.networks.sandbox.network import SandboxNetwork

__all__ = ["SandboxNetwork"]
