from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from streamworker import (
    Batch,
    BatchHandler,
    DeadLetter,
    Ending,
    Handler,
    PoisonError,
    Record,
    Records,
    RetryableError,
    TopicPartition,
)
from streamworker.declaration import declaration
from streamworker.interfaces import BrokerStatistics, ClientStatistics
from streamworker.observability.metrics import Metrics
from streamworker.observability.series import MAX_SERIES, Distribution
from streamworker.observability.status import (
    Board,
    HeadStatus,
    LifeState,
    PartitionStatus,
    PauseStatus,
    RunningSlice,
    StopStatus,
    WorkerStatus,
)
from streamworker.reason import Reason

ORDERS = TopicPartition("orders", 3)


class StoreOrder(Handler[bytes]):
    topics = ("orders",)
    dead_letter = DeadLetter("orders.dlq")

    def handle(self, record: Record[bytes]) -> None: ...


class StoreOrders(BatchHandler[bytes]):
    topics = ("bulk",)
    batch = Batch(max_records=10)

    def handle(self, records: Records[bytes]) -> None: ...


class StillClock:
    def monotonic_s(self) -> float:
        return 1_000.0

    def wall_ms(self) -> int:
        return 1_700_000_000_000


def status(**changes: object) -> WorkerStatus:
    fields: dict[str, object] = {
        "state": LifeState.RUNNING,
        "group": "shop",
        "handlers": ("StoreOrder",),
        "protocol": "classic",
        "started_s": 0.0,
        "now_s": 1_000.0,
        **changes,
    }
    return WorkerStatus(**fields)  # type: ignore[arg-type]


class World:
    def __init__(self, **changes: object) -> None:
        self.board = Board(status(**changes))
        handlers = [declaration(StoreOrder), declaration(StoreOrders)]
        self.metrics = Metrics(self.board, StillClock(), handlers, version="1.2.3", track="canary")

    def samples(self) -> dict[str, float]:
        body, _ = self.metrics.render()
        return {
            sample.name.removeprefix("streamworker_")
            + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }


def test_records_are_counted_by_how_they_ended() -> None:
    world = World()

    world.metrics.fetched(ORDERS, 7, 700)
    world.metrics.ended("StoreOrder", ORDERS, Ending.HANDLED, 5, 0.5)
    world.metrics.ended("StoreOrder", ORDERS, Ending.DEAD_LETTERED, 2, 0.1)
    world.metrics.dead_lettered(ORDERS, "orders.dlq", "poison")
    world.metrics.dead_lettered(ORDERS, "orders.dlq", "poison")

    samples = world.samples()
    assert samples["records_consumed_total group=shop topic=orders"] == 7
    assert samples["bytes_consumed_total group=shop topic=orders"] == 700
    assert samples["records_processed_total group=shop handler=StoreOrder outcome=ok topic=orders"] == 5
    assert samples["records_processed_total group=shop handler=StoreOrder outcome=dlq topic=orders"] == 2
    assert samples["dlq_records_total dlq_topic=orders.dlq reason=poison"] == 2


def test_a_record_handlers_duration_is_per_record_and_a_batch_handlers_per_batch() -> None:
    world = World()

    world.metrics.ended("StoreOrder", ORDERS, Ending.HANDLED, 4, 3.2)
    world.metrics.ended("StoreOrders", TopicPartition("bulk", 0), Ending.HANDLED, 4, 3.2)

    samples = world.samples()
    assert samples["process_duration_seconds_bucket handler=StoreOrder le=0.8 outcome=ok"] == 4
    assert samples["process_duration_seconds_bucket handler=StoreOrders le=0.8 outcome=ok"] == 0
    assert samples["process_duration_seconds_count handler=StoreOrders outcome=ok"] == 1
    assert samples["batch_size_records_sum handler=StoreOrders"] == 4


def test_a_dead_letters_acknowledgement_is_no_duration_of_the_handler() -> None:
    world = World()

    world.metrics.ended("StoreOrder", ORDERS, Ending.DEAD_LETTERED, 1, 0.0)

    assert not any(name.startswith("process_duration_seconds") for name in world.samples())


def test_what_is_degraded_is_counted_and_never_a_label() -> None:
    samples = World(degraded=("handler stalled: StoreOrder at orders[3]@17",)).samples()

    assert samples["degraded_parts"] == 1
    assert not any("@17" in name for name in samples)


def test_a_breaker_is_in_one_of_its_states_and_its_changes_are_counted() -> None:
    world = World(breakers={"db": "open"})

    world.metrics.breaker_changed("db", "closed", "open", "3 calls failed in a row")

    samples = world.samples()
    states = {
        state: samples[f"breaker_state kind=sink name=db state={state}"] for state in ("closed", "open", "half_open")
    }
    assert states == {"closed": 0, "open": 1, "half_open": 0}
    assert samples["breaker_transitions_total from=closed name=db to=open"] == 1


def test_the_breaker_of_single_calls_is_told_from_that_of_a_handler() -> None:
    world = World(breakers={"db": "closed", "geo": "open"}, call_breakers=frozenset({"geo"}))

    samples = world.samples()

    assert samples["breaker_state kind=call name=geo state=open"] == 1
    assert samples["breaker_state kind=sink name=db state=closed"] == 1


