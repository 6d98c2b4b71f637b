"""Which LocalWorkloads a `sandlane connect` means, and what it has to make for that. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import yaml

from sandlane.api.types import API_VERSION
from sandlane.kube.resource import LOCAL_WORKLOADS, SANDBOXES, Object
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.inbound import LocalTarget

KINDS = {"LocalWorkload": LOCAL_WORKLOADS, "Sandbox": SANDBOXES}
MOST_NAME = 63


class BadMapping(ConnectError):
    """A port mapping that is not PORT, PORT=LOCAL_PORT or PORT=HOST:LOCAL_PORT."""


class BadFile(ConnectError):
    """A file that does not hold LocalWorkloads and Sandboxes; the message says which document and why."""


class Joined(msgspec.Struct, frozen=True):
    """One LocalWorkload to be held from here."""

    namespace: str
    name: str
    uid: str
    sandbox: str
    workload: str
    targets: tuple[LocalTarget, ...]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_mapping(text: str, *, all_connections: bool = False) -> LocalTarget:
    """`8083`, `8083=9000` or `8083=localhost:9000`. Raises `BadMapping`."""
    port, equals, to = text.partition("=")
    host, _, number = (to if equals else port).rpartition(":")
    if not _is_port(port) or not _is_port(number):
        raise BadMapping(
            f"--{'tcp' if all_connections else 'port'} {text}: it must be PORT, PORT=LOCAL_PORT or PORT=HOST:LOCAL_PORT, with ports from 1 to 65535"
        )
    return LocalTarget(int(port), local_host(host), int(number), all_connections)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def local_host(host: str) -> str:
    """A host as this laptop's Envoy takes it."""
    host = host.strip("[]")
    return "127.0.0.1" if host in ("", "localhost") else host


def targets_of(obj: Object) -> tuple[LocalTarget, ...]:
    """The mappings in a LocalWorkload's spec, by port."""
    found = []
    for mapping in obj["spec"].get("mappings") or ():
        host, _, port = mapping["to"].rpartition(":")
        everybody = bool(mapping.get("allConnections"))
        found.append(LocalTarget(mapping["port"], local_host(host), int(port), everybody))
    return tuple(sorted(found, key=lambda target: target.port))


def joined(obj: Object, override: Sequence[LocalTarget] = ()) -> Joined:
    """A LocalWorkload as it is held. `override` says where else its ports go on this laptop. Raises `ConnectError`."""
    metadata, spec = obj["metadata"], obj["spec"]
    own = {target.port: target for target in targets_of(obj)}
    for target in override:
        if target.port not in own:
            ports = ", ".join(map(str, sorted(own))) or "none"
            raise ConnectError(
                f"--port {target.port}: LocalWorkload {metadata['namespace']}/{metadata['name']} is there already and maps "
                f"the ports {ports}: add the port to its spec.mappings, or delete it and connect again"
            )
        own[target.port] = target
    return Joined(
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        spec["sandbox"],
        spec["from"]["name"],
        tuple(own[port] for port in sorted(own)),
    )


def followed(
    now: Sequence[LocalTarget], before: Sequence[LocalTarget], after: Sequence[LocalTarget]
) -> tuple[LocalTarget, ...]:
    """Where requests go once the mappings in a spec have changed: a port whose mapping has not changed goes where it went, also
    if the command line had sent it elsewhere."""
    mine = {target.port: target for target in now}
    unchanged = {old.port for old in before for new in after if (old.port, old.to) == (new.port, new.to)}
    return tuple(mine[each.port] if each.port in unchanged and each.port in mine else each for each in after)


def chosen(known: Iterable[Object], sandbox: str, workload: str) -> list[Object]:
    """The LocalWorkloads of a sandbox (those for `workload`, if given) that are not being deleted, by name."""
    found = [
        obj
        for obj in known
        if obj["spec"]["sandbox"] == sandbox
        and (not workload or obj["spec"]["from"]["name"] == workload)
        and not obj["metadata"].get("deletionTimestamp")
    ]
    return sorted(found, key=lambda obj: str(obj["metadata"]["name"]))


def new_local_workload(
    namespace: str, sandbox: str, workload: str, targets: Sequence[LocalTarget], on_disconnect: str
) -> Object:
    """A LocalWorkload to be made. Raises `ConnectError` when workload or ports are not given."""
    if not workload or not targets:
        raise ConnectError(
            f"sandbox {sandbox} has no local workload{f' for {workload}' if workload else ''} in namespace {namespace}: "
            "name the workload and its ports, for example "
            f"`sandlane connect {sandbox} --workload {workload or 'routes'} --port 8083=localhost:8083`"
        )
    mappings = [
        {"port": target.port, "to": target.to} | ({"allConnections": True} if target.all_connections else {})
        for target in targets
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalWorkload",
        "metadata": {"name": f"{sandbox}-{workload}"[:MOST_NAME].rstrip("-."), "namespace": namespace},
        "spec": {
            "sandbox": sandbox,
            "from": {"kind": "Deployment", "name": workload},
            "mappings": mappings,
            "onDisconnect": on_disconnect,
        },
    }


def read_documents(text: str, source: str, namespace: str) -> list[Object]:
    """The LocalWorkloads and Sandboxes of a YAML (or JSON) file, Sandboxes first. Raises `BadFile`."""
    try:
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
    except yaml.YAMLError as error:
        raise BadFile(f"{source}: not YAML: {error}") from error
    flat: list[Any] = []
    for document in documents:
        flat += (document.get("items") or []) if _is_list(document) else [document]
    found = [_checked(each, f"{source}, document {number}", namespace) for number, each in enumerate(flat, 1)]
    if not found:
        raise BadFile(f"{source}: it holds no LocalWorkload and no Sandbox")
    return sorted(found, key=lambda obj: obj["kind"] != "Sandbox")


def _is_list(document: Any) -> bool:
    return isinstance(document, dict) and document.get("kind") == "List"


def _checked(document: Any, where: str, namespace: str) -> Object:
    if not isinstance(document, dict):
        raise BadFile(f"{where}: it must be an object with apiVersion, kind, metadata and spec")
    kind = document.get("kind")
    if document.get("apiVersion") != API_VERSION or kind not in KINDS:
        raise BadFile(
            f"{where}: it is a {kind or 'thing without kind'} of {document.get('apiVersion') or 'no apiVersion'}; only "
            f"{' and '.join(KINDS)} of {API_VERSION} go"
        )
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise BadFile(f"{where}: metadata.name is missing")
    spec = document.get("spec")
    if not isinstance(spec, dict):
        raise BadFile(f"{where}: spec is missing")
    if kind == "Sandbox" and not spec.get("local"):
        raise BadFile(f"{where}: Sandbox {metadata['name']} has no spec.local: there is nothing to connect")
    return {**document, "metadata": {"namespace": namespace, **metadata}}
