"""The environment and command line of containers."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.local.node.environment import (
    ConfigMissing,
    command_line,
    container_environment,
    expand,
    service_variables,
)

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "n", "labels": {"app": "a"}},
    "spec": {"nodeName": "laptop"},
    "status": {"podIP": "127.1.64.1"},
}
OBJECTS = {
    ("ConfigMap", "c"): {"kind": "ConfigMap", "data": {"K": "v", "L": "w"}},
    ("Secret", "s"): {"kind": "Secret", "data": {"T": "c2VjcmV0"}},
}


def environment(container: dict[str, Any], base: dict[str, str] | None = None) -> dict[str, str]:
    return container_environment(POD, container, lambda kind, name: OBJECTS.get((kind, name)), base or {}, "127.1.0.2")


@pytest.mark.parametrize(
    ("text", "value"), [("$(A)-$(B)", "1-$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$(A", "$(A"), ("$$$(A)", "$1")]
)
def test_expansion(text: str, value: str) -> None:
    """Known variables are filled in, unknown ones stay, and two dollars are one."""
    assert expand(text, {"A": "1"}) == value


def test_sources() -> None:
    """Values, fields, ConfigMaps and Secrets, in order; later ones see earlier ones and win over envFrom."""
    env = environment(
        {
            "envFrom": [
                {"prefix": "P_", "configMapRef": {"name": "c"}},
                {"secretRef": {"name": "none", "optional": True}},
            ],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)$(BASE)"},
                {"name": "P_L", "value": "mine"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "K"}}},
                {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "T"}}},
                {"name": "O", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none", "optional": True}}},
            ],
        },
        {"BASE": "!"},
    )
    assert env == {
        "BASE": "!", "P_K": "v", "P_L": "mine", "A": "1", "B": "1!", "IP": "127.1.64.1", "HOST": "127.1.0.2",
        "LABEL": "a", "K": "v", "T": "secret",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "K"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "none"}}, "couldn't find key none in Secret n/s"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], words: str) -> None:
    """A missing object or key stops the container with its name."""
    with pytest.raises(ConfigMissing, match=words):
        environment({"env": [{"name": "A", "valueFrom": source}]})


def test_service_variables() -> None:
    """Each Service of the namespace gives its host and the port that is really served; headless ones give nothing."""
    services = [
        {
            "metadata": {"name": "my-api", "namespace": "n"},
            "spec": {"clusterIP": "127.1.32.1", "ports": [{"name": "http", "port": 80}]},
        },
        {"metadata": {"name": "headless", "namespace": "n"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
        {"metadata": {"name": "other", "namespace": "m"}, "spec": {"clusterIP": "127.1.32.2", "ports": [{"port": 1}]}},
    ]
    found = service_variables(services, "n", lambda port: port + 10000)
    assert found["MY_API_SERVICE_HOST"] == "127.1.32.1"
    assert found["MY_API_SERVICE_PORT"] == found["MY_API_SERVICE_PORT_HTTP"] == "10080"
    assert not [name for name in found if not name.startswith("MY_API")]


@pytest.mark.parametrize(
    ("container", "line"),
    [
        ({}, ["entry", "default"]),
        ({"args": ["a$(X)"]}, ["entry", "a1"]),
        ({"command": ["c"]}, ["c"]),
        ({"command": ["c"], "args": ["a"]}, ["c", "a"]),
    ],
)
def test_command_line(container: dict[str, Any], line: list[str]) -> None:
    """`command` replaces the image's whole command line, `args` its arguments."""
    assert command_line(container, ["entry"], ["default"], {"X": "1"}) == line
