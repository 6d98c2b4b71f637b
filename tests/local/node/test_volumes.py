"""Volumes in running containers: every type, updates, and what a Pod says while it waits for one."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from sandlane.kube.resource import CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, PODS, SECRETS
from sandlane.testing.events import captured_events

from .conftest import RunningNode, config_map, running_node

Object = dict[str, Any]


def secret(name: str, **data: str) -> Object:
    """A Secret of the Pods' namespace."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "rides"}, "data": encoded}


def volumes(**by_name: Object) -> Object:
    """A Pod's `volumes`."""
    return {"volumes": [{"name": name, **source} for name, source in by_name.items()]}


def mount(name: str, at: str, **more: Any) -> Object:
    """One of a container's `volumeMounts`."""
    return {"name": name, "mountPath": at, **more}


async def test_every_type_at_its_path(viewing: RunningNode, tmp_path: Path) -> None:
    """configMap, secret, downwardAPI, projected, emptyDir and hostPath hold what they should, where they should."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "file").write_text("of the host")
    await viewing.cluster.add(config_map("settings", plain="1", other="2"))
    await viewing.cluster.add(secret("keys", key="s3cret"))
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    cpu = {"path": "cpu", "resourceFieldRef": {"containerName": "app", "resource": "limits.cpu", "divisor": "1m"}}
    sources = [
        {"secret": {"name": "keys", "items": [{"key": "key", "path": "deep/key"}]}},
        {"configMap": {"name": "settings", "items": [{"key": "plain", "path": "plain"}]}},
        {"serviceAccountToken": {"path": "token", "audience": "vault"}},
        {"downwardAPI": {"items": [cpu]}},
        {"configMap": {"name": "none", "optional": True}},
    ]
    spec = volumes(
        cm={"configMap": {"name": "settings", "items": [{"key": "other", "path": "sub/two", "mode": 0o400}]}},
        sec={"secret": {"secretName": "keys", "defaultMode": 0o440}},
        api={"downwardAPI": {"items": items}},
        all={"projected": {"sources": sources}},
        scratch={"emptyDir": {}},
        host={"hostPath": {"path": str(tmp_path / "host"), "type": "Directory"}},
    )
    script = """
        set -e; cd /vol
        echo cm=$(ls cm) $(cat cm/sub/two) $(stat -L -c %a cm/sub/two)
        echo sec=$(cat sec/key) $(stat -L -c %a sec/key)
        echo api=$(cat api/labels)
        echo all=$(ls all | xargs) $(cat all/deep/key all/plain all/cpu) $(tr -dc . <all/token)
        echo hi >scratch/x; echo scratch=$(cat scratch/x)
        echo host=$(cat host/file)
        for d in cm sec api all host; do touch $d/new 2>/dev/null && echo $d is writable; done
        echo end
    """
    mounts = [
        mount(name, f"/vol/{name}", readOnly=name == "host") for name in ("cm", "sec", "api", "all", "scratch", "host")
    ]
    await viewing.run(script, spec=spec, volumeMounts=mounts, resources={"limits": {"cpu": "1500m"}})
    assert (await viewing.logged("end")).splitlines() == [
        "cm=sub 2 400",
        "sec=s3cret 440",
        'api=app="web"',
        "all=cpu deep plain token s3cret11500 ..",
        "scratch=hi",
        "host=of the host",
        "end",
    ]


async def test_sub_paths(viewing: RunningNode) -> None:
    """`subPath` mounts one file or folder of a volume, over an existing file too; `subPathExpr` knows the environment."""
    await viewing.cluster.add(config_map("settings", conf="mine"))
    spec = volumes(cm={"configMap": {"name": "settings"}}, scratch={"emptyDir": {}})
    mounts = [
        mount("cm", "/etc/hostname", subPath="conf"),
        mount("scratch", "/srv/mine", subPathExpr="of-$(WHO)"),
        mount("scratch", "/srv/all"),
    ]
    script = "cat /etc/hostname; echo; touch /srv/mine/x; ls /srv/all/of-me; echo end"
    await viewing.run(script, spec=spec, volumeMounts=mounts, env=[{"name": "WHO", "value": "me"}])
    assert (await viewing.logged("end")).splitlines() == ["mine", "x", "end"]


async def test_containers_share_an_empty_dir(viewing: RunningNode) -> None:
    """What an init container writes, the main one reads; it may hide a folder of the host, /tmp for one."""
    both = {"image": "i", "volumeMounts": [mount("scratch", "/tmp")]}
    init = {"name": "init", "command": ["/bin/sh", "-c", "echo from init >/tmp/x"], **both}
    spec = volumes(scratch={"emptyDir": {"medium": "Memory"}}) | {"initContainers": [init]}
    await viewing.run("ls /tmp; cat /tmp/x", spec=spec, volumeMounts=both["volumeMounts"])
    await viewing.phase("Succeeded")
    assert viewing.log().split() == ["x", "from", "init"]


async def test_updates_reach_running_containers(viewing: RunningNode) -> None:
    """A changed ConfigMap or Secret changes the files at once, all of them together; keys that are gone take theirs along."""
    await viewing.cluster.add(config_map("settings", a="1", gone="x"))
    await viewing.cluster.add(secret("keys", b="1"))
    spec = volumes(cm={"configMap": {"name": "settings"}}, sec={"secret": {"secretName": "keys"}})
    script = """
        echo $(ls /vol/cm) $(cat /vol/cm/a /vol/sec/b)
        while [ "$(cat /vol/cm/a)$(cat /vol/sec/b)" != 22 ]; do sleep 0.02; done
        echo $(ls /vol/cm) $(cat /vol/cm/a /vol/sec/b) end
    """
    await viewing.run(script, spec=spec, volumeMounts=[mount("cm", "/vol/cm"), mount("sec", "/vol/sec")])
    await viewing.logged("11")
    await viewing.client.patch(
        CONFIG_MAPS, "settings", {"data": {"a": "2", "gone": None, "new": ""}}, namespace="rides"
    )
    data = {"b": base64.b64encode(b"2").decode()}
    await viewing.client.patch(SECRETS, "keys", {"data": data}, namespace="rides")
    assert (await viewing.logged("end")).splitlines() == ["a gone 11", "a new 22 end"]


async def test_labels_in_a_volume_follow_the_pod(viewing: RunningNode) -> None:
    """A downwardAPI volume shows changed labels."""
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    script = "while ! grep -q colour /v/labels; do sleep 0.02; done; cat /v/labels"
    await viewing.run(script, spec=volumes(v={"downwardAPI": {"items": items}}), volumeMounts=[mount("v", "/v")])
    await viewing.phase("Running")
    await viewing.client.patch(PODS, "web", {"metadata": {"labels": {"colour": "red"}}}, namespace="rides")
    assert 'colour="red"' in await viewing.logged("colour")


async def test_a_missing_part_is_waited_for(viewing: RunningNode) -> None:
    """Without its ConfigMap a Pod waits as in every cluster (ContainerCreating, FailedMount), and starts when it comes."""
    await viewing.run(
        "cat /v/a; exec sleep 100", spec=volumes(v={"configMap": {"name": "late"}}), volumeMounts=[mount("v", "/v")]
    )
    said = await viewing.waiting("ContainerCreating", text="late")
    assert said["message"] == 'MountVolume.SetUp failed for volume "v" : configmap "late" not found'

    async def told() -> bool:
        return "Pod/web: FailedMount" in await captured_events(viewing.client)

    await viewing.until(told, "a FailedMount Event")
    await viewing.cluster.add(config_map("late", a="here"))
    await viewing.logged("here")
    await viewing.phase("Running")


async def test_a_missing_key_is_waited_for(viewing: RunningNode) -> None:
    """A key that an item names and that is not there keeps a Pod waiting."""
    await viewing.cluster.add(config_map("settings", a="1"))
    source = {"configMap": {"name": "settings", "items": [{"key": "b", "path": "b"}]}}
    await viewing.run("cat /v/b", spec=volumes(v=source), volumeMounts=[mount("v", "/v")])
    await viewing.waiting("ContainerCreating", text="references non-existent configmap key: b")
    await viewing.client.patch(CONFIG_MAPS, "settings", {"data": {"b": "now"}}, namespace="rides")
    await viewing.logged("now")


async def test_a_host_path_of_another_type_is_waited_for(viewing: RunningNode, tmp_path: Path) -> None:
    """A hostPath that does not exist, or is not what its type says, is named."""
    source = {"hostPath": {"path": str(tmp_path / "none"), "type": "Directory"}}
    await viewing.run("true", spec=volumes(v=source), volumeMounts=[mount("v", "/v")])
    await viewing.waiting("ContainerCreating", text="none does not exist")


async def test_a_sub_path_that_leads_out_is_refused(viewing: RunningNode) -> None:
    """A link in a volume cannot take a `subPath` out of it."""
    init = {
        "name": "init",
        "image": "i",
        "command": ["ln", "-s", "/etc", "/v/link"],
        "volumeMounts": [mount("v", "/v")],
    }
    spec = volumes(v={"emptyDir": {}}) | {"initContainers": [init]}
    await viewing.run("true", spec=spec, volumeMounts=[mount("v", "/v", subPath="link")])
    await viewing.waiting("CreateContainerConfigError", text="it leads out of the volume")


async def test_a_claim_is_mounted_when_it_is_bound(viewing: RunningNode, tmp_path: Path) -> None:
    """A Pod waits for its claim and for the claim's volume; what it writes there stays."""
    source = {"persistentVolumeClaim": {"claimName": "data"}}
    await viewing.run("echo kept >/v/file", spec=volumes(v=source), volumeMounts=[mount("v", "/v")])
    await viewing.waiting("ContainerCreating", text='persistentvolumeclaim "data" not found')
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "disk"}
    claims = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "rides"}}
    await viewing.cluster.add({**claims, "spec": claim})
    await viewing.waiting("ContainerCreating", text="is not bound to a volume yet")
    folder = {"path": str(tmp_path / "disk"), "type": "DirectoryOrCreate"}
    disk = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": folder}
    head = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"}}
    await viewing.cluster.add({**head, "spec": disk})
    bound = {"status": {"phase": "Bound"}}
    await viewing.client.patch(PERSISTENT_VOLUME_CLAIMS, "data", bound, namespace="rides", subresource="status")
    await viewing.phase("Succeeded")
    assert (tmp_path / "disk" / "file").read_text() == "kept\n"


