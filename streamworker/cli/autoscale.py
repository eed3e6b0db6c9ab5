"""`streamworker autoscale`: what autoscaling by lag would do, tried on a lag that was recorded or is made up.

Talks to no cluster: reads files, and writes one where it is asked to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from streamworker.autoscaling.drawing import picture
from streamworker.autoscaling.explanation import reason
from streamworker.autoscaling.groups import GivenLag, ModelledGroup, RecordedGroup
from streamworker.autoscaling.series import from_csv, from_prometheus
from streamworker.autoscaling.simulation import simulate as simulated
from streamworker.autoscaling.synthetic import course, duration_s
from streamworker.autoscaling.values import merged, policy, worker_values
from streamworker.cli.console_output import say, show_json, show_table
from streamworker.cli.options import Amount, examples, json_option
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.autoscaling.groups import Sample
    from streamworker.autoscaling.observation import Group
    from streamworker.autoscaling.policy import Autoscaling
    from streamworker.autoscaling.simulation import Moment, Timeline

_CODES = (
    "\b\nExit codes:\n"
    "    0  Done, whatever the replicas do.\n"
    "    1  A file could not be read or written.\n"
    "    2  Wrong usage, values or series."
)
_DURATION_S = 3600


@click.group(epilog=_CODES)
def autoscale() -> None:
    """Try autoscaling by lag without a cluster."""


class _Duration(click.ParamType[int]):
    """Whole seconds: 90, 90s, 15m."""

    name = "DURATION"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As of its base."""
        try:
            return int(duration_s(str(value)))
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)


class _Span(click.ParamType[tuple[float, float]]):
    """From when until when: 10m..25m."""

    name = "FROM..UNTIL"

    def convert(
        self, value: str | tuple[float, float], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """As of its base."""
        if isinstance(value, tuple):
            return value
        since, _, until = value.partition("..")
        try:
            span = duration_s(since), duration_s(until)
        except ConfigurationError:
            span = 0.0, 0.0
        if span[0] >= span[1]:
            self.fail(f"expected two times like 10m..25m, got {value!r}", param, ctx)
        return span


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=0)


