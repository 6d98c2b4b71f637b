"""Columns of the kinds that are mostly data."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.resource import Resource
from sandlane.local.apiserver.tables import builtin_columns

META = {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 50}}}


@pytest.mark.parametrize(
    ("group", "kind", "obj", "cells"),
    [
        (
            "networking.k8s.io",
            "Ingress",
            {"spec": {"ingressClassName": "nginx", "rules": [{"host": "a.test"}, {}], "tls": [{}]}},
            ["nginx", "a.test", "", "80, 443"],
        ),
        ("networking.k8s.io", "Ingress", {"spec": {}}, ["<none>", "*", "", "80"]),
        (
            "autoscaling",
            "HorizontalPodAutoscaler",
            {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3, "metrics": [CPU]}},
            ["Deployment/d", "cpu: <unknown>/50%", "<unset>", 3, 0],
        ),
        (
            "autoscaling",
            "HorizontalPodAutoscaler",
            {
                "spec": {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 80},
                "status": {"currentReplicas": 2, "currentCPUUtilizationPercentage": 10},
            },
            ["/", "cpu: 10%/80%", "1", 3, 2],
        ),
        (
            "",
            "PersistentVolumeClaim",
            {
                "spec": {"volumeName": "v", "accessModes": ["ReadWriteOnce"], "storageClassName": "fast"},
                "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
            },
            ["Bound", "v", "1Gi", "RWO", "fast", "<unset>"],
        ),
        (
            "",
            "PersistentVolume",
            {"spec": {"capacity": {"storage": "1Gi"}, "claimRef": {"namespace": "n", "name": "c"}}},
            ["1Gi", "", "", "", "n/c", "", "<unset>", ""],
        ),
        (
            "batch",
            "CronJob",
            {"spec": {"schedule": "* * * * *", "jobTemplate": {}}, "status": {"active": [{}]}},
            ["* * * * *", "<none>", "False", 1, "<none>"],
        ),
        (
            "apps",
            "ControllerRevision",
            {
                "metadata": {**META, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": True}]},
                "revision": 2,
            },
            ["daemonset.apps/d", 2],
        ),
        ("networking.k8s.io", "IngressClass", {"spec": {"controller": "c"}}, ["c", "<none>"]),
        ("scheduling.k8s.io", "PriorityClass", {"value": 5}, [5, "false"]),
    ],
)  # fmt: skip
def test_cells(group: str, kind: str, obj: Any, cells: list[Any]) -> None:
    """The first columns show what kubectl shows."""
    columns = builtin_columns(Resource(group, "v1", "things", kind))
    shown = [column.read({"metadata": META, **obj}) for column in columns]
    assert shown[: len(cells)] == cells


def test_every_column_can_be_read_of_a_bare_object() -> None:
    """No printer fails on an object that has nothing but its required parts."""
    from sandlane.local.apiserver.printers_data import DATA_PRINTERS

    for columns in DATA_PRINTERS.values():
        for column in columns:
            column.read({"metadata": META, "spec": {}})
