"""A mock cluster with three names in topic `names`, until Enter is pressed."""

from __future__ import annotations

from streamworker.testing.mock_kafka import MockKafka

with MockKafka(topics={"names": 2}) as kafka:
    for number, name in enumerate(("Ada", "Grace", "Katherine")):
        kafka.produce_raw("names", number % 2, None, name.encode())
    print("In another terminal, in this folder:\n")
    print(f"  streamworker run greet:Greet --group greeters --bootstrap-servers {kafka.bootstrap_servers}\n")
    input("Enter ends the cluster. ")
