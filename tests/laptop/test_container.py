"""What a container would see, on a laptop: variables and files, and what is left out."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from sandlane.cli.run import place, written
from sandlane.laptop.container import Container, Sight, choose, for_this_machine, pod_here, referred, see
from sandlane.laptop.errors import ConnectError
from sandlane.local.node.payload import File


def deployment(container: dict[str, Any], volumes: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """A Deployment of one container."""
    template = {
        "metadata": {"labels": {"app": "eta"}},
        "spec": {"containers": [container], "volumes": list(volumes)},
    }
    return {"metadata": {"name": "eta", "namespace": "rides", "uid": "u"}, "spec": {"template": template}}


def secret(**data: str) -> dict[str, Any]:
    """A Secret."""
    return {"kind": "Secret", "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}}


ENV: dict[str, Any] = {
    "name": "eta",
    "envFrom": [{"configMapRef": {"name": "all"}, "prefix": "C_"}, {"secretRef": {"name": "hidden"}}],
    "env": [
        {"name": "PLAIN", "value": "x"},
        {"name": "COMBINED", "value": "$(PLAIN)/$(C_ONE)/$(ETA_SERVICE_HOST)/$$(PLAIN)"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
        {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x"}}},
        {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x", "optional": True}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "PATH", "value": "/nowhere"},
    ],
    "resources": {"limits": {"cpu": "2"}},
}


def test_variables_are_those_of_the_container() -> None:
    """From everywhere, in order; what may not be read or is not there is left out, said, and costs nothing else."""
    pod = pod_here(deployment(ENV))
    assert referred(pod, ENV) == {("ConfigMap", "all"), ("ConfigMap", "none"), ("Secret", "hidden"), ("Secret", "s")}
    found = {("ConfigMap", "all"): {"kind": "ConfigMap", "data": {"ONE": "1"}}, ("Secret", "s"): secret(token="t")}
    refused = {("Secret", "hidden"): "you may not get secrets hidden"}
    sight = see(Container(pod, ENV, found, refused), {"ETA_SERVICE_HOST": "127.0.0.1"})
    env = for_this_machine(sight.env)
    assert env == {
        "ETA_SERVICE_HOST": "127.0.0.1",
        "C_ONE": "1",
        "PLAIN": "x",
        "COMBINED": "x/1/127.0.0.1/$(PLAIN)",
        "TOKEN": "t",
        "POD_IP": "127.0.0.1",
        "NS": "rides",
        "APP": "eta",
        "CPU": "2000",
    }
    assert sight.problems == [
        "envFrom: you may not get secrets hidden: left out",
        'GONE: configmap "none" not found: left out',
    ]


def test_files_are_those_that_the_container_mounts() -> None:
    """ConfigMaps, Secrets and the downward API, whole or by subPath; tokens and other volumes are left out, and said."""
    container: dict[str, Any] = {
        "name": "eta",
        "volumeMounts": [
            {"name": "conf", "mountPath": "/etc/eta/"},
            {"name": "conf", "mountPath": "/etc/one.ini", "subPath": "one.ini"},
            {"name": "all", "mountPath": "/var/all"},
            {"name": "cache", "mountPath": "/cache"},
            {"name": "closed", "mountPath": "/closed"},
        ],
    }
    projected = [
        {"secret": {"name": "s", "items": [{"key": "token", "path": "deep/token"}]}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"serviceAccountToken": {"path": "account"}},
    ]
    volumes = (
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "all", "projected": {"sources": projected}},
        {"name": "cache", "emptyDir": {}},
        {"name": "closed", "secret": {"secretName": "hidden"}},
        {"name": "unused", "secret": {"secretName": "other"}},
    )
    pod = pod_here(deployment(container, volumes))
    found = {("ConfigMap", "conf"): {"kind": "ConfigMap", "data": {"one.ini": "a"}}, ("Secret", "s"): secret(token="t")}
    sight = see(Container(pod, container, found, {("Secret", "hidden"): "you may not get secrets hidden"}))
    assert {path: file.content for path, file in sight.files.items()} == {
        "/etc/eta/one.ini": b"a",
        "/etc/one.ini": b"a",
        "/var/all/deep/token": b"t",
        "/var/all/labels": b'app="eta"',
    }
    assert [problem.partition(":")[0] for problem in sight.problems] == ["volume all", "volume cache", "volume closed"]


def test_files_are_written_for_this_user_alone(tmp_path: Path) -> None:
    """They may be secret; a link in the way is replaced, not followed."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "a").symlink_to(outside)
    place(Sight(files={"/etc/a": File(b"x", 0o644), "/etc/run": File(b"y", 0o755)}), tmp_path / "root")
    assert outside.read_text() == "mine"
    modes = {name: os.stat(tmp_path / "root" / "etc" / name).st_mode & 0o777 for name in ("a", "run")}
    assert modes == {"a": 0o600, "run": 0o700}


def test_variables_are_printed_as_a_shell_takes_them() -> None:
    """Whatever is in them."""
    env = {"B": "it's $HOME\n", "A": "x"}
    assert written(env, "export") == "export A=x\nexport B='it'\"'\"'s $HOME\n'"
    assert written(env, "dotenv").startswith("A=x\nB=")
    assert '"A": "x"' in written(env, "json")


def test_which_container_is_meant() -> None:
    """The only one, or the one named; otherwise the message names those there are."""
    two = [{"name": "eta"}, {"name": "side"}]
    assert choose(two[:1], "eta", "") == two[0]
    assert choose(two, "eta", "side") == two[1]
    with pytest.raises(ConnectError, match=r"several containers \(eta, side\)"):
        choose(two, "eta", "")
    with pytest.raises(ConnectError, match="no container x; it has eta, side"):
        choose(two, "eta", "x")
