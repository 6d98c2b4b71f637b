"""What the baseline's container would see, on a laptop: its variables and its files, with the rights of the user.

What the user may not read, or what is not there, is left out and said.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

import msgspec

from sandlane.kube.client import Client
from sandlane.kube.errors import Forbidden, NotFound
from sandlane.kube.resource import CONFIG_MAPS, DEPLOYMENTS, SECRETS, Object
from sandlane.laptop.errors import ConnectError
from sandlane.local.node.environment import ConfigMissing, container_environment
from sandlane.local.node.payload import (
    WRITTEN,
    Payload,
    VolumeMissing,
    VolumeUnsupported,
    payload,
    references,
    token_sources,
    volume_type,
)

LOOPBACK = "127.0.0.1"
OURS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "PWD", "TMPDIR", "HOSTNAME", "VIRTUAL_ENV")
"""Variables of this machine that a container's do not replace: programs would not be found, or write elsewhere."""
_RESOURCES = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}


class Container(msgspec.Struct, frozen=True):
    """A container of a baseline, and what it refers to, as far as the user may read it. `refused`: what may not be read."""

    pod: Object
    container: Object
    found: Mapping[tuple[str, str], Object]
    refused: Mapping[tuple[str, str], str]


class Sight(msgspec.Struct):
    """What the container would see; `files` by their absolute path. `problems` say what is missing, and why."""

    env: dict[str, str] = {}
    files: Payload = {}
    problems: list[str] = []


async def read_container(client: Client, namespace: str, workload: str, name: str) -> Container:
    """The container (by name, or the only one). Raises `ConnectError` and `KubeError`."""
    try:
        deployment = await client.get(DEPLOYMENTS, workload, namespace)
    except NotFound:
        raise ConnectError(f"there is no Deployment {workload} in namespace {namespace}") from None
    template = deployment["spec"]["template"]
    container = choose(template["spec"]["containers"], workload, name)
    pod = pod_here(deployment)
    wanted = referred(pod, container)
    found, refused = {}, {}
    for kind, each in sorted(wanted):
        try:
            found[kind, each] = {"kind": kind} | await client.get(_RESOURCES[kind], each, namespace)
        except NotFound:
            pass
        except Forbidden:
            refused[kind, each] = f"you may not get {_RESOURCES[kind].plural} {each} in namespace {namespace}"
    return Container(pod, container, found, refused)


def choose(containers: list[Object], workload: str, name: str) -> Object:
    """The container that is meant. Raises `ConnectError`."""
    known = ", ".join(each["name"] for each in containers)
    chosen = [each for each in containers if each["name"] == name] if name else containers
    if not chosen:
        raise ConnectError(f"{workload} has no container {name}; it has {known}")
    if len(chosen) > 1:
        raise ConnectError(f"{workload} has several containers ({known}): say which with --container")
    return chosen[0]


def pod_here(deployment: Object) -> Object:
    """A Pod of a Deployment as if it ran on this machine: for `fieldRef`."""
    metadata, template = deployment["metadata"], deployment["spec"]["template"]
    head = template.get("metadata") or {}
    host = socket.gethostname()
    account = template["spec"].get("serviceAccountName") or "default"
    return {
        "metadata": {
            "name": f"{metadata['name']}-on-{host}",
            "namespace": metadata["namespace"],
            "uid": metadata.get("uid", ""),
            "labels": head.get("labels") or {},
            "annotations": head.get("annotations") or {},
        },
        "spec": {**template["spec"], "nodeName": host, "serviceAccountName": account},
        "status": {"podIP": LOOPBACK},
    }


def referred(pod: Object, container: Object) -> set[tuple[str, str]]:
    """The ConfigMaps and Secrets of a container: (kind, name)."""
    found = set()
    for source in container.get("envFrom") or ():
        found |= {
            (kind, source[field]["name"])
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret"))
            if source.get(field)
        }
    for entry in container.get("env") or ():
        source = entry.get("valueFrom") or {}
        found |= {
            (kind, source[field]["name"])
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret"))
            if source.get(field)
        }
    for volume, _ in _mounted(pod, container):
        found |= references(volume)
    return found


