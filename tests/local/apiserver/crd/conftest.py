"""Definitions for tests, and a webhook that converts between their versions."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sandlane.local.apiserver.pki import ClusterPki
from sandlane.runtime.signing import key_pem

Object = dict[str, Any]
GROUP = "shapes.example.test"


class Converter:
    """An https webhook: v1 has `spec.size` "WxH", v2 has `spec.width` and `spec.height`. `spoil` changes its answers."""

    def __init__(self) -> None:
        self.reviews: list[Object] = []
        self.spoil: Callable[[Object], Any] = lambda response: response
        self.client: Object = {}

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.reviews.append(review)
        asked = review["request"]
        made = [self._convert(obj, asked["desiredAPIVersion"]) for obj in asked["objects"]]
        response = {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": made}
        return web.json_response({**review, "request": None, "response": self.spoil(response)})

    @staticmethod
    def _convert(obj: Object, wanted: str) -> Object:
        spec = dict(obj["spec"])
        if wanted.endswith("/v2"):
            width, height = spec.pop("size").split("x")
            spec |= {"width": int(width), "height": int(height)}
        else:
            spec["size"] = f"{spec.pop('width')}x{spec.pop('height')}"
        return {**obj, "apiVersion": wanted, "spec": spec}


@pytest.fixture
async def converter(tmp_path: Path) -> AsyncIterator[Converter]:
    """A running webhook; `client` is the `clientConfig` that reaches it."""
    pki = ClusterPki(tmp_path, datetime.datetime.now(datetime.UTC))
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("conv.hooks.svc"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    (tmp_path / "hook.pem").write_bytes(
        key_pem(key) + pki.sign(key.public_key(), "conv", (), names, server=True, days=1)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "hook.pem")
    made = Converter()
    app = web.Application()
    app.router.add_post("/convert", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    bundle = base64.b64encode(pki.ca_pem).decode()
    made.client = {"url": f"https://127.0.0.1:{port}/convert", "caBundle": bundle}
    yield made
    await runner.cleanup()


@pytest.fixture
def boxes(converter: Converter) -> Callable[..., Object]:
    """Makes definitions of boxes; they are converted by the webhook unless told otherwise."""
    return lambda client=converter.client, **more: definition(client, **more)


def properties(**fields: str) -> Object:
    """A schema with a spec of these fields."""
    spec = {"type": "object", "properties": {name: {"type": type_} for name, type_ in fields.items()}}
    return {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}


def definition(client: Object | None, *, storage: str = "v1") -> Object:
    """Boxes in two versions."""
    sizes = {"v1": properties(size="string"), "v2": properties(width="integer", height="integer", depth="integer")}
    depth = sizes["v2"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["depth"]
    depth["default"] = 1
    versions = [
        {"name": name, "served": True, "storage": name == storage, "schema": schema, "subresources": {"status": {}}}
        for name, schema in sizes.items()
    ]
    versions[1]["selectableFields"] = [{"jsonPath": ".spec.width"}]
    conversion: Object = {"strategy": "None"}
    if client is not None:
        webhook = {"clientConfig": client, "conversionReviewVersions": ["v1"]}
        conversion = {"strategy": "Webhook", "webhook": webhook}
    spec = {
        "group": GROUP,
        "names": {"plural": "boxes", "kind": "Box"},
        "scope": "Namespaced",
        "versions": versions,
        "conversion": conversion,
    }
    metadata = {"name": f"boxes.{GROUP}"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": spec,
    }
