"""A mock cluster with three names in topic `names`, until Enter is pressed."""

from __future__ import annotations

from streamworker.testing.mock_kafka import MockKafka

with MockKafka(topics={"names": 1}) as kafka:
    for name in ("Ada", "Grace", "Katherine"):
        kafka.produce_raw("names", 0, None, name.encode())
    print("In another terminal, in this folder:\n")
    command = f"streamworker run greet:Greet --group greeters --bootstrap-servers {kafka.bootstrap_servers}"
    # In a classic group of a mock cluster the second run would wait for 45 s, until the first one's session has ended.
    print(f"  {command} --set kafka.group_protocol=consumer\n")
    input("Enter ends the cluster. ")
