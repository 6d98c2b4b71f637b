"""Makers of the objects that controllers work on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


class Make:
    """Small makers of Kubernetes objects."""

    now = NOW

    def __init__(self) -> None:
        self._count = 0

    def _metadata(self, name: str, **more: Any) -> dict[str, Any]:
        self._count += 1
        return {
            "name": name,
            "namespace": "rides",
            "uid": f"uid-{name}",
            "resourceVersion": str(self._count),
            "generation": 1,
            "creationTimestamp": f"2026-01-01T00:{self._count:02d}:00Z",
            **more,
        }

    def deployment(self, replicas: int = 3, image: str = "app:1", **spec: Any) -> dict[str, Any]:
        """A Deployment named `app`."""
        return {
            "metadata": self._metadata("app"),
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "app"}},
                "progressDeadlineSeconds": 600,
                "revisionHistoryLimit": 10,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {
                    "metadata": {"labels": {"app": "app"}},
                    "spec": {"containers": [{"name": "app", "image": image}]},
                },
                **spec,
            },
        }

    def replica_set(self, replicas: int = 1, name: str = "rs") -> dict[str, Any]:
        """A ReplicaSet that selects `app: app`."""
        return {
            "metadata": self._metadata(name),
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "app"}},
                "template": {"metadata": {"labels": {"app": "app"}}, "spec": {"containers": [{"name": "app"}]}},
            },
        }

    def pod(
        self,
        name: str,
        ip: str = "",
        *,
        ready: bool = True,
        owner: str = "",
        labels: dict[str, str] | None = None,
        deleting: bool = False,
        phase: str = "Running",
        ports: tuple[dict[str, Any], ...] = (),
        **metadata: Any,
    ) -> dict[str, Any]:
        """A Pod on a node; `owner` is its controller's name."""
        made = self._metadata(name, labels={"app": "app"} if labels is None else labels, **metadata)
        if owner:
            made["ownerReferences"] = [{"kind": "X", "name": owner, "uid": f"uid-{owner}", "controller": True}]
        if deleting:
            made["deletionTimestamp"] = "2026-01-01T11:00:00Z"
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T11:59:50Z"}
        return {
            "metadata": made,
            "spec": {"nodeName": "laptop", "containers": [{"name": "app", "ports": list(ports)}]},
            "status": {"phase": phase, "conditions": [condition], **({"podIP": ip} if ip else {})},
        }


@pytest.fixture
def make() -> Make:
    """Makers of objects, with ever later creation times."""
    return Make()
