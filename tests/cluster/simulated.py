"""Simulated nodes: how they are told from real ones, and what happens on them beyond what kwok brings."""

from __future__ import annotations

from typing import Any

# Annotation and value, as kwok's own tools set it.
NODE_MARK = ("kwok.x-k8s.io/node", "fake")

# The pod of a `helm test` ends well a moment after it runs. kwok's own stage ends the pods of Jobs only.
STAGES = """\
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata:
  name: helm-test-complete
spec:
  resourceRef:
    apiGroup: v1
    kind: Pod
  selector:
    matchAnnotations:
      helm.sh/hook: test
    matchExpressions:
      - key: .metadata.deletionTimestamp
        operator: DoesNotExist
      - key: .status.phase
        operator: In
        values: [Running]
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Succeeded
      containerStatuses:
      {{ range .spec.containers }}
        - name: {{ .name | Quote }}
          image: {{ .image | Quote }}
          ready: false
          restartCount: 0
          started: false
          state:
            terminated:
              exitCode: 0
              finishedAt: {{ $now | Quote }}
              reason: Completed
              startedAt: {{ $now | Quote }}
      {{ end }}
"""


def node(number: int) -> dict[str, Any]:
    """A node of a zone of its own, with room for all that tests start."""
    name = f"simulated-{number}"
    room = {"cpu": "32", "memory": "256Gi", "pods": "110"}
    labels = {
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": f"zone-{number}",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": dict([NODE_MARK]), "labels": labels},
        "status": {"allocatable": room, "capacity": room},
    }
