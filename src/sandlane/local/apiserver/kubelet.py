"""What the API server asks of a Pod's node: logs, exec, attach, port-forward.

The node says where it listens in `status.addresses` and `status.daemonEndpoints`; it gets the cluster's own token, over plain HTTP,
and so only on the loopback interface. Streams are passed on as they are: log bytes, and WebSocket messages of any subprotocol.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from aiohttp import web

from sandlane.kube.resource import Key, Object
from sandlane.kube.transport import Request
from sandlane.local.apiserver.kinds.field_errors import MIN_ZERO, Faults
from sandlane.local.apiserver.request_info import RequestInfo, is_true
from sandlane.local.apiserver.status import StatusError, bad_request, internal, invalid, not_found
from sandlane.local.apiserver.store.objects import ObjectStore

ANSWER_SECONDS = 30.0
CLOSE_SECONDS = 2.0
CHUNK = 64 * 1024
MAX_MESSAGE = 32 * 1024 * 1024
_STREAMS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
_FLAGS = ("follow", "previous", "timestamps")
Query = list[tuple[str, str]]


def choose_container(pod: Object, wanted: str) -> str:
    """The container that is meant. Raises `StatusError` 400 when that is not clear."""
    spec, metadata = pod["spec"], pod["metadata"]
    groups = [spec.get(group) or () for group in ("initContainers", "containers", "ephemeralContainers")]
    names = [container["name"] for group in groups for container in group]
    if wanted:
        if wanted not in names:
            raise bad_request(f"container {wanted} is not valid for pod {metadata['name']}")
        return wanted
    default = (metadata.get("annotations") or {}).get("kubectl.kubernetes.io/default-container", "")
    if default in names:
        return str(default)
    main = [container["name"] for container in groups[1]]
    if len(main) != 1:
        choices = " ".join(main)
        text = f"a container name must be specified for pod {metadata['name']}, choose one of: [{choices}]"
        raise bad_request(text)
    return str(main[0])


def _check_log_options(pod: str, query: dict[str, str]) -> None:
    """Numbers that cannot be. Raises `StatusError` 400 and 422."""
    faults = Faults()
    for field, least in (("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)):
        text = query.get(field)
        if not text:
            continue
        try:
            number = int(text)
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
        if number < least:
            faults.invalid(field, number, "must be greater than 0" if least else MIN_ZERO)
    if query.get("sinceTime"):
        try:
            datetime.fromisoformat(query["sinceTime"])
        except ValueError as error:
            raise bad_request(f"parsing time {query['sinceTime']!r}: {error}") from None
        if query.get("sinceSeconds"):
            faults.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified")
    if faults.errors:
        raise invalid("", "PodLogOptions", pod, faults.errors)


class KubeletProxy:
    """Reaches the nodes of one cluster. Use it as a context manager's resource: `stack` closes its connections."""

    def __init__(self, store: ObjectStore, token: str, stack: AsyncExitStack) -> None:
        self._store = store
        self._headers = {"Authorization": f"Bearer {token}"}
        self._stack = stack
        self._session: aiohttp.ClientSession | None = None

    async def logs(self, namespace: str, name: str, query: dict[str, str]) -> AsyncIterator[bytes]:
        """A container's log as it comes. Raises `StatusError`."""
        pod = self._pod(namespace, name)
        container = choose_container(pod, query.get("container", ""))
        _check_log_options(name, query)
        passed = [(key, value) for key, value in query.items() if key not in ("container", *_FLAGS)]
        passed += [(key, "true") for key in _FLAGS if is_true(query.get(key))]
        url = f"{self._node(pod)}/containerLogs/{namespace}/{name}/{container}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS)
        session = await self._connections()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await session.get(url, params=passed, headers=self._headers, timeout=timeout)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise internal(f"Get {url!r}: {error!r}") from error
        if answer.status != 200:
            try:
                text = (await answer.text()).strip()
            finally:
                answer.release()
            raise _refusal(answer.status, text, name)
        return _chunks(answer)

    async def upgrade(self, http: web.BaseRequest, request: Request, info: RequestInfo) -> web.StreamResponse:
        """Join the client's WebSocket with one of the node's. Raises `StatusError`."""
        pod = self._pod(info.namespace, info.name)
        protocols = [each.strip() for each in request.headers.get("sec-websocket-protocol", "").split(",") if each]
        if request.headers.get("upgrade", "").lower() != "websocket":
            raise bad_request("Upgrade request required: this server speaks WebSocket only")
        url = f"{self._node(pod)}/{_path(pod, info, list(request.query))}"
        session = await self._connections()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                node = await session.ws_connect(
                    url,
                    protocols=protocols,
                    headers=self._headers,
                    max_msg_size=MAX_MESSAGE,
                    autoping=False,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(error.status, f"the node refuses {info.subresource}: {error.message}", info.name) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise internal(f"{info.subresource} on {url!r}: {error!r}") from error
        chosen = (node.protocol,) if node.protocol else ()
        client = web.WebSocketResponse(
            protocols=chosen, autoping=False, max_msg_size=MAX_MESSAGE, timeout=CLOSE_SECONDS
        )
        try:
            await client.prepare(http)
            await _join(client, node)
        finally:
            code = client.close_code or node.close_code or 1000
            try:
                await node.close(code=code)
            finally:  # the client may go away meanwhile
                await client.close(code=code)
        return client

    async def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            self._session = await self._stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        return self._session

    def _pod(self, namespace: str, name: str) -> Object:
        stored = self._store.get(("", "pods"), Key(namespace, name))
        if stored is None:
            raise not_found("", "pods", name)
        pod: Object = msgspec.json.decode(stored.data)
        if not pod["spec"].get("nodeName"):
            raise bad_request(f"pod {name} does not have a host assigned")
        return pod

    def _node(self, pod: Object) -> str:
        """The base URL of the Pod's node. Raises `StatusError` 404 and 500."""
        name = pod["spec"]["nodeName"]
        stored = self._store.get(("", "nodes"), Key("", name))
        if stored is None:
            raise not_found("", "nodes", name)
        status = msgspec.json.decode(stored.data).get("status") or {}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        address = next((a["address"] for a in status.get("addresses") or () if a["type"] == "InternalIP"), None)
        if not address or not port:
            raise internal(f"node {name} does not say where its kubelet listens")
        if not ipaddress.ip_address(address).is_loopback:
            raise internal(f"node {name} is at {address}: only nodes on the loopback interface are asked")
        return f"http://{address}:{port}"


def _path(pod: Object, info: RequestInfo, query: Query) -> str:
    at = f"{info.namespace}/{info.name}"
    if info.subresource == "portforward":
        ports = [(key, value) for key, value in query if key in ("port", "ports")]
        return f"portForward/{at}?{urlencode([('port', value) for _, value in ports])}"
    wanted = next((value for key, value in query if key == "container"), "")
    passed = [(_STREAMS.get(key, key), value) for key, value in query if key != "container"]
    passed = [(key, "1" if value in ("true", "True") else value) for key, value in passed]
    return f"{info.subresource}/{at}/{choose_container(pod, wanted)}?{urlencode(passed)}"


def _refusal(status: int, text: str, pod: str) -> StatusError:
    """What the node says, as an answer of ours."""
    if status == 400:
        return bad_request(text)
    if status == 404:
        message = f"the server could not find the requested resource ( pods {pod})"
        causes = [{"reason": "UnexpectedServerResponse", "message": text}]
        return StatusError(404, "NotFound", message, {"name": pod, "kind": "pods", "causes": causes})
    return internal(text or f"the node answers HTTP {status}")


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    finally:
        answer.close()


Peer = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _join(client: web.WebSocketResponse, node: aiohttp.ClientWebSocketResponse) -> None:
    """Pass messages both ways until one side ends."""
    async with asyncio.TaskGroup() as tasks:
        ways = [tasks.create_task(_pass(client, node)), tasks.create_task(_pass(node, client))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()


async def _pass(source: Peer, sink: Peer) -> None:
    while True:
        message: Any = await source.receive()
        try:
            match message.type:
                case aiohttp.WSMsgType.BINARY:
                    await sink.send_bytes(message.data)
                case aiohttp.WSMsgType.TEXT:
                    await sink.send_str(message.data)
                case aiohttp.WSMsgType.PING:
                    await sink.ping(message.data)
                case aiohttp.WSMsgType.PONG:
                    await sink.pong(message.data)
                case _:
                    return
        except ConnectionError:
            return
