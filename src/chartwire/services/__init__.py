"""What a customer may do, one module per slice."""
