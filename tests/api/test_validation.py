"""Broken rules are all found at once, at their exact paths."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sandlane.api import types as t
from sandlane.api.limits import Limits
from sandlane.api.validation import (
    check_local_workload,
    check_local_workload_update,
    check_route_group,
    check_route_group_update,
    check_sandbox,
    check_sandbox_update,
    pattern_problem,
)


def sandbox(**spec: Any) -> t.SandboxSpec:
    """A spec."""
    return msgspec.convert(spec, t.SandboxSpec)


def fork(name: str = "route", **more: Any) -> dict[str, Any]:
    """A fork."""
    return {"forkOf": {"name": name}} | more


def env(*variables: dict[str, Any]) -> dict[str, Any]:
    """A sandbox with these variables."""
    return {"forks": [fork(customizations={"env": list(variables)})]}


LOCAL = {"name": "l", "from": {"name": "x"}, "mappings": [{"port": 1, "to": "localhost:1"}]}
SANDBOXES = {
    "spec.routingKey": {"routingKey": "UPPER"},
    "spec.ttl.duration": {"ttl": {"duration": "2y"}},
    "spec.ttl.from": {"ttl": {"duration": "2d", "from": "noMatchedSandboxes"}},
    "spec.forks[1].forkOf": {"forks": [fork(), fork()]},
    "spec.forks[0].forkOf.kind": {"forks": [{"forkOf": {"name": "a", "kind": "StatefulSet"}}]},
    "spec.forks[0].forkOf.apiGroup": {"forks": [{"forkOf": {"name": "a", "apiGroup": "batch"}}]},
    "spec.forks[0].forkOf.namespace": {"forks": [{"forkOf": {"name": "a", "namespace": "prod"}}]},
    "spec.forks[0].forkOf.name": {"forks": [{"forkOf": {"name": "A_b"}}]},
    "spec.forks[0].customizations.images[1].container": {
        "forks": [fork(customizations={"images": [{"image": "a"}, {"image": "b"}]})]
    },
    "spec.forks[0].customizations.env[0]": env({"name": "A"}),
    "spec.forks[0].customizations.env[0].name": env({"name": "SANDLANE_BASELINE", "value": ""}),
    "spec.forks[0].customizations.env[1].name": env({"name": "A", "value": ""}, {"name": "A", "value": ""}),
    "spec.forks[0].customizations.env[0].operation": env({"name": "A", "value": "", "operation": "replace"}),
    "spec.forks[0].customizations.env[0].valueFrom": env({"name": "A", "valueFrom": {}}),
    "spec.forks[0].customizations.env[0].valueFrom.fork.forkOf": env(
        {"name": "A", "valueFrom": {"fork": {"forkOf": {"name": "driver"}}}}
    ),
    "spec.forks[0].customizations.env[0].valueFrom.fork.field": env(
        {"name": "A", "valueFrom": {"fork": {"forkOf": {"name": "route"}, "field": "ip"}}}
    ),
    "spec.forks[0].customizations.patch.value": {
        "forks": [fork(customizations={"patch": {"type": "json", "value": {}}})]
    },
    "spec.forks[0].customizations.patch.type": {"forks": [fork(customizations={"patch": {"type": "x", "value": {}}})]},
    "spec.forks[0].customizations.replicas": {"forks": [fork(customizations={"replicas": -1})]},
    "spec.forks[0].preservedLabels[0]": {"forks": [fork(preservedLabels=["(?=a)"])]},
    "spec.forks[0].resources.limits[cpu]": {"forks": [fork(resources={"limits": {"cpu": "much"}})]},
    "spec.forks[0].resources.claims": {"forks": [fork(resources={"claims": {}})]},
    "spec.local[1].name": {"local": [LOCAL, LOCAL | {"from": {"name": "y"}}]},
    "spec.local[0].name": {"local": [LOCAL | {"name": "A"}]},
    "spec.local[0].from": {"forks": [fork("x")], "local": [LOCAL]},
    "spec.local[0].mappings": {"local": [LOCAL | {"mappings": []}]},
    "spec.local[0].mappings[0].to": {"local": [LOCAL | {"mappings": [{"port": 1, "to": "localhost"}]}]},
    "spec.local[0].mappings[0].port": {"local": [LOCAL | {"mappings": [{"port": 0, "to": "h:1"}]}]},
    "spec.local[0].mappings[1].port": {"local": [LOCAL | {"mappings": [{"port": 1, "to": "h:1"}] * 2}]},
    "spec.local[0].holdSeconds": {"local": [LOCAL | {"holdSeconds": 0}]},
    "spec.defaultRouteGroup.endpoints[0].name": {
        "defaultRouteGroup": {"endpoints": [{"name": "a--b", "target": "http://x:1"}]}
    },
    "spec.defaultRouteGroup.endpoints[1].name": {
        "defaultRouteGroup": {"endpoints": [{"name": "a", "target": "http://x:1"}] * 2}
    },
    "spec.defaultRouteGroup.endpoints[0].target": {
        "defaultRouteGroup": {"endpoints": [{"name": "a", "target": "http://x:99999"}]}
    },
}


@pytest.mark.parametrize("path", SANDBOXES)
def test_a_broken_rule_of_a_sandbox_is_found_at_its_path(path: str) -> None:
    """One broken rule gives one error, at its path."""
    found = check_sandbox("a", "rides", sandbox(**SANDBOXES[path]))
    assert [error.path for error in found.errors] == [path], found.message


def test_a_legal_sandbox_has_no_findings() -> None:
    """A spec that uses everything is legal."""
    spec = sandbox(
        ttl={"duration": "2d", "from": "lastUpdate"},
        routingKey="my-key",
        forks=[
            fork(
                customizations={
                    "images": [{"image": "a:2"}],
                    "env": [
                        {"name": "A", "value": ""},
                        {"name": "B", "operation": "delete"},
                        {"name": "C", "valueFrom": {"fork": {"forkOf": {"name": "driver"}, "port": 80}}},
                    ],
                    "patch": {"type": "json", "value": []},
                },
                resources={"limits": {"cpu": 1, "memory": "1Gi"}},
                preservedLabels=["^a$"],
            ),
            fork("driver"),
        ],
        local=[LOCAL],
        defaultRouteGroup={"endpoints": [{"name": "web", "target": "http://frontend.rides:8080"}]},
    )
    found = check_sandbox("new-eta", "rides", spec, Limits())
    assert found.errors == ()
    assert found.warnings == ()


def test_limits_are_part_of_the_rules() -> None:
    """Too many forks and too long a name are refused."""
    found = check_sandbox("n" * 31, "rides", sandbox(forks=[fork("a"), fork("b")]), Limits(forks_per_sandbox=1))
    assert [error.path for error in found.errors] == ["metadata.name", "spec.forks"]


def test_suspicious_specs_are_legal_with_a_warning() -> None:
    """No replicas, and nothing at all, are warned of."""
    assert len(check_sandbox("a", "rides", sandbox()).warnings) == 1
    none = sandbox(forks=[fork(customizations={"replicas": 0})])
    assert "replicas" in check_sandbox("a", "rides", none).warnings[0]


def test_immutable_fields() -> None:
    """routingKey, forkOf and from cannot be edited; forks can be added, removed and reordered."""
    old = sandbox(routingKey="a", forks=[fork("x"), fork("y")], local=[LOCAL])
    new = sandbox(routingKey="b", forks=[fork("y"), fork("z")], local=[LOCAL | {"from": {"name": "other"}}])
    paths = [error.path for error in check_sandbox_update(old, new).errors]
    assert paths == ["spec.routingKey", "spec.forks[1].forkOf", "spec.local[0].from"]
    reordered = sandbox(routingKey="a", forks=[fork("y"), fork("x")], local=[LOCAL])
    assert not check_sandbox_update(old, reordered).errors
    removed = sandbox(routingKey="a", forks=[fork("y")])
    assert not check_sandbox_update(old, removed).errors


def group(match: dict[str, Any], **spec: Any) -> t.RouteGroupSpec:
    """A spec."""
    return msgspec.convert({"match": match} | spec, t.RouteGroupSpec)


LABEL = {"label": {"key": "feature", "value": "eta-*"}}


@pytest.mark.parametrize(
    ("match", "path"),
    [
        ({}, "spec.match"),
        (LABEL | {"any": [LABEL]}, "spec.match"),
        ({"any": []}, "spec.match.any"),
        ({"any": [{}]}, "spec.match.any[0]"),
        ({"any": [{"all": [{"any": [LABEL]}]}]}, "spec.match.any[0].all[0].any"),
        ({"label": {"key": "a b", "value": "*"}}, "spec.match.label.key"),
    ],
)
def test_a_broken_match_is_found_at_its_path(match: dict[str, Any], path: str) -> None:
    """Exactly one of any, all, label, at most three levels deep."""
    assert [error.path for error in check_route_group("rides", group(match)).errors] == [path]


def test_route_group_rules() -> None:
    """The rest of a group's rules, and its immutable key."""
    spec = group(LABEL, namespaces=["a", "a"], ttl={"duration": "1d", "from": "noMatchedSandboxes"})
    found = check_route_group("rides", spec)
    assert [error.path for error in found.errors] == ["spec.namespaces[1]"]
    assert len(found.warnings) == 1
    assert check_route_group_update(group(LABEL), group(LABEL, routingKey="a")).errors


def test_local_workload_rules() -> None:
    """A sandbox is needed, ports are ports, sandbox and from are immutable."""
    spec = msgspec.convert({"sandbox": "", "from": {"name": "a"}, "mappings": []}, t.LocalWorkloadSpec)
    assert [error.path for error in check_local_workload("rides", spec).errors] == ["spec.mappings", "spec.sandbox"]
    other = msgspec.structs.replace(spec, sandbox="b", from_=t.WorkloadReference("c"))
    paths = [error.path for error in check_local_workload_update(spec, other).errors]
    assert paths == ["spec.sandbox", "spec.from"]


@pytest.mark.parametrize("pattern", ["(?=a)", "(?!a)", "(?<=a)b", r"(a)\1", "a++", "(?>a)", "(", "a{2,1}"])
def test_patterns_that_are_not_re2(pattern: str) -> None:
    """What RE2 does not know is refused."""
    assert pattern_problem(pattern)


@pytest.mark.parametrize("pattern", ["^a$", "a|b", "(?i)a", "a{1,3}", r"\w+", "(?P<x>a)"])
def test_patterns_that_are_re2(pattern: str) -> None:
    """Ordinary patterns are taken."""
    assert pattern_problem(pattern) is None
