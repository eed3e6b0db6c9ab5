"""Exactly once from Kafka to Kafka: what records became and how far they are done, in one transaction."""