async def test_a_type_that_is_not_there_is_named(node: RunningNode) -> None:
    """A Pod with a volume of a type that this node does not have waits, and says which."""
    await node.run("true", spec=volumes(v={"nfs": {"server": "s", "path": "/"}}), volumeMounts=[mount("v", "/v")])
    await node.waiting("VolumeNotSupported", text='volume "v" is of type nfs')


async def test_a_volume_that_nobody_mounts_is_no_obstacle(node: RunningNode) -> None:
    """Only mounted volumes are needed."""
    await node.run("echo runs", spec=volumes(v={"persistentVolumeClaim": {"claimName": "c"}}))
    await node.phase("Succeeded")


async def test_without_mount_views(tmp_path: Path) -> None:
    """Where the machine allows no mount views, a Pod with a volume waits with that reason, and others run."""
    async with running_node(tmp_path, views="unshare: Operation not permitted") as node:
        await node.run("true", spec=volumes(v={"emptyDir": {}}), volumeMounts=[mount("v", "/v")])
        await node.run("echo runs", name="plain")
        await node.waiting("VolumeNotSupported", text="(v) cannot be mounted on this machine: unshare: Operation not")
        await node.phase("Succeeded", "plain")


async def test_no_token_unless_wanted(viewing: RunningNode) -> None:
    """`automountServiceAccountToken: false` leaves the token out; a missing account is waited for."""
    at = "/var/run/secrets/kubernetes.io/serviceaccount"
    await viewing.run(f"ls {at} 2>&1 || echo none", spec={"automountServiceAccountToken": False})
    await viewing.logged("none")
    await viewing.run("true", name="stranger", spec={"serviceAccountName": "robot"})
    await viewing.waiting("ContainerCreating", "stranger", 'serviceaccounts "robot" not found')
    await viewing.cluster.add(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "rides"}}
    )
    await viewing.phase("Succeeded", "stranger")
