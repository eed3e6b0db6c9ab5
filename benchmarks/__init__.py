"""Speed beside the bare client, in one run on one Kafka."""