def test_failures_say_stage_class_and_category_and_retries_their_attempt() -> None:
    world = World()

    world.metrics.failed("StoreOrder", ORDERS, 17, RetryableError("later"), 4, Ending.RETRIED)
    world.metrics.failed("StoreOrder", ORDERS, 18, PoisonError("bad"), 1, Ending.DEAD_LETTERED)

    samples = world.samples()
    assert samples["errors_total category=transient error_type=RetryableError handler=StoreOrder stage=handle"] == 1
    assert samples["errors_total category=poison error_type=PoisonError handler=StoreOrder stage=handle"] == 1
    assert samples["retries_total attempt_bucket=3-5 handler=StoreOrder"] == 1


def test_error_classes_beyond_the_first_fifty_share_one_series() -> None:
    world = World()

    for number in range(60):
        error = type(f"Error{number}", (Exception,), {})()
        world.metrics.failed("StoreOrder", ORDERS, number, error, 1, Ending.RETRIED)

    errors = {name: value for name, value in world.samples().items() if name.startswith("errors_total")}
    assert len(errors) == 51
    assert errors["errors_total category=transient error_type=_OTHER handler=StoreOrder stage=handle"] == 10


def test_a_metric_has_at_most_its_limit_of_series_and_says_what_it_left_out() -> None:
    world = World()

    for number in range(MAX_SERIES + 25):
        world.metrics.fetched(TopicPartition(f"topic-{number}", 0), 1, 1)

    samples = world.samples()
    assert sum(name.startswith("records_consumed_total") for name in samples) == MAX_SERIES
    assert samples["series_dropped_total metric=streamworker_records_consumed_total"] == 25


def test_closed_sets_of_labels_exist_before_the_first_event() -> None:
    samples = World().samples()

    assert samples["commits_total outcome=refused"] == 0
    assert samples["rebalances_total kind=lost"] == 0
    assert samples["stalls_total what=client"] == 0


def test_commits_rebalances_pauses_and_oddities_are_counted() -> None:
    world = World()

    world.metrics.commit_answered(3, None, 0.004)
    world.metrics.commit_answered(1, "FENCED", 0.004)
    world.metrics.commit_unanswered(1)
    world.metrics.assigned([ORDERS])
    world.metrics.revoked([ORDERS], 0.7)
    world.metrics.resumed(ORDERS, "backpressure", 1.5)
    world.metrics.foreign_offset(ORDERS, 9)
    world.metrics.late_outcome("StoreOrder", ORDERS, 12)
    world.metrics.dead_letter_refused(ORDERS, 9, "orders.dlq", "MSG_SIZE_TOO_LARGE")

    samples = world.samples()
    assert [samples[f"commits_total outcome={outcome}"] for outcome in ("ok", "refused", "unanswered")] == [1, 1, 1]
    assert samples["commit_duration_seconds_count"] == 2
    assert samples["rebalance_duration_seconds_bucket le=0.8 protocol=classic"] == 1
    assert samples["backpressure_seconds_total reason=backpressure"] == 1.5
    assert samples["offsets_foreign_total topic=orders"] == 1
    assert samples["late_outcomes_total handler=StoreOrder"] == 12
    assert samples["dlq_produce_failures_total dlq_topic=orders.dlq"] == 1


def test_gauges_follow_the_latest_status() -> None:
    partition = PartitionStatus(
        topic="orders",
        partition=3,
        epoch=1,
        held_records=2,
        pauses=(PauseStatus("backpressure", 990.0), PauseStatus("stopped", 995.0)),
        stopped=StopStatus(Reason.OFFSET_OUT_OF_RANGE, "offset 5", mends_itself=False, since_s=995.0),
        lag_records=120,
    )
    world = World(
        partitions=(partition,),
        running=(RunningSlice("StoreOrder", "orders", 3, 17, 4.5),),
        inflight_records=8,
        last_poll_s=999.0,
        joined=True,
    )

    samples = world.samples()

    assert samples["consumer_lag_records group=shop partition=3 topic=orders"] == 120
    assert samples["assigned_partitions"] == 1
    assert samples["paused_partitions reason=stopped"] == 1
    assert samples["stopped_partitions mends_itself=false reason=offset_out_of_range"] == 1
    assert samples["inflight_records"] == 8
    assert samples["held_records"] == 2
    assert samples["oldest_call_seconds handler=StoreOrder"] == 4.5
    assert samples["last_poll_timestamp_seconds"] == 1_700_000_000 - 1
    assert samples["build_info group=shop protocol=classic track=canary version=1.2.3"] == 1


def test_lag_in_seconds_grows_on_when_the_loop_hangs_and_is_not_told_while_unknown() -> None:
    partitions = tuple(
        PartitionStatus(topic="orders", partition=number, epoch=1, lag_s=lag_s)
        for number, lag_s in enumerate((7.5, 0.0, None))
    )

    samples = World(now_s=940.0, partitions=partitions).samples()

    told = {name: value for name, value in samples.items() if name.startswith("consumer_lag_seconds")}
    assert told == {
        "consumer_lag_seconds group=shop partition=0 topic=orders": 67.5,
        "consumer_lag_seconds group=shop partition=1 topic=orders": 0,
    }


