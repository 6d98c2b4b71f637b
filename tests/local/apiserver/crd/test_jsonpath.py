"""JSON paths of printer columns: those that real definitions have."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.local.apiserver.crd.jsonpath import PathError, find

OBJ: dict[str, Any] = {
    "metadata": {"labels": {"strimzi.io/cluster": "kafka", "plain": "x"}},
    "spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}], "n": 3, "list": [1, 2, 3]},
    "status": {
        "traffic": [{"latest": False, "percent": 10}, {"latest": True, "percent": 90}],
        "conditions": [{"type": "Ready", "status": "True", "gen": 2}, {"type": "Paused", "status": "False"}],
    },
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.n", [3]),
        ("spec.n", [3]),
        ("$.spec.n", [3]),
        (".metadata.labels.strimzi\\.io/cluster", ["kafka"]),
        (".metadata.labels['strimzi\\.io/cluster']", ["kafka"]),
        (".metadata.labels['strimzi.io/cluster']", []),
        ('.metadata.labels["plain"]', ["x"]),
        (".spec.ports[*].name", ["a", "b"]),
        (".spec.ports[0].port", [1]),
        (".spec.ports[-1].port", [2]),
        (".spec.list[0:2]", [1, 2]),
        (".spec.list[1:]", [2, 3]),
        (".spec.list[::2]", [1, 3]),
        (".spec.list[0,2]", [1, 3]),
        (".spec.ports[0]['name','port']", ["a", 1]),
        (".spec..port", [1, 2]),
        (".metadata.labels.*", ["kafka", "x"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type == 'Ready')].status", ["True"]),
        (".status.conditions[?(@.type!='Ready')].status", ["False"]),
        (".status.conditions[?(@.gen>=2)].type", ["Ready"]),
        (".status.conditions[?(@.gen)].type", ["Ready"]),
        (".status.traffic[?(@.latest==true)].percent", [90]),
        (".spec.list[?(@>1)]", [2, 3]),
        (".spec.nothing.here", []),
        (".spec.n.deeper[0]", []),
    ],
)
def test_what_lies_at_a_path(path: str, found: list[Any]) -> None:
    """All values at the path, in their order; nothing where there is nothing."""
    assert find(OBJ, path) == found


@pytest.mark.parametrize("path", [".a[", ".a[?(@.b==)]", ".a[?(@.b==c)]", ".a[x]", ".", "{.a}"])
def test_what_is_no_path(path: str) -> None:
    """A path that cannot be read is told."""
    with pytest.raises(PathError):
        find({}, path)