def see(container: Container, base: Mapping[str, str] | None = None) -> Sight:
    """Variables (after `base`, which `$(VAR)` may name) and files."""
    sight = Sight()
    _environment(container, dict(base or {}), sight)
    _files(container, sight)
    return sight


def for_this_machine(env: Mapping[str, str]) -> dict[str, str]:
    """Variables without those that this machine's own must keep."""
    return {name: value for name, value in env.items() if name not in OURS}


def _environment(container: Container, base: dict[str, str], sight: Sight) -> None:
    """One entry after the other, so that one that cannot be had does not take the others with it."""
    whole = container.container
    env = base
    for source in whole.get("envFrom") or ():
        env = _entry(container, {**whole, "envFrom": [source], "env": []}, env, "envFrom", sight)
    for entry in whole.get("env") or ():
        env = _entry(container, {**whole, "envFrom": [], "env": [entry]}, env, entry["name"], sight)
    sight.env = env


def _entry(container: Container, part: Object, env: dict[str, str], what: str, sight: Sight) -> dict[str, str]:
    def lookup(kind: str, name: str) -> Object | None:
        if (kind, name) in container.refused:
            raise ConfigMissing(container.refused[kind, name])
        return container.found.get((kind, name))

    try:
        return container_environment(container.pod, part, lookup, env, LOOPBACK)
    except ConfigMissing as error:
        sight.problems.append(f"{what}: {error}: left out")
        return env


def _files(container: Container, sight: Sight) -> None:
    for volume, mounts in _mounted(container.pod, container.container):
        kind = volume_type(volume)
        if kind not in WRITTEN:
            sight.problems.append(f"volume {volume['name']}: a volume of type {kind} has no files to copy: left out")
            continue
        without = _without_tokens(volume, sight)

        def lookup(kind: str, name: str) -> Object | None:
            if (kind, name) in container.refused:
                raise VolumeMissing(container.refused[kind, name])
            return container.found.get((kind, name))

        try:
            files = payload(without, container.pod, lookup, lambda audience, seconds: "", LOOPBACK)
        except (VolumeMissing, VolumeUnsupported) as error:
            sight.problems.append(f"volume {volume['name']}: {error}: left out")
            continue
        for mount in mounts:
            sight.files |= _placed(mount, files)


def _without_tokens(volume: Object, sight: Sight) -> Object:
    """A ServiceAccount's token is not for a laptop: the Pod's identity is not the user's."""
    if not token_sources(volume):
        return volume
    sight.problems.append(f"volume {volume['name']}: a ServiceAccount's token is not given to a laptop: left out")
    projected = volume["projected"]
    sources = [each for each in projected["sources"] if "serviceAccountToken" not in each]
    return {**volume, "projected": {**projected, "sources": sources}}


def _placed(mount: Object, files: Payload) -> Payload:
    """A volume's files where a container mounts them."""
    path, part = mount["mountPath"].rstrip("/"), (mount.get("subPath") or "").strip("/")
    if not part:
        return {f"{path}/{name}": file for name, file in files.items()}
    if part in files:
        return {path: files[part]}
    inside = {name: file for name, file in files.items() if name.startswith(f"{part}/")}
    return {f"{path}/{name[len(part) + 1 :]}": file for name, file in inside.items()}


def _mounted(pod: Object, container: Object) -> Iterable[tuple[Object, list[Object]]]:
    """The volumes of a container, each with where it is mounted."""
    for volume in pod["spec"].get("volumes") or ():
        mounts = [each for each in container.get("volumeMounts") or () if each["name"] == volume["name"]]
        if mounts:
            yield volume, mounts
