"""A manager's own servers against an API server: it is asked who may read metrics, and it asks our webhooks."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import msgspec
import pytest

from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import ApiError, Invalid
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    MUTATING_WEBHOOK_CONFIGURATIONS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    SUBJECT_ACCESS_REVIEWS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
    Object,
    Resource,
)
from sandlane.kube.transport import Request
from sandlane.runtime.admission_review import AdmissionRequest, Cause, Denied
from sandlane.runtime.certificates import SecretCertificates
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.runtime.webhook import WebhookServer

SECONDS = 60
RBAC = "rbac.authorization.k8s.io"
CLUSTER_ROLES = Resource(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
BINDINGS = Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[Client]:
    client = Client(HttpTransport(load_config(kubeconfig)), clock=SystemClock(), rng=random.Random())
    async with asyncio.timeout(SECONDS):
        yield client
        await client.close()


@pytest.fixture
async def namespace(client: Client) -> AsyncIterator[str]:
    """A namespace for one test."""
    name = (await client.create(NAMESPACES, {"metadata": {"generateName": "servers-"}}))["metadata"]["name"]
    yield name
    await client.delete(NAMESPACES, name)


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[None]:
    """The manager runs meanwhile."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(manager.run())
        await manager.ready.wait()
        yield
        manager.stop()


async def test_metrics_for_those_whom_the_api_server_lets_in(client: Client, namespace: str) -> None:
    """TokenReview tells who it is, SubjectAccessReview whether they may `get` /metrics."""
    name = f"metrics-{uuid4().hex[:8]}"
    tokens = {}
    for account in ("reader", "stranger"):
        body = {"metadata": {"name": account, "namespace": namespace}}
        await client.create(SERVICE_ACCOUNTS, body)
        spec = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = SERVICE_ACCOUNTS.path(namespace, account, "token")
        request = Request("POST", path, (), {"content-type": "application/json"}, msgspec.json.encode(spec))
        tokens[account] = msgspec.json.decode((await client.request(request)).body)["status"]["token"]
    rules = [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    await client.create(CLUSTER_ROLES, {"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
    await client.create(BINDINGS, {"metadata": {"name": name}, "subjects": [subject], "roleRef": role})
    attributes = {"path": "/metrics", "verb": "get"}
    review = {"spec": {"user": f"system:serviceaccount:{namespace}:reader", "nonResourceAttributes": attributes}}
    while not (await client.create(SUBJECT_ACCESS_REVIEWS, {"metadata": {}, **review}))["status"]["allowed"]:
        await asyncio.sleep(0.05)  # the right has to become known
    options = ManagerOptions(metrics_bind_address="127.0.0.1:0", metrics_auth=True)
    manager = Manager(client, clock=SystemClock(), rng=random.Random(), options=options)
    found = {}
    async with running(manager), aiohttp.ClientSession() as session:
        host, port = manager.addresses["metrics"]
        for who, token in {**tokens, "nobody": "", "forger": "a.b.c"}.items():
            headers = {"authorization": f"Bearer {token}"} if token else {}
            async with session.get(f"http://{host}:{port}/metrics", headers=headers) as answer:
                found[who] = answer.status
    assert found == {"reader": 200, "stranger": 403, "nobody": 401, "forger": 401}
    for resource in (BINDINGS, CLUSTER_ROLES):
        await client.delete(resource, name)


def defaults(obj: Object, request: AdmissionRequest) -> None:
    """Every ConfigMap gets a label."""
    obj["metadata"].setdefault("labels", {})["defaulted"] = "yes"


def check(request: AdmissionRequest) -> None:
    """No ConfigMap may be called bad."""
    if request.key.name == "bad":
        raise Denied("bad is no name", reason="Invalid", code=422, causes=[Cause("metadata.name", "must not be bad")])


def move(obj: Object, version: str) -> Object:
    """One field has another name in version 2."""
    names = ("one", "two") if version.endswith("v2") else ("two", "one")
    return obj | {"spec": {names[1]: obj["spec"][names[0]]}}


async def test_webhooks_that_the_api_server_calls(kubeconfig: Path, client: Client, namespace: str) -> None:
    """Defaulting, validating and conversion with a certificate of our own: the `caBundle` is put into both
    configurations and into the CRD.
    """
    if urlsplit(load_config(kubeconfig).server).hostname not in ("127.0.0.1", "localhost", "::1"):
        pytest.skip("the API server is on another machine: it cannot reach a webhook here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    group = f"g{uuid4().hex[:8]}.example.com"
    things = {version: Resource(group, version, "things", "Thing") for version in ("v1", "v2")}
    clock = SystemClock()
    options = ManagerOptions(leader_elect=True, leader_election_id="servers")
    own = client.unguarded()
    manager = Manager(own, clock=clock, rng=random.Random(), options=options, namespace=namespace)
    certificates = SecretCertificates(own, clock, namespace=namespace, name="webhook", names=["127.0.0.1"])
    webhooks = WebhookServer(manager, certificates, address=address)
    webhooks.default(CONFIG_MAPS, defaults).validate(CONFIG_MAPS, check).convert(group, "Thing", move)
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    configurations = (MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS)
    for resource, body in zip(
        configurations, webhooks.configurations(namespace, url=f"https://{address}"), strict=True
    ):
        webhook = body["webhooks"][0] | {"namespaceSelector": here}
        await client.create(resource, body | {"webhooks": [webhook]})
        webhooks.inject_into(resource, namespace)
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(group, f"https://{address}/convert"))
    webhooks.inject_into(CUSTOM_RESOURCE_DEFINITIONS, f"things.{group}")
    async with running(manager):
        while manager.not_ready() or not manager.leading.is_set():
            await asyncio.sleep(0.02)
        made = await eventually(
            lambda: client.create(CONFIG_MAPS, {"metadata": {"name": "good", "namespace": namespace}})
        )
        assert made["metadata"]["labels"] == {"defaulted": "yes"}
        with pytest.raises(Invalid, match="bad is no name") as caught:
            await client.create(CONFIG_MAPS, {"metadata": {"name": "bad", "namespace": namespace}})
        assert caught.value.details["causes"][0]["field"] == "metadata.name"
        thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "t", "namespace": namespace}}
        await eventually(lambda: client.create(things["v1"], thing | {"spec": {"one": 7}}))
        assert (await eventually(lambda: client.get(things["v2"], "t", namespace)))["spec"] == {"two": 7}
    for resource in configurations:
        await client.delete(resource, namespace)
    await client.patch(
        CUSTOM_RESOURCE_DEFINITIONS, f"things.{group}", {"spec": {"conversion": {"strategy": "None", "webhook": None}}}
    )
    await client.delete(CUSTOM_RESOURCE_DEFINITIONS, f"things.{group}")


async def eventually(act: Any) -> Any:
    """What something gives once the server has taken notice of definitions and configurations."""
    while True:
        try:
            return await act()
        except ApiError:
            await asyncio.sleep(0.05)


def definition(group: str, url: str) -> Object:
    """Things in two versions, converted by a webhook."""

    def version(name: str, field: str) -> Object:
        spec = {"type": "object", "properties": {field: {"type": "integer"}}}
        schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
        return {"name": name, "served": True, "storage": name == "v1", "schema": schema}

    webhook = {"clientConfig": {"url": url}, "conversionReviewVersions": ["v1"]}
    return {
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [version("v1", "one"), version("v2", "two")],
            "conversion": {"strategy": "Webhook", "webhook": webhook},
        },
    }