def test_the_time_from_a_timestamp_to_the_end_is_told_by_topic() -> None:
    world = World()

    world.metrics.latency("orders", 0.7)
    world.metrics.latency("orders", 700.0)

    samples = world.samples()
    assert samples["end_to_end_latency_seconds_bucket le=0.8 topic=orders"] == 1
    assert samples["end_to_end_latency_seconds_bucket le=900.0 topic=orders"] == 2


def test_what_the_client_counts_is_told_by_broker() -> None:
    broker = BrokerStatistics(
        rtt_s={"0.5": 0.001, "0.99": 0.5}, answers=4, answers_s=0.6, throttle_s=0.2, disconnects=1, request_timeouts=2
    )
    client = ClientStatistics(
        brokers={"1": broker}, fetch_queue_records=30, fetch_queue_bytes=3_000, reply_queue_ops=2, rebalances=5
    )

    samples = World(client=client, join_state="steady", busy={"StoreOrder": 0.25}).samples()

    assert samples["kafka_broker_rtt_seconds broker=1 quantile=0.99"] == 0.5
    assert samples["kafka_broker_rtt_seconds_count broker=1"] == 4
    assert samples["kafka_broker_rtt_seconds_sum broker=1"] == 0.6
    assert samples["kafka_broker_throttle_seconds broker=1"] == 0.2
    assert samples["kafka_broker_disconnects_total broker=1"] == 1
    assert samples["kafka_broker_request_timeouts_total broker=1"] == 2
    assert samples["kafka_fetch_queue_records"] == 30
    assert samples["kafka_fetch_queue_bytes"] == 3_000
    assert samples["kafka_reply_queue_ops"] == 2
    assert samples["kafka_group_rebalances_total"] == 5
    assert samples["kafka_group_join_state state=steady"] == 1
    assert samples["busy_ratio handler=StoreOrder"] == 0.25


def test_without_statistics_of_a_client_nothing_is_made_up() -> None:
    assert not any(name.startswith("kafka_") for name in World().samples())


def test_of_made_up_topics_no_more_latencies_are_kept_than_a_metric_may_have() -> None:
    world = World()

    for number in range(MAX_SERIES + 50):
        world.metrics.latency(f"topic{number}", 0.1)

    samples = world.samples()
    assert sum(name.startswith("end_to_end_latency_seconds_count") for name in samples) == MAX_SERIES
    assert samples["series_dropped_total metric=streamworker_end_to_end_latency_seconds"] == 50


def test_the_oldest_head_of_a_topic_counts_and_all_that_is_behind_heads() -> None:
    heads = (HeadStatus(17, 40.0, 3, 20), HeadStatus(5, 310.5, 9, 1), None)
    partitions = tuple(
        PartitionStatus(topic="orders", partition=number, epoch=1, head=head) for number, head in enumerate(heads)
    )
    world = World(partitions=partitions)

    world.metrics.head_too_old(ORDERS, 5, 310.5, 9, 1)

    samples = world.samples()
    assert samples["oldest_head_seconds topic=orders"] == 310.5
    assert samples["records_behind_heads topic=orders"] == 21
    assert samples["old_heads_total topic=orders"] == 1


def test_series_of_a_revoked_partition_disappear() -> None:
    world = World(partitions=(PartitionStatus(topic="orders", partition=3, epoch=1, lag_records=5),))
    before = world.samples()

    world.board.publish(status())

    assert any(name.startswith("consumer_lag_records") for name in before)
    assert not any(name.startswith("consumer_lag_records") for name in world.samples())


def test_lag_series_are_not_capped() -> None:
    partitions = tuple(PartitionStatus(topic="orders", partition=n, epoch=1, lag_records=n) for n in range(2_500))

    samples = World(partitions=partitions).samples()

    assert sum(name.startswith("consumer_lag_records") for name in samples) == 2_500


def test_openmetrics_is_given_to_those_who_ask_for_it() -> None:
    world = World()
    world.metrics.ended("StoreOrder", ORDERS, Ending.HANDLED, 1, 0.1)

    body, content_type = world.metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")

    families = list(openmetrics.text_string_to_metric_families(body.decode()))  # type: ignore[no-untyped-call]
    assert content_type.startswith("application/openmetrics-text")
    assert "streamworker_process_duration_seconds" in {family.name for family in families}


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5))))
def test_each_bucket_holds_what_is_at_most_its_bound(values: list[tuple[float, int]]) -> None:
    bounds = (0.1, 0.8, 3.0)
    distribution = Distribution(bounds)

    for value, times in values:
        distribution.observe(value, times)

    counts, total = distribution.cumulative()
    assert counts == [sum(t for v, t in values if v <= bound) for bound in (*bounds, float("inf"))]
    assert abs(total - sum(v * t for v, t in values)) < 1e-6
