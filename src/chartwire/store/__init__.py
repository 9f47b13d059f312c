"""The only SQL and the only bytes on disk."""
