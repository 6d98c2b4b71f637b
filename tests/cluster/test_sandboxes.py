"""Sandboxes of manifests of every shape, on an API server over HTTPS: the embedded one, or SANDLANE_TEST_KUBECONFIG's.

No Pods run: Deployments become ready because the test says so, or their Pods do where controllers make some; routers only
pretend.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandlane.api.crd import definitions
from sandlane.api.labels import SANDBOX
from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import NotFound
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    RESOURCE_QUOTAS,
    SANDBOXES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Key,
    Object,
    Resource,
)
from sandlane.kube.transport import Request
from sandlane.kube.unstructured import Unstructured
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.runtime.result import Result
from support import waiting
from support.conformance.cluster import running
from support.sandboxes import PretendDeployments, PretendRoutes, build

SECONDS = 90
SHAPES = sorted((Path(__file__).parent / "manifests").glob("*.yaml"))
KUBECTL = str(Path(sys.executable).with_name("kubectl"))
PLURALS = {"PodDisruptionBudget": "poddisruptionbudgets", "NetworkPolicy": "networkpolicies"}


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """How to reach the API server under test."""
    if given := os.environ.get("SANDLANE_TEST_KUBECONFIG"):
        yield Path(given)
        return
    with running(tmp_path_factory.mktemp("sandboxes") / "data", controllers=False) as cluster:
        yield cluster.kubeconfig


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[Client]:
    """A client of its own."""
    client = Client(HttpTransport(load_config(kubeconfig)), clock=SystemClock(), rng=random.Random())
    try:
        yield client
    finally:
        await client.close()


class PretendPods:
    """Says of every Pod that it runs and is ready: a kubelet for clusters that have controllers and no nodes."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        Controller.managed_by(manager).for_(PODS, Unstructured).named("pods").complete(self)

    async def reconcile(self, request: Key) -> Result:
        """Write the status once."""
        try:
            pod = await self._client.get(PODS, request.name, request.namespace)
        except NotFound:
            return Result.done()
        if pod["status"].get("phase") != "Running" and "deletionTimestamp" not in pod["metadata"]:
            conditions = [{"type": name, "status": "True"} for name in ("Ready", "ContainersReady")]
            status = {"phase": "Running", "conditions": conditions}
            await self._client.patch(
                PODS, request.name, {"status": status}, namespace=request.namespace, subresource="status"
            )
        return Result.done()


async def has_controllers(client: Client) -> bool:
    """Whether the built-in controllers run beside the API server."""
    accounts = await client.list(SERVICE_ACCOUNTS, "default")
    return any(each["metadata"]["name"] == "default" for each in accounts.items)


@asynccontextmanager
async def managed(kubeconfig: Path, *namespaces: str) -> AsyncIterator[list[str]]:
    """The controllers at work in these namespaces; the writes of theirs so far."""
    options = ManagerOptions(watch_namespaces=namespaces)
    writes: list[str] = []
    async with connected(kubeconfig) as client, connected(kubeconfig) as other, asyncio.TaskGroup() as tasks:
        manager = Manager(client, clock=SystemClock(), rng=random.Random(), options=options)
        kubelet = Manager(other, clock=SystemClock(), rng=random.Random(), options=options)
        before = client.observe

        def observe(request: Request, status: int, seconds: float) -> None:
            before(request, status, seconds)
            if request.method not in ("GET", "HEAD"):
                writes.append(f"{request.method} {request.path}")

        client.observe = observe
        build(manager, PretendRoutes())
        (PretendPods if await has_controllers(other) else PretendDeployments)(kubelet)
        jobs = [tasks.create_task(each.run()) for each in (manager, kubelet)]
        await asyncio.wait_for(manager.ready.wait(), SECONDS)
        yield writes
        manager.stop()
        kubelet.stop()
        await asyncio.gather(*jobs)


