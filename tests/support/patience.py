"""How long tests wait for what must come."""

PATIENCE_SECONDS = 60.0
"""Reached only by what never comes: no test that passes hangs on it, however busy the machine is."""
