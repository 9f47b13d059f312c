"""The adapter of the bus on NATS JetStream; the only part that knows the broker."""
