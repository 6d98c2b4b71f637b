"""Webhooks: what the API server asks is answered in its form, over HTTPS that it can verify."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandlane.kube.clock import SystemClock
from sandlane.kube.patch.json_patch import json_patch
from sandlane.kube.resource import (
    CONFIG_MAPS,
    MUTATING_WEBHOOK_CONFIGURATIONS,
    SECRETS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
    Object,
)
from sandlane.runtime.admission_review import AdmissionRequest, Cause, Denied, difference
from sandlane.runtime.certificates import SecretCertificates
from sandlane.runtime.webhook import WebhookServer


def defaults(obj: Object, request: AdmissionRequest) -> None:
    """Every ConfigMap gets a label."""
    obj["metadata"].setdefault("labels", {})["by"] = request.user


async def check(request: AdmissionRequest) -> list[str]:
    """No ConfigMap may be called bad."""
    if request.key.name == "bad":
        raise Denied("bad is no name", reason="Invalid", code=422, causes=[Cause("metadata.name", "must not be bad")])
    if request.key.name == "crash":
        raise KeyError("a bug")
    return ["odd name"] if request.key.name == "odd" else []


def to_v2(obj: Object, version: str) -> Object:
    """One field moves."""
    return {**obj, "spec": {"two": obj["spec"]["one"]}}


class Served:
    """A running webhook server and a way to ask it."""

    def __init__(self, manager: Any, server: WebhookServer, certificates: SecretCertificates) -> None:
        self.manager, self.server, self.certificates = manager, server, certificates

    async def ask(self, path: str, body: Any) -> tuple[int, Any]:
        """POST as the API server does."""
        host, port = self.manager.addresses["webhook"]
        tls = ssl.create_default_context(cadata=self.certificates.bundle.decode())
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"https://{host}:{port}{path}", data=msgspec.json.encode(body), ssl=tls) as answer,
        ):
            text = await answer.read()
            return answer.status, msgspec.json.decode(text) if answer.status == 200 else text.decode()


@pytest.fixture
async def served(rig: Any) -> AsyncIterator[Served]:
    manager = rig.manager()
    certificates = SecretCertificates(
        manager.client, SystemClock(), namespace="d", name="webhook-cert", names=["127.0.0.1", "w.d.svc"]
    )
    server = WebhookServer(manager, certificates, address="127.0.0.1:0")
    server.default(CONFIG_MAPS, defaults).validate(CONFIG_MAPS, check).convert("example.com", "Thing", to_v2)
    server.inject_into(MUTATING_WEBHOOK_CONFIGURATIONS, "hooks").inject_into(VALIDATING_WEBHOOK_CONFIGURATIONS, "hooks")
    async with rig.running(manager):
        await rig.until(server.listening.is_set)
        yield Served(manager, server, certificates)


def review(name: str, **more: Any) -> Object:
    """An AdmissionReview of a new ConfigMap."""
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "d"}}
    request = {"uid": "u1", "operation": "CREATE", "namespace": "d", "object": obj, "userInfo": {"username": "ann"}}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request | more}


async def test_defaulting(served: Served) -> None:
    """The answer is a JSON Patch of what the handler changed."""
    status, answer = await served.ask("/mutate--v1-configmap", review("a"))
    assert status == 200
    assert answer["response"]["uid"] == "u1"
    assert answer["response"]["patchType"] == "JSONPatch"
    patch = msgspec.json.decode(base64.b64decode(answer["response"]["patch"]))
    assert patch == [{"op": "add", "path": "/metadata/labels", "value": {"by": "ann"}}]


async def test_validating(served: Served) -> None:
    """Allowed, allowed with a warning, refused with the field at fault, and a crash that harms nobody else."""
    path = "/validate--v1-configmap"
    assert (await served.ask(path, review("fine")))[1]["response"] == {"uid": "u1", "allowed": True}
    assert (await served.ask(path, review("odd")))[1]["response"]["warnings"] == ["odd name"]
    refused = (await served.ask(path, review("bad")))[1]["response"]
    assert refused["allowed"] is False
    assert refused["status"]["code"] == 422
    assert refused["status"]["details"]["causes"][0]["field"] == "metadata.name"
    crashed = (await served.ask(path, review("crash")))[1]["response"]
    assert (crashed["allowed"], crashed["status"]["code"]) == (False, 500)
    assert (await served.ask(path, {"kind": "Pod"}))[0] == 400
    assert (await served.ask("/validate-nothing", review("a")))[0] == 404
    counts = served.manager.metrics.webhook_requests.counts
    assert (counts[path, "200"], counts[path, "500"], counts[path, "400"]) == (3, 1, 1)


async def test_conversion(served: Served) -> None:
    """Objects come back in order, in the version that was asked for; a failure says why."""
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"one": 1}}
    request = {"uid": "c", "desiredAPIVersion": "example.com/v2", "objects": [thing, thing]}
    body = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
    response = (await served.ask("/convert", body))[1]["response"]
    assert response["result"] == {"status": "Success"}
    assert [obj["spec"] for obj in response["convertedObjects"]] == [{"two": 1}] * 2
    assert response["convertedObjects"][0]["apiVersion"] == "example.com/v2"
    request["objects"] = [thing | {"kind": "Other"}]
    failed = (await served.ask("/convert", body))[1]["response"]
    assert failed["result"]["status"] == "Failure"
    assert "Other" in failed["result"]["message"]
    told = served.manager.metrics.text().decode()
    for code in ("200", "500"):
        assert f'controller_runtime_webhook_requests_total{{code="{code}",webhook="/convert"}} 1.0' in told
    assert 'controller_runtime_webhook_requests_in_flight{webhook="/convert"} 0.0' in told


async def test_the_bundle_is_injected(served: Served, rig: Any) -> None:
    """Into configurations that are there, come later, or lost it; the leader is not ready while there are none."""
    made = served.server.configurations("hooks", service={"namespace": "d", "name": "w", "port": 443})
    assert [config["kind"] for config in made] == ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]
    bundle = base64.b64encode(served.certificates.bundle).decode()
    await rig.until(lambda: any("nobody asks" in text for text in served.manager.not_ready()))
    for config, resource in zip(
        made, (MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS), strict=True
    ):
        await served.manager.client.create(resource, config)
    served.server._changed.set()
    for resource in (MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS):
        await rig.clock.advance(31)
        live = await served.manager.client.get(resource, "hooks")
        assert live["webhooks"][0]["clientConfig"]["caBundle"] == bundle
    assert served.manager.not_ready() == []


async def test_only_the_leader_writes_certificates(rig: Any) -> None:
    """A standby serves what the leader has made."""
    standby = rig.manager(identity="standby", leader_elect=True)
    leader = rig.manager(identity="leader", leader_elect=True)
    servers = []
    for manager in (leader, standby):
        certificates = SecretCertificates(manager.client, rig.clock, namespace="d", name="cert", names=["127.0.0.1"])
        servers.append(WebhookServer(manager, certificates, address="127.0.0.1:0"))
    async with rig.running(leader):
        await rig.until(leader.leading.is_set)
        async with rig.running(standby):
            await rig.until(lambda: not standby.not_ready() and not leader.not_ready())
            secrets = (await rig.cluster.client.list(SECRETS, "d")).items
            assert [secret["metadata"]["name"] for secret in secrets] == ["cert"]
            assert not standby.leading.is_set()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4), st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_a_patch_of_the_difference_gives_the_new_object(old: Object, new: Object) -> None:
    """Whatever the two objects are."""
    assert json_patch(old, difference(old, new)) == new