async def until(check: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait until a check gives something true, and give that."""
    return await waiting.until(check, what, within=SECONDS, pause=0.05)


async def prepared(client: Client, names: list[str]) -> list[str]:
    """The kinds are served, and there is a namespace for each name."""
    for definition in definitions():
        await client.apply(CUSTOM_RESOURCE_DEFINITIONS, definition, field_manager="test")
    made = []
    for name in names:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": f"sbx-{name}-"}}
        made.append((await client.create(NAMESPACES, body))["metadata"]["name"])
    await until(lambda: _listed(client, SANDBOXES, made[0]), "sandboxes are served")
    return made


async def _listed(client: Client, resource: Resource, namespace: str) -> bool:
    await client.list(resource, namespace)
    return True


def resource_of(obj: Object) -> Resource:
    """Where an object is written to."""
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = obj["kind"]
    return Resource(group, version, PLURALS.get(kind, f"{kind.lower()}s"), kind)


def sandbox(name: str, namespace: str, workloads: list[str], **spec: Any) -> Object:
    """A sandbox that forks these Deployments."""
    forks = [{"forkOf": {"kind": "Deployment", "name": each}} for each in workloads]
    metadata = {"name": name, "namespace": namespace}
    head = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "Sandbox"}
    return head | {"metadata": metadata, "spec": {"forks": forks} | spec}


def condition(obj: Object, kind: str) -> Object:
    """A condition of a sandbox, empty while there is none of its generation."""
    status = obj.get("status") or {}
    if status.get("observedGeneration") != obj["metadata"]["generation"]:
        return {}
    return next((each for each in status["conditions"] if each["type"] == kind), {})


def wishes(objects: list[Object]) -> dict[str, Any]:
    """What the owners of objects have written, by name."""

    def annotations(obj: Object) -> Object:
        """Without what the server's own controllers write, if it runs them."""
        found = obj["metadata"].get("annotations") or {}
        return {name: value for name, value in found.items() if name != "deployment.kubernetes.io/revision"}

    return {
        each["metadata"]["name"]: (each["metadata"].get("labels"), annotations(each), each["spec"]) for each in objects
    }


class Shape:
    """One manifest in a namespace of its own."""

    def __init__(self, client: Client, name: str, namespace: str) -> None:
        self.client, self.name, self.namespace = client, name, namespace
        self.before: list[dict[str, Any]] = []

    async def apply(self) -> None:
        """Make the objects, then a sandbox that forks every Deployment among them."""
        text = (Path(__file__).parent / "manifests" / f"{self.name}.yaml").read_text()
        objects = [each for each in yaml.safe_load_all(text) if each]
        for obj in objects:
            obj["metadata"]["namespace"] = self.namespace
            await self.client.create(resource_of(obj), obj)
        self.workloads = [each["metadata"]["name"] for each in objects if each["kind"] == "Deployment"]
        self.before = [wishes(await self.theirs(resource)) for resource in (DEPLOYMENTS, SERVICES)]
        await self.client.create(SANDBOXES, sandbox("copy", self.namespace, self.workloads))

    async def theirs(self, resource: Resource) -> list[Object]:
        """What Sandlane did not make."""
        found = (await self.client.list(resource, self.namespace)).items
        return [each for each in found if SANDBOX not in (each["metadata"].get("labels") or {})]

    async def ours(self, resource: Resource) -> list[Object]:
        """What Sandlane made."""
        return (await self.client.list(resource, self.namespace, label_selector=SANDBOX)).items

    async def ready(self) -> Object:
        """Wait until the sandbox is ready."""

        async def check() -> Object | None:
            found = await self.client.get(SANDBOXES, "copy", self.namespace)
            return found if condition(found, "Ready").get("status") == "True" else None

        return await until(check, f"{self.name}: the sandbox is ready")

    async def check(self) -> None:
        """The forks are there, nothing selects them, and what others wrote is as it was."""
        forks = await self.ours(DEPLOYMENTS)
        assert len(forks) == len(self.workloads), self.name
        services = await self.theirs(SERVICES)
        for fork in forks:
            labels = fork["spec"]["template"]["metadata"]["labels"]
            for service in services:
                selector = service["spec"].get("selector")
                assert not selector or not selector.items() <= labels.items(), (
                    f"{self.name}: {service['metadata']['name']}"
                )
        selecting = [each["metadata"]["name"] for each in services if each["spec"].get("selector")]
        assert len(await self.ours(SERVICES)) == len(selecting), self.name
        after = [wishes(await self.theirs(resource)) for resource in (DEPLOYMENTS, SERVICES)]
        assert after == self.before, self.name

    async def gone(self) -> bool:
        """Whether nothing of ours is left."""
        rest = [await self.ours(DEPLOYMENTS), await self.ours(SERVICES)]
        return not any(rest) and not (await self.client.list(SANDBOXES, self.namespace)).items


async def test_every_shape_is_forked(kubeconfig: Path) -> None:
    """Each Deployment of each shape gets a fork that the server takes; a new manager writes nothing; nothing is left."""
    assert len(SHAPES) >= 12
    async with connected(kubeconfig) as client:
        names = [path.stem for path in SHAPES]
        namespaces = await prepared(client, names)
        shapes = [Shape(client, *pair) for pair in zip(names, namespaces, strict=True)]
        for shape in shapes:
            await shape.apply()
        async with managed(kubeconfig, *namespaces):
            for shape in shapes:
                await shape.ready()
                await shape.check()
        async with managed(kubeconfig, *namespaces) as writes:
            await asyncio.gather(*(shape.ready() for shape in shapes))
            await client.delete(SANDBOXES, "copy", namespaces[0])
            await until(shapes[0].gone, "the first sandbox is gone")
            assert not [each for each in writes if f"/{namespaces[0]}/" not in each]
            for shape in shapes[1:]:
                await client.delete(SANDBOXES, "copy", shape.namespace)
            for shape in shapes:
                await until(shape.gone, f"{shape.name}: nothing is left")
        for namespace in namespaces:
            await client.delete(NAMESPACES, namespace)


async def test_what_the_server_refuses_is_a_condition(kubeconfig: Path) -> None:
    """A quota of objects is WithinLimits=False; a Deployment that is not valid is Accepted=False; both in its words."""
    async with connected(kubeconfig) as client:
        (namespace,) = await prepared(client, ["refused"])
        shape = Shape(client, "plain", namespace)
        await shape.apply()
        hard = {"count/deployments.apps": "1"}
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": namespace}}
        await client.create(RESOURCE_QUOTAS, quota | {"spec": {"hard": hard}})
        counted = {"status": {"hard": hard, "used": hard}}  # as the quota controller would
        await client.patch(RESOURCE_QUOTAS, "q", counted, namespace=namespace, subresource="status")
        patch = {"type": "merge", "value": {"spec": {"template": {"spec": {"dnsPolicy": "Magic"}}}}}
        bad = sandbox("bad", namespace, ["web"])
        bad["spec"]["forks"][0]["customizations"] = {"patch": patch}
        await client.create(SANDBOXES, bad)

        async def told(name: str, kind: str, reason: str) -> Object | None:
            found = condition(await client.get(SANDBOXES, name, namespace), kind)
            return found if (found.get("status"), found.get("reason")) == ("False", reason) else None

        async with managed(kubeconfig, namespace):
            over = await until(lambda: told("copy", "WithinLimits", "QuotaExceeded"), "the quota is told")
            assert "exceeded quota: q" in over["message"]
            refused = await until(lambda: told("bad", "Accepted", "Refused"), "the refusal is told")
            assert "dnsPolicy" in refused["message"]
            for name in ("copy", "bad"):
                await client.delete(SANDBOXES, name, namespace)
            await until(shape.gone, "nothing is left")
        await client.delete(NAMESPACES, namespace)


async def test_kubectl_tells_the_story(kubeconfig: Path, tmp_path: Path) -> None:
    """`wait`, `get -o wide` and `describe` say how a sandbox is."""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "KUBECONFIG": str(kubeconfig)}

    def kubectl(*arguments: str) -> str:
        command = [KUBECTL, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)
        return done.stdout + done.stderr

    async with connected(kubeconfig) as client:
        (namespace,) = await prepared(client, ["kubectl"])
        shape = Shape(client, "plain", namespace)
        await shape.apply()
        patch = {"spec": {"description": "as people see it", "ttl": {"duration": "2d"}}}
        await client.patch(SANDBOXES, "copy", patch, namespace=namespace)
        async with managed(kubeconfig, namespace):
            wait = ("wait", "--for=condition=Ready", "sbx/copy", "-n", namespace, f"--timeout={SECONDS}s")
            assert await asyncio.to_thread(kubectl, *wait) == "sandbox.sandlane.dev/copy condition met\n"
            live = await shape.ready()
            wide = (await asyncio.to_thread(kubectl, "get", "sbx", "-n", namespace, "-o", "wide")).splitlines()
            for column in ("READY", "PHASE", "ROUTING KEY", "EXPIRES", "REASON", "MESSAGE", "DESCRIPTION"):
                assert column in wide[0]
            for value in ("True", "AllReady", "1 fork ready", live["status"]["routingKey"], "as people see it"):
                assert value in wide[1]
            described = await asyncio.to_thread(kubectl, "describe", "sbx", "copy", "-n", namespace)
            for word in ("SandboxReady", "Created", "Routing Key", "AllReady"):
                assert word in described
            await client.delete(SANDBOXES, "copy", namespace)
            await until(shape.gone, "nothing is left")
        await client.delete(NAMESPACES, namespace)
