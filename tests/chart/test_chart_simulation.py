"""The simulation of autoscaling reads the chart's values."""

from __future__ import annotations

from pathlib import Path

import msgspec

from streamworker.autoscaling.policy import Autoscaling
from streamworker.autoscaling.values import merged, policy, worker_values

VALUES = Path(__file__).parents[2] / "deploy" / "charts" / "streamworker" / "values.yaml"


def test_every_value_of_autoscaling_is_known_and_has_the_chart_s_default() -> None:
    defaults = msgspec.yaml.decode(VALUES.read_bytes())["workerDefaults"]
    document = {"workerDefaults": defaults, "workers": {"orders": {"partitions": 12, "autoscaling": {"mode": "keda"}}}}

    charts = policy(worker_values(document, None), sync_period_s=15, ready_after_s=15)
    ours = policy(merged({}, {"autoscaling": {"mode": "keda"}}), sync_period_s=15, ready_after_s=15)

    assert charts == ours
    assert charts.left_out == ()
    assert (charts.policy.up, charts.policy.down) == (Autoscaling().up, Autoscaling().down)
