"""What can be said before connecting: local ports that nobody listens at, ports that the baseline does not have, rights, clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import msgspec

from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import Forbidden, KubeError, NotFound
from sandlane.kube.resource import DEPLOYMENTS, Object, Resource
from sandlane.kube.transport import Request
from sandlane.laptop.inbound import LocalTarget
from sandlane.laptop.listening import listens
from sandlane.laptop.plan import Joined

REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
CLOCK_NOTE = timedelta(seconds=60)
CLOCK_MOST = timedelta(minutes=50)
"""A clock that is behind by more refuses the servers' certificates, which are an hour older than they are."""


class Right(msgspec.Struct, frozen=True):
    """Something that a user may have to be allowed."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        what = self.resource + (f"/{self.subresource}" if self.subresource else "")
        what += f".{self.group}" if self.group else ""
        what += f" {self.name}" if self.name else ""
        return f"{self.verb} {what}" + (f" in namespace {self.namespace}" if self.namespace else "")


def rights(namespace: str, names: Iterable[str], *, make: bool) -> list[Right]:
    """What connecting needs; with `make`, LocalWorkloads are made and removed, too."""
    ours = "sandlane.dev"
    found = [Right("connect", "localworkloads", ours, namespace, name) for name in names]
    found += [
        Right("create", "certificatesigningrequests", "certificates.k8s.io"),
        Right("get", "certificatesigningrequests", "certificates.k8s.io"),
    ]
    if make:
        found += [Right(verb, "localworkloads", ours, namespace) for verb in ("create", "delete")]
    return found


async def forbidden(client: Client, wanted: Iterable[Right]) -> list[str]:
    """Which of these the user may not, in words. Nothing when the cluster does not say."""
    asked = list(wanted)
    try:
        answers = await asyncio.gather(*(_may(client, right) for right in asked))
    except KubeError:
        return []
    return [
        f"you may not {right}{f' ({why})' if why else ''}: ask for a role that allows it"
        for right, (allowed, why) in zip(asked, answers, strict=True)
        if not allowed
    ]


async def _may(client: Client, right: Right) -> tuple[bool, str]:
    fields = {"group", "resource", "verb", "namespace", "name", "subresource"}
    attributes = {field: getattr(right, field) for field in fields if getattr(right, field)}
    review = {
        "apiVersion": REVIEWS.api_version,
        "kind": REVIEWS.kind,
        "metadata": {},
        "spec": {"resourceAttributes": attributes},
    }
    status = (await client.create(REVIEWS, review)).get("status") or {}
    return bool(status.get("allowed")), status.get("reason", "")


async def clock_offset(client: Client, clock: Clock) -> timedelta:
    """How far this machine's clock is ahead of the API server's (to a second; negative: behind)."""
    response = await client.request(Request("GET", "/version", (), {"accept": "application/json"}))
    return offset(response.header("date"), clock.now())


def offset(date: str | None, now: datetime) -> timedelta:
    """The same, from a Date header. Nothing when there is none that can be read."""
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return timedelta(0)
    return now - theirs


def about_clock(ahead: timedelta) -> tuple[str, bool]:
    """What to say about a clock, and whether connecting is hopeless."""
    if abs(ahead) < CLOCK_NOTE:
        return "", False
    seconds = round(abs(ahead).total_seconds())
    which = "ahead of" if ahead > timedelta(0) else "behind"
    text = f"this machine's clock is {seconds} s {which} the API server's: certificates may be refused; set it right"
    return text, -ahead > CLOCK_MOST


async def baseline_problems(client: Client, namespace: str, workload: str, targets: Iterable[LocalTarget]) -> list[str]:
    """What is wrong with mappings to a baseline: it is not there, or has no such container port."""
    try:
        deployment = await client.get(DEPLOYMENTS, workload, namespace)
    except NotFound:
        return [f"there is no Deployment {workload} in namespace {namespace}"]
    except Forbidden:
        return []  # the controller says it in the LocalWorkload's conditions
    return wrong_ports(deployment, targets)


def wrong_ports(deployment: Object, targets: Iterable[LocalTarget]) -> list[str]:
    """Ports that a Deployment's containers do not name, if they name any."""
    known = {port["containerPort"]: port.get("name", "") for port in _ports(deployment)}
    has = ", ".join(f"{port} ({name})" if name else str(port) for port, name in sorted(known.items()))
    name = deployment["metadata"]["name"]
    return [
        f"{name} has no container port {target.port}; it has {has} (a mapping names the container's port, not the Service's)"
        for target in targets
        if known and target.port not in known
    ]


HTTP2 = ("h2c", "http2", "grpc")
"""Names of container ports (or their beginnings, before a dash) at which nothing but HTTP/2 is spoken."""


async def with_protocols(client: Client, joined: Joined) -> Joined:
    """The same, with what the baseline's container ports are called: an application of HTTP/2 gets HTTP/2."""
    try:
        deployment = await client.get(DEPLOYMENTS, joined.workload, joined.namespace)
    except (NotFound, Forbidden):
        return joined
    ports = http2_ports(deployment)
    targets = tuple(msgspec.structs.replace(each, http2=each.http2 or each.port in ports) for each in joined.targets)
    return msgspec.structs.replace(joined, targets=targets)


def http2_ports(deployment: Object) -> set[int]:
    """The container ports whose names say HTTP/2."""
    return {port["containerPort"] for port in _ports(deployment) if (port.get("name") or "").partition("-")[0] in HTTP2}


def _ports(deployment: Object) -> list[Object]:
    """What the containers that run declare, sidecars among the init containers included."""
    spec = deployment["spec"]["template"]["spec"]
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    return [port for container in (*spec["containers"], *sidecars) for port in container.get("ports") or ()]


async def silent(targets: Iterable[LocalTarget]) -> list[str]:
    """The targets that nobody listens at."""
    return [
        f"nothing listens at {target.to} yet (for port {target.port}): callers get a 503 until something does"
        for target in targets
        if not await listens(target.host, target.to_port)
    ]
