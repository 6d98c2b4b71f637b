"""Claims get volumes: which one, what becomes of it, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandlane.kube.errors import NotFound
from sandlane.kube.resource import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from sandlane.local.controllers.volume.plan import choose, may_be_made, new_volume
from support.workloads import workloads

Object = dict[str, Any]


def claim(name: str = "data", storage: str = "1Gi", uid: str = "u", **spec: Any) -> Object:
    """A claim in namespace `rides`."""
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}, **spec}
    head = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    return head | {"metadata": {"name": name, "namespace": "rides", "uid": uid}, "spec": wanted}


def volume(name: str, storage: str = "1Gi", phase: str = "Available", **spec: Any) -> Object:
    """A volume on this machine."""
    given = {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": storage}, **spec}
    given.setdefault("hostPath", {"path": f"/{name}"})
    head = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
    return head | {"spec": given, "status": {"phase": phase}}


MINE = {"namespace": "rides", "name": "data"}
OTHER = {"namespace": "rides", "name": "other", "uid": "o"}


@pytest.mark.parametrize(
    ("wanted", "volumes", "name"),
    [
        (claim(), [], None),
        (claim(), [volume("big", "9Gi"), volume("b"), volume("a")], "a"),
        (claim(), [volume("small", "500Mi")], None),
        (claim(), [volume("fast", storageClassName="fast")], None),
        (claim(storageClassName="fast"), [volume("fast", storageClassName="fast"), volume("plain")], "fast"),
        (claim(accessModes=["ReadWriteMany"]), [volume("a")], None),
        (claim(), [volume("taken", claimRef=OTHER), volume("left", phase="Released")], None),
        (claim(), [volume("a"), volume("reserved", "2Gi", claimRef=MINE)], "a"),
        (claim(), [volume("a"), volume("mine", claimRef={**MINE, "uid": "u"})], "mine"),
        (claim(), [volume("former", claimRef={**MINE, "uid": "former"})], None),
        (claim(volumeName="b"), [volume("a"), volume("b", "1Mi")], "b"),
        (claim(volumeName="b"), [volume("a"), volume("b", claimRef=OTHER)], None),
    ],
)
def test_which_volume_a_claim_gets(wanted: Object, volumes: list[Object], name: str | None) -> None:
    """Its own, the one that it names, else the smallest free one that suits it."""
    found = choose(wanted, volumes)
    assert (found and found["metadata"]["name"]) == name


def test_which_claims_get_a_new_one() -> None:
    """Not those that name a volume, nor those that by an empty class want a given one."""
    assert may_be_made(claim())
    assert may_be_made(claim(storageClassName="any"))
    assert not may_be_made(claim(volumeName="b"))
    assert not may_be_made(claim(storageClassName=""))
    made = new_volume(claim(storageClassName="any"), "/volumes")
    assert (made["spec"]["hostPath"]["path"], made["spec"]["storageClassName"]) == ("/volumes/pvc-u", "any")


async def test_a_claim_from_its_first_to_its_last_day(tmp_path: Path) -> None:
    """It is bound to a folder, which stays while a Pod has the claim and goes after both."""
    async with workloads(claim(), volumes=tmp_path) as on:

        async def bound() -> Object | None:
            found = await on.client.get(PERSISTENT_VOLUME_CLAIMS, "data", "rides")
            return found if (found.get("status") or {}).get("phase") == "Bound" else None

        name = (await on.until(bound, "the claim is bound"))["spec"]["volumeName"]
        folder = tmp_path / name
        folder.mkdir()
        source = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
        spec = {"volumes": [source], "containers": [{"name": "a", "image": "i"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user", "namespace": "rides"}, "spec": spec}
        await on.cluster.add(pod)
        await on.quiet()
        await on.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "rides")
        await on.quiet()
        assert folder.exists()
        await on.client.delete(PODS, "user", "rides", grace_seconds=0)
        await on.gone(PERSISTENT_VOLUMES, name)
        assert not folder.exists()


async def test_what_somebody_else_made_is_kept(tmp_path: Path) -> None:
    """A given volume takes its claim, and is released with its data when the claim goes."""
    async with workloads(volume("disk"), claim(storageClassName=""), volumes=tmp_path) as on:

        async def phase(wanted: str) -> bool:
            found = await on.client.get(PERSISTENT_VOLUMES, "disk")
            return bool(found["status"]["phase"] == wanted)

        await on.until(lambda: phase("Bound"), "the volume is bound")
        assert [v["metadata"]["name"] for v in (await on.client.list(PERSISTENT_VOLUMES)).items] == ["disk"]
        await on.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "rides")
        await on.until(lambda: phase("Released"), "the volume is released")
        with pytest.raises(NotFound):
            await on.client.get(PERSISTENT_VOLUME_CLAIMS, "data", "rides")
