"""`chartwire demo`: the main job on an invented patient, from an empty folder to documents in an app.

Read `story` for what happens, `receiver` for what your own app does, `installation` for what is started.
"""

from chartwire.demo.story import run_demo

__all__ = ["run_demo"]
