"""Pure functions over bytes: media types, C-CDA. No I/O."""
