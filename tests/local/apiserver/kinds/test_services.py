"""Services: defaults, addresses, and what may change."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.patch.values import copy_json
from sandlane.local.apiserver.kinds.services import AddressError


def test_cluster_ip_service(server: Any, make: Any) -> None:
    """A Service gets an address, and keeps it over updates that do not name it."""
    obj = server.create(make("v1", "Service", spec={"ports": [{"port": 80}], "selector": {"a": "b"}}))
    spec = obj["spec"]
    assert spec["clusterIP"] == "10.96.0.1"
    assert spec["clusterIPs"] == ["10.96.0.1"]
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (spec["type"], spec["ipFamilies"], spec["internalTrafficPolicy"]) == ("ClusterIP", ["IPv4"], "Cluster")
    new, errors = server.update(obj, make("v1", "Service", spec={"ports": [{"port": 81}]}))
    assert errors == []
    assert new["spec"]["clusterIP"] == "10.96.0.1"
    changed = copy_json(obj)
    changed["spec"]["clusterIP"] = "10.96.0.5"
    _, errors = server.update(obj, changed)
    assert [(each.field, each.detail) for each in errors] == [("spec.clusterIPs[0]", "may not change once set")]


def test_kinds_of_service(server: Any, make: Any) -> None:
    """Headless, NodePort and ExternalName Services each get their own fields."""
    headless = server.create(make("v1", "Service", "h", spec={"clusterIP": "None", "ports": [{"port": 80}]}))
    assert headless["spec"]["clusterIPs"] == ["None"]
    node_port = server.create(make("v1", "Service", "n", spec={"type": "NodePort", "ports": [{"port": 80}]}))
    assert node_port["spec"]["ports"][0]["nodePort"] == 30000
    assert node_port["spec"]["externalTrafficPolicy"] == "Cluster"
    external = server.create(make("v1", "Service", "e", spec={"type": "ExternalName", "externalName": "db.test"}))
    assert external["spec"] == {"type": "ExternalName", "sessionAffinity": "None", "externalName": "db.test"}
    back, errors = server.update(
        node_port, make("v1", "Service", "n", spec={"ports": [{"port": 80, "nodePort": 30000}]})
    )
    assert errors == []
    assert "nodePort" not in back["spec"]["ports"][0]


def test_addresses_are_unique_until_they_run_out(server: Any, make: Any) -> None:
    """Six addresses serve six Services; the seventh is refused; a taken one cannot be asked for."""
    given = {
        server.create(make("v1", "Service", f"s{n}", spec={"ports": [{"port": 80}]}))["spec"]["clusterIP"]
        for n in range(6)
    }
    assert len(given) == 6
    with pytest.raises(AddressError, match="range is full"):
        server.create(make("v1", "Service", "more", spec={"ports": [{"port": 80}]}))
    for wanted, text in (
        ("10.96.0.1", "already allocated"),
        ("10.97.0.1", "not in the valid range"),
        ("x", "must be a valid IP"),
    ):
        with pytest.raises(AddressError, match=text):
            server.create(make("v1", "Service", "own", spec={"clusterIP": wanted, "ports": [{"port": 80}]}))


def test_what_was_just_given_out_is_not_given_again(server: Any) -> None:
    """Two allocations before either Service is stored give two addresses and two ports."""
    assert server.addresses.cluster_ip("") != server.addresses.cluster_ip("")
    assert server.addresses.node_port(0) != server.addresses.node_port(0)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"ports": [{"port": 0}, {"port": 80, "name": "a"}]},
            ["spec.ports[0].name", "spec.ports[0].port", "spec.ports[0].targetPort"],
        ),
        ({"type": "Odd", "ports": [{"port": 80}]}, ["spec.type"]),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, ["spec.ports[1]"]),
        ({}, ["spec.ports"]),
        ({"type": "ExternalName"}, ["spec.externalName"]),
        ({"ports": [{"port": 80, "nodePort": 30001}]}, ["spec.ports[0].nodePort"]),
        ({"ports": [{"port": 80, "protocol": "ICMP"}]}, ["spec.ports[0].protocol"]),
    ],
)
def test_invalid_service(server: Any, make: Any, spec: Any, expected: Any) -> None:
    """Faults of a Service are named by field."""
    _, errors = server.try_create(make("v1", "Service", spec=spec))
    assert sorted(each.field for each in errors) == expected