@autoscale.command(
    epilog=examples(
        "streamworker autoscale simulate --synthetic spike:peak=50000,for=90s",
        "streamworker autoscale simulate --synthetic step:to=25000 --metric-type Value --min-replicas 2",
        "streamworker autoscale simulate --synthetic step:base=800,to=4000 --rate-per-replica 1000 --duration 2h",
        "streamworker autoscale simulate --lag lag.csv --values values.yaml --worker orders --svg lag.svg",
        "streamworker autoscale simulate --lag range.json --set keda.skewAware=true --json",
    )
    + "\n\n"
    + _CODES
)
@click.option("--lag", "recording", type=_FILE, help="A recorded lag: CSV, or what Prometheus answers to query_range.")
@click.option("--synthetic", metavar="COURSE", help="A lag, or a rate, that is made up; see above.")
@click.option(
    "--rate-per-replica",
    type=Amount(min=0.001),
    help="Records that a replica handles a second. The course is then the rate at which they come.",
)
@click.option("--duration", type=_Duration(), help="Of what is made up. [default: 1h]")
@click.option(
    "--sink-open", "outages_s", type=_Span(), multiple=True, help="When the breaker of a sink is open; may be repeated."
)
@click.option("--replicas", type=_COUNT, help="At the beginning. [default: the least there may be]")
@click.option("--values", "values_file", type=_FILE, help="A values file of the chart, in YAML or JSON.")
@click.option("--worker", metavar="NAME", help="Which worker of the values. [default: the only one]")
@click.option("--partitions", type=click.IntRange(min=1), help="The value partitions. [default: 12]")
@click.option("--min-replicas", type=_COUNT, help="The value autoscaling.minReplicas. [default: 1]")
@click.option("--max-replicas", type=_COUNT, help="The value autoscaling.maxReplicas. [default: one per partition]")
@click.option("--lag-threshold", type=_COUNT, help="The value autoscaling.lagThreshold. [default: 10000]")
@click.option("--metric-type", help="The value autoscaling.metricType. [default: AverageValue]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another value of autoscaling; may be repeated."
)
@click.option("--formula", help="A formula over lag, pods, sink_open and busy, in place of the chart's.")
@click.option(
    "--sync-period", "sync_period_s", type=_Duration(), default=15, help="Of the cluster's autoscaler. [default: 15s]"
)
@click.option(
    "--ready-after", "ready_after_s", type=_Duration(), default=15, help="Until a new replica works. [default: 15s]"
)
@click.option("--svg", "target", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this file.")
@json_option
def simulate(
    recording: Path | None,
    synthetic: str | None,
    rate_per_replica: float | None,
    duration: int | None,
    outages_s: Sequence[tuple[float, float]],
    replicas: int | None,
    values_file: Path | None,
    worker: str | None,
    partitions: int | None,
    min_replicas: int | None,
    max_replicas: int | None,
    lag_threshold: int | None,
    metric_type: str | None,
    settings: Sequence[str],
    formula: str | None,
    sync_period_s: int,
    ready_after_s: int,
    target: Path | None,
    as_json: bool,
) -> None:
    """Show how many replicas there would be, when they would change, and which rule holds them back.

    The lag is a recording (--lag), on which replicas have no effect, or is made up (--synthetic): spike:base=0,
    peak=50000,at=60,for=90 or step:base=0,to=25000,at=60 or sine:mean=5000,amplitude=4000,period=1h, without blanks;
    what is left out has these values. With --rate-per-replica the course is what comes in a second, and the lag
    follows from how many replicas work.

    The rules are those of the HorizontalPodAutoscaler of Kubernetes 1.34 and of KEDA 2.21. The options that are
    values of the chart go before a values file. --set has all of them, below autoscaling: --set keda.skewAware=true,
    --set sinkBreakerHold.enabled=true, --set behavior.scaleUp.stabilizationWindowSeconds=60.

    CSV begins with a line of names: time (seconds or ISO 8601) and lag, and if there are any sink_open and busy (from 0
    to 1) and partition_0 and so on, the lag by partition. An empty cell is a time at which nothing could be read.
    """
    own: dict[str, object] = {
        "minReplicas": min_replicas,
        "maxReplicas": max_replicas,
        "lagThreshold": lag_threshold,
        "metricType": metric_type,
    }
    given: dict[str, object] = {name: value for name, value in own.items() if value is not None}
    for setting in settings:
        given = dict(merged(given, _setting(setting)))
    base = {"autoscaling": {"mode": "keda"}} if values_file is None else worker_values(_document(values_file), worker)
    if values_file is None and worker is not None:
        raise click.UsageError("--worker is one of a values file: give --values")
    over: dict[str, object] = {"autoscaling": given} | ({} if partitions is None else {"partitions": partitions})
    chosen = policy(merged(base, over), sync_period_s=sync_period_s, ready_after_s=ready_after_s, formula=formula)
    for name in chosen.left_out:
        say(f"Warning: {name} is not simulated", to_stderr=True)
    source = _Source(recording, synthetic, rate_per_replica, duration, outages_s)
    timeline = simulated(chosen.policy, source.group(chosen.policy), replicas)
    if target is not None:
        _write(target, picture(timeline, source.title, chosen.policy.trigger.lag_threshold))
    if as_json:
        show_json([_plain(one, chosen.policy) for one in timeline.changes()])
        return
    _show(timeline, chosen.policy)


@dataclass(frozen=True, slots=True)
class _Source:
    """What the command line said of the lag."""

    recording: Path | None
    synthetic: str | None
    rate_per_replica: float | None
    duration_s: int | None
    outages_s: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        if (self.recording is None) == (self.synthetic is None):
            raise click.UsageError("give one of --lag and --synthetic")
        made_up = {
            "--rate-per-replica": self.rate_per_replica,
            "--duration": self.duration_s,
            "--sink-open": self.outages_s or None,
        }
        for name, value in made_up.items():
            if self.recording is not None and value is not None:
                raise click.UsageError(f"{name} goes with --synthetic: a recording is as it is")

    @property
    def title(self) -> str:
        """For a picture."""
        if self.recording is not None:
            return self.recording.name
        rate = "" if self.rate_per_replica is None else f" records/s, {self.rate_per_replica:g} per replica"
        return f"{self.synthetic}{rate}"

    def group(self, scaling: Autoscaling) -> Group:
        """What is to be scaled."""
        if self.recording is not None:
            group: Group = RecordedGroup(_samples(self.recording))
        else:
            made_up = course(self.synthetic or "")
            duration_s = _DURATION_S if self.duration_s is None else self.duration_s
            partitions = scaling.trigger.partitions
            group = (
                GivenLag(made_up, duration_s, self.outages_s)
                if self.rate_per_replica is None
                else ModelledGroup(made_up, duration_s, self.rate_per_replica, partitions, self.outages_s)
            )
        if scaling.needs_busy and not group.knows_busy:
            raise ConfigurationError(
                "busy: how busy workers are is not known here: give --rate-per-replica, or a recording that has busy"
            )
        return group


def _samples(file: Path) -> Sequence[Sample]:
    text = _text(file)
    try:
        return from_prometheus(text) if text.lstrip()[:1] in ("{", "[") else from_csv(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def _document(file: Path) -> object:
    text = _text(file)
    try:
        if text.lstrip().startswith("{"):
            return msgspec.json.decode(text)
        return msgspec.yaml.decode(text)
    except ImportError:
        raise ConfigurationError(
            f"{file}: YAML needs a package more: pip install 'streamworker[autoscale]'; JSON is read without"
        ) from None
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: expected text in UTF-8") from None


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error


def _setting(text: str) -> Mapping[str, object]:
    """`a.b=1` as tables."""
    path, equals, word = text.partition("=")
    if not equals or not all(path.split(".")):
        raise click.BadParameter(f"expected KEY=VALUE, got {text!r}", param_hint="--set")
    try:
        value: object = json.loads(word)
    except ValueError:
        value = word
    for name in reversed(path.removeprefix("autoscaling.").split(".")):
        value = {name: value}
    assert isinstance(value, dict)  # the path has a name at least
    return value


def _show(timeline: Timeline, scaling: Autoscaling) -> None:
    rows = [
        (_clock(one.at_s), _lag(one.lag), one.proposal, one.replicas, one.ready, reason(one, scaling))
        for one in timeline.changes()
    ]
    show_table(("at", "lag", "asked for", "replicas", "ready", "why"), rows)
    last = timeline.moments[-1]
    say(f"{_clock(last.at_s)} simulated; {last.replicas} replicas at the end, {timeline.most} at most.")


def _plain(moment: Moment, scaling: Autoscaling) -> Mapping[str, object]:
    return {
        "at_s": moment.at_s,
        "lag": moment.lag,
        "sink_open": moment.sink_open,
        "asked_for": moment.proposal,
        "replicas": moment.replicas,
        "ready": moment.ready,
        "rule": moment.rule.value,
        "why": reason(moment, scaling),
    }


def _lag(lag: float | None) -> str:
    return "" if lag is None else f"{lag:,.0f}"


def _clock(at_s: float) -> str:
    minutes, seconds = divmod(round(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
