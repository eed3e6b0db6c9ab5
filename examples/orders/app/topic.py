"""Makes topic `orders` unless it is there: `python -m app.topic`. Elsewhere a topic belongs to who writes to it."""

from __future__ import annotations

import os

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # not in its __all__

_PARTITIONS = 8
_TIMEOUT_S = 30.0


def main() -> None:
    """Make it; returns when the brokers have it."""
    admin = AdminClient({"bootstrap.servers": os.environ["STREAMWORKER__KAFKA__BOOTSTRAP_SERVERS"]})
    try:
        admin.create_topics([NewTopic("orders", _PARTITIONS, 1)])["orders"].result(_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


if __name__ == "__main__":
    main()
