"""Calling webhooks: where one is, its TLS, bodies there and back."""

from __future__ import annotations

import asyncio
import base64
import ssl
from functools import lru_cache
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec

from sandlane.kube.resource import Object
from sandlane.local.apiserver.store.objects import ObjectStore

MAX_ANSWER = 3 * 1024 * 1024
SLICES = ("discovery.k8s.io", "endpointslices")


class CallFailed(Exception):
    """There was no proper answer; the message says why."""


class Caller:
    """Makes the calls of one server. Close it at the end."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, client: Object, body: bytes, seconds: float, query: dict[str, str] | None = None) -> bytes:
        """Send a body to the webhook of a `clientConfig`; its answer. Raises `CallFailed`."""
        try:
            url, name = self._address(client)
            if self._session is None:
                self._session = aiohttp.ClientSession()
            async with (
                asyncio.timeout(seconds),
                self._session.post(
                    url,
                    params=query,
                    data=body,
                    headers={"content-type": "application/json", "accept": "application/json"},
                    allow_redirects=False,
                    ssl=_trust(client.get("caBundle") or ""),
                    server_hostname=name,
                ) as answer,
            ):
                answered = await _body(answer)
                if not 200 <= answer.status < 300:
                    raise CallFailed(f"failed to call webhook: {_why(answer.status, answered)}")
                return answered
        except TimeoutError:
            why = "context deadline exceeded"
            raise CallFailed(f'failed to call webhook: Post "{_shown(client, query)}": {why}') from None
        except aiohttp.ServerDisconnectedError as error:
            raise CallFailed(f'failed to call webhook: Post "{_shown(client, query)}": EOF') from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise CallFailed(f'failed to call webhook: Post "{_shown(client, query)}": {error}') from error

    def _address(self, client: Object) -> tuple[str, str | None]:
        """The URL, and the name that its certificate must have where that is not the URL's host."""
        service = client.get("service")
        if service is None:
            return client["url"], None
        namespace, name, port = service["namespace"], service["name"], service.get("port") or 443
        host = self._endpoint(namespace, name, port)
        path = (service.get("path") or "").lstrip("/")
        return f"https://{host}/{path}", f"{name}.{namespace}.svc"

    def _endpoint(self, namespace: str, name: str, port: int) -> str:
        """A ready endpoint of a Service. Raises `CallFailed`."""
        services = dict(self._store.list(("", "services"), namespace))
        stored = next((at for key, at in services.items() if key.name == name), None)
        if stored is None:
            raise CallFailed(f'failed to call webhook: service "{name}" not found')
        ports = msgspec.json.decode(stored.data)["spec"].get("ports") or ()
        known = next((each for each in ports if each["port"] == port), None)
        if known is None:
            raise CallFailed(f'failed to call webhook: no service port {port} found for service "{name}"')
        for _, at in self._store.list(SLICES, namespace):
            found: Object = msgspec.json.decode(at.data)
            if (found["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != name:
                continue
            numbers = [p["port"] for p in found.get("ports") or () if (p.get("name") or "") == known.get("name", "")]
            for endpoint in found.get("endpoints") or ():
                if numbers and (endpoint.get("conditions") or {}).get("ready") is not False:
                    return f"{endpoint['addresses'][0]}:{numbers[0]}"
        raise CallFailed(f'failed to call webhook: no endpoints available for service "{name}"')


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise CallFailed(f"the answer is larger than {MAX_ANSWER} bytes")
    return body


def _why(code: int, body: bytes) -> str:
    """What an answer that is no success says, as clients of Kubernetes tell it."""
    try:
        return str(msgspec.json.decode(body, type=_Status).message)
    except msgspec.MsgspecError:
        text = body[:300].decode(errors="replace").strip()
    if code >= 500:
        return f'an error on the server ("{text or "unknown"}") has prevented the request from succeeding'
    if code == 404:
        return "the server could not find the requested resource"
    return f"the server responded with the status code {code} but did not return more information"


class _Status(msgspec.Struct):
    message: str


def _shown(client: Object, query: dict[str, str] | None = None) -> str:
    asked = f"?{urlencode(query)}" if query else ""
    if "url" in client:
        parts = urlsplit(client["url"])
        return f"{parts.scheme}://{parts.netloc}{parts.path}{asked}"
    service = client["service"]
    port, path = service.get("port") or 443, (service.get("path") or "").lstrip("/")
    return f"https://{service['name']}.{service['namespace']}.svc:{port}/{path}{asked}"


@lru_cache(maxsize=64)
def _trust(bundle: str) -> ssl.SSLContext:
    """TLS that trusts a base64 PEM bundle, or the system's authorities where it is empty. Raises `ssl.SSLError`."""
    if not bundle:
        return ssl.create_default_context()
    return ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
