"""What things are: frozen records without I/O, one module per slice (registry, document, webhook)."""
