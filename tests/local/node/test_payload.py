"""What is in volumes and hosts files, as pure functions, and how files are swapped."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from sandlane.local.node.atomic import write_volume
from sandlane.local.node.hosts import hostname, hosts_file, service_lines
from sandlane.local.node.payload import (
    File,
    VolumeMissing,
    VolumeUnsupported,
    mounted_volumes,
    needs_account,
    payload,
    references,
)

Object = dict[str, Any]
POD: Object = {
    "metadata": {"name": "web", "namespace": "rides", "labels": {"app": "web"}},
    "spec": {"containers": [{"name": "app", "resources": {"limits": {"memory": "64Mi"}}}]},
    "status": {"podIP": "127.0.0.9"},
}


def files(volume: Object, *objects: tuple[str, Object]) -> dict[str, File]:
    """The payload of a volume, with these (kind, object) there."""
    known = {(kind, obj["metadata"]["name"]): obj for kind, obj in objects}
    return payload(
        volume, POD, lambda kind, name: known.get((kind, name)), lambda who, seconds: f"{who}-{seconds}", "127.0.0.2"
    )


def config(**data: str) -> tuple[str, Object]:
    """A ConfigMap named c."""
    return "ConfigMap", {"metadata": {"name": "c"}, "data": data}


def test_binary_data_is_decoded() -> None:
    """A ConfigMap's binaryData become bytes beside its text."""
    found = files(
        {"name": "v", "configMap": {"name": "c"}},
        (
            "ConfigMap",
            {"metadata": {"name": "c"}, "data": {"a": "ä"}, "binaryData": {"b": base64.b64encode(b"\0\1").decode()}},
        ),
    )
    assert found == {"a": File("ä".encode(), 0o644), "b": File(b"\0\1", 0o644)}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        (
            {"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}},
            "references non-existent configmap key: z",
        ),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "../z"}]}}, "leads out of the volume"),
    ],
)
def test_what_is_missing_is_said(source: Object, said: str) -> None:
    """A missing object or key has the kubelet's words, and no path leads out."""
    with pytest.raises(VolumeMissing, match=said):
        files({"name": "v", **source}, config(a="1"))


def test_optional_parts_may_be_missing() -> None:
    """Optional objects and keys are left out."""
    sources = [
        {"secret": {"name": "none", "optional": True}},
        {
            "configMap": {
                "name": "c",
                "optional": True,
                "items": [{"key": "z", "path": "z"}, {"key": "a", "path": "a", "mode": 0}],
            }
        },
        {"serviceAccountToken": {"path": "t"}},
    ]
    found = files({"name": "v", "projected": {"sources": sources, "defaultMode": 0o400}}, config(a="1"))
    assert found == {"a": File(b"1", 0), "t": File(b"-3600", 0o400)}


def test_downward_fields() -> None:
    """Fields of the Pod and of its containers' resources, in units of the divisor."""
    items = [
        {"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}},
        {"path": "memory", "resourceFieldRef": {"containerName": "app", "resource": "limits.memory", "divisor": "1Mi"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "none", "resource": "limits.cpu"}},
    ]
    found = files({"name": "v", "downwardAPI": {"items": items}})
    assert {path: file.content for path, file in found.items()} == {"ip": b"127.0.0.9", "memory": b"64", "cpu": b"0"}


def test_an_unknown_source_is_named() -> None:
    """A projected source of another type is refused by name."""
    with pytest.raises(VolumeUnsupported, match="clusterTrustBundle"):
        files({"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}})


def test_which_volumes_are_needed() -> None:
    """Only volumes that some container mounts, init containers included."""
    mounts = [{"name": "b", "mountPath": "/b"}]
    spec = {
        "volumes": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "x"}],
        "initContainers": [{"name": "i", "volumeMounts": mounts}],
    }
    assert mounted_volumes({"spec": spec}) == [{"name": "b"}]
    assert references({"name": "v", "secret": {"secretName": "s"}}) == {("Secret", "s")}
    assert references({"name": "v", "emptyDir": {}}) == set()


@pytest.mark.parametrize(
    ("pod", "account", "wanted"),
    [(None, None, True), (False, {}, False), (None, False, False), (True, False, True), (None, True, True)],
)
def test_who_gets_a_token(pod: bool | None, account: Any, wanted: bool) -> None:
    """The Pod's own word comes before its account's; without either there is a token."""
    spec = {} if pod is None else {"automountServiceAccountToken": pod}
    owner = {"automountServiceAccountToken": account} if isinstance(account, bool) else account
    assert needs_account({"spec": spec}, owner) is wanted


def test_files_are_swapped_at_once(tmp_path: Path) -> None:
    """New files come by one rename of `..data`; what has not changed is not written; what is gone goes."""
    folder = tmp_path / "v"
    first = {"a": File(b"1", 0o644), "sub/b": File(b"2", 0o400)}
    assert write_volume(folder, first)
    before = os.readlink(folder / "..data")
    assert not write_volume(folder, first)
    assert os.readlink(folder / "..data") == before
    assert write_volume(folder, {"a": File(b"1", 0o644), "c": File(b"", 0o600)})
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("..")) == ["a", "c"]
    assert (folder / "a").read_bytes() == b"1"
    assert len([path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]) == 1
    assert write_volume(folder, {})
    assert [path for path in folder.iterdir() if not path.name.startswith("..")] == []


def test_hosts_of_headless_services() -> None:
    """A headless Service's names lead to its ready Pods, each Pod with a host name has its own; others have one line."""
    services = [
        {"metadata": {"name": "db", "namespace": "rides"}, "spec": {"clusterIP": "None"}},
        {"metadata": {"name": "route", "namespace": "rides"}, "spec": {"clusterIP": "127.1.2.3"}},
        {"metadata": {"name": "out", "namespace": "rides"}, "spec": {"externalName": "example.com"}},
    ]
    endpoints = [
        {"addresses": ["127.9.0.1"], "hostname": "db-0", "conditions": {"ready": True}},
        {"addresses": ["127.9.0.2"], "hostname": "db-1", "conditions": {"ready": False}},
    ]
    labels = {"kubernetes.io/service-name": "db"}
    slices = [
        {"metadata": {"namespace": "rides", "labels": labels}, "endpoints": endpoints},
        {"metadata": {"namespace": "rides", "labels": {"kubernetes.io/service-name": "route"}}, "endpoints": endpoints},
    ]
    lines = service_lines(services, slices)
    assert lines == {"rides": [("127.9.0.1", "db"), ("127.9.0.1", "db-0.db"), ("127.1.2.3", "route")]}


def test_hosts_file() -> None:
    """The Pod itself by its host name and subdomain, its aliases, then Services."""
    spec = {"hostname": "me", "subdomain": "db", "hostAliases": [{"ip": "127.3.3.3", "hostnames": ["x", "y"]}]}
    text = hosts_file({**POD, "spec": spec}, "127.0.0.9", {"other": [("127.1.1.1", "far")]})
    assert text.splitlines()[-3:] == [
        "127.0.0.9\tme.db.rides.svc.cluster.local\tme",
        "127.3.3.3\tx y",
        "127.1.1.1\tfar.other far.other.svc far.other.svc.cluster.local",
    ]
    assert hostname({"metadata": {"name": "a" * 62 + "-b"}, "spec": {}}) == "a" * 62
