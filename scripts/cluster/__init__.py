"""The cluster profile as plain processes of this machine: `python -m scripts.cluster demo`, or `run`.

Read `topology` for what is started, `load` for what is asked of it, `reckoning` for what must come of that, `story` for
what happens in the demo. The servers come from the wheels of the development dependencies, and are those of the tests.
"""
