"""Measures Chartwire as ratios to the bare machine: `make bench`, `python -m bench --help`."""
