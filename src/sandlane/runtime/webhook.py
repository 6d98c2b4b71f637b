"""The webhook server: defaulting, mutating, validating and converting handlers per kind, over HTTPS.

    webhooks = WebhookServer(manager, certificates)
    webhooks.default(SANDBOXES, set_defaults).validate(SANDBOXES, check)

Every replica serves; only the leader writes the callers' `caBundle`. `run` and `inject` belong to the manager, which
cancels them. A handler has a deadline below the API server's, and what it raises harms no other request.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
from aiohttp import web

from sandlane.kube.client import PatchType
from sandlane.kube.errors import Conflict, KubeError, NotFound
from sandlane.kube.resource import (
    CUSTOM_RESOURCE_DEFINITIONS,
    MUTATING_WEBHOOK_CONFIGURATIONS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
    Object,
    Resource,
)
from sandlane.runtime.admission_review import (
    AdmissionRequest,
    Denied,
    ReviewError,
    allow,
    converted,
    deny,
    not_converted,
    read_admission,
    read_conversion,
)
from sandlane.runtime.certificates import FileCertificates, SecretCertificates
from sandlane.runtime.health import serve
from sandlane.runtime.manager import Manager
from sandlane.runtime.webhook_rules import DEFAULT_OPERATIONS, Hook, configurations

log = structlog.get_logger(__name__)

DEADLINE = 9.0
"""Seconds for a handler: the API server waits for ten."""
BODY = 16 * 1024 * 1024
RETRY = 30.0

Mutate = Callable[[Object, AdmissionRequest], Object | Awaitable[Object | None] | None]
"""Given a copy of the object, changes it (or gives another). Raises `Denied`."""
Validate = Callable[[AdmissionRequest], Iterable[str] | Awaitable[Iterable[str] | None] | None]
"""Gives warnings for the user. Raises `Denied`."""
Convert = Callable[[Object, str], Object]
"""Given an object and an apiVersion, the object in that version. Raises `ValueError`."""


class CertificateSource(Protocol):
    """Where the server's certificate comes from: `SecretCertificates` or `FileCertificates`."""

    context: Any
    bundle: bytes

    @property
    def ready(self) -> bool:
        """Whether there is one."""

    def on_bundle(self, listener: Callable[[bytes], None]) -> None:
        """Tell of new bundles."""

    async def run(self) -> None:
        """Keep it good until cancelled."""


def certificates_for(manager: Manager, *, secret: str, names: Iterable[str]) -> CertificateSource:
    """What the options ask for: the files of `--webhook-cert-dir`, or our own certificate in a Secret."""
    if folder := manager.options.webhook_cert_dir:
        return FileCertificates(Path(folder), manager.clock)
    return SecretCertificates(manager.client, manager.clock, namespace=manager.namespace, name=secret, names=names)


class _Outcome(msgspec.Struct):
    code: int = 200


class WebhookServer:
    """Serves webhooks of one manager. Register handlers before the manager runs."""

    def __init__(self, manager: Manager, certificates: CertificateSource, *, address: str = "") -> None:
        self._manager = manager
        self._certificates = certificates
        options = manager.options
        self._address = address or f"{options.webhook_host}:{options.webhook_port}"
        self._app = web.Application(client_max_size=BODY)
        self.hooks: list[Hook] = []
        self._converters: dict[tuple[str, str], Convert] = {}
        self._targets: list[tuple[Resource, str]] = []
        self._not_asked: list[str] = []
        self._changed = asyncio.Event()
        self.listening = asyncio.Event()
        certificates.on_bundle(lambda bundle: self._changed.set())
        manager.add_runnable(certificates.run)
        manager.add_runnable(self.run)
        manager.add_runnable(self.inject, needs_leader=True)
        manager.add_ready_check(self._late)

    # -- registering ------------------------------------------------------------------------------------

    def default(
        self, resource: Resource, handler: Mutate, *, operations: Iterable[str] = DEFAULT_OPERATIONS, name: str = ""
    ) -> WebhookServer:
        """Set defaults of a kind; served at `/mutate-group-version-kind`, or at `/name` for another one of a kind."""
        return self.add(Hook("mutate", resource, tuple(operations), name), mutate=handler)

    mutate = default

    def validate(
        self, resource: Resource, handler: Validate, *, operations: Iterable[str] = DEFAULT_OPERATIONS, name: str = ""
    ) -> WebhookServer:
        """Check a kind; served at `/validate-group-version-kind`, or at `/name`."""
        return self.add(Hook("validate", resource, tuple(operations), name), validate=handler)

    def add(self, hook: Hook, *, mutate: Mutate | None = None, validate: Validate | None = None) -> WebhookServer:
        """Serve a hook, with the handler of its verb. Raises `ValueError` without it."""
        if hook.verb == "mutate" and mutate is not None:
            answer = partial(_mutate, mutate)
        elif hook.verb == "validate" and validate is not None:
            answer = partial(_validate, validate)
        else:
            raise ValueError(f"{hook.path} needs a handler to {hook.verb}")
        self.hooks.append(hook)
        self._app.router.add_post(hook.path, self._answering(hook.path, answer))
        return self

    def convert(self, group: str, kind: str, converter: Convert) -> WebhookServer:
        """Convert a custom kind between its versions; all are served at `/convert`."""
        if not self._converters:
            self._app.router.add_post("/convert", self._convert)
        self._converters[group, kind] = converter
        return self

    def inject_into(self, resource: Resource, name: str) -> WebhookServer:
        """Keep the `caBundle` of a webhook configuration or of a CRD's conversion webhook right."""
        if resource not in (
            MUTATING_WEBHOOK_CONFIGURATIONS,
            VALIDATING_WEBHOOK_CONFIGURATIONS,
            CUSTOM_RESOURCE_DEFINITIONS,
        ):
            raise ValueError(f"{resource.plural} have no caBundle")
        self._targets.append((resource, name))
        self._not_asked.append(f"{resource.kind} {name} has no caBundle yet")
        return self

    def configurations(self, name: str, *, service: Object | None = None, url: str = "") -> list[Object]:
        """Webhook configurations for all that is registered, for callers that reach us by a Service or by a URL."""
        return configurations(self.hooks, name, service=service, url=url)

    # -- running ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled, from when there is a certificate."""
        while not self._certificates.ready:
            await self._manager.clock.sleep(0.1)
        async with AsyncExitStack() as stack:
            bound = await serve(stack, self._app, self._address, tls=self._certificates.context)
            self._manager.addresses["webhook"] = bound
            self.listening.set()
            log.info("webhooks_served", host=bound[0], port=bound[1])
            await asyncio.get_running_loop().create_future()

    async def inject(self) -> None:
        """Write the bundle wherever it is not, whenever it changes and from time to time, until cancelled."""
        while True:
            self._changed.clear()
            if self._certificates.bundle:
                await self.listening.wait()  # nobody is sent to where nobody answers
                self._not_asked = [
                    text for resource, name in self._targets if (text := await self._told(resource, name))
                ]
            async with asyncio.TaskGroup() as tasks:
                timer = tasks.create_task(self._manager.clock.sleep(RETRY))
                changed = tasks.create_task(self._changed.wait())
                await asyncio.wait({timer, changed}, return_when=asyncio.FIRST_COMPLETED)
                timer.cancel()
                changed.cancel()

    def _late(self) -> Iterable[str]:
        if not self.listening.is_set():
            yield "the webhook server has no certificate yet"
        if self._manager.leading.is_set() or not self._manager.options.leader_elect:
            yield from self._not_asked

    async def _told(self, resource: Resource, name: str) -> str:
        """Write the bundle where it is not; why that cannot be done."""
        try:
            await self._inject(resource, name)
        except NotFound:
            log.error("webhooks_not_configured", kind=resource.kind, name=name)
            return f"there is no {resource.kind} {name}: nobody asks this manager's webhooks"
        except Conflict as error:
            log.info("ca_bundle_not_written_yet", name=name, error=str(error))
            self._changed.set()
        except KubeError as error:
            log.warning("ca_bundle_not_written", name=name, error=str(error))
            return f"{resource.kind} {name}: {error}"
        return ""

    async def _inject(self, resource: Resource, name: str) -> None:
        live = await self._manager.client.get(resource, name)
        bundle = base64.b64encode(self._certificates.bundle).decode()
        patch: list[Object] = []
        if resource == CUSTOM_RESOURCE_DEFINITIONS:
            conversion = live["spec"].get("conversion") or {}
            if conversion.get("strategy") == "Webhook":
                config = conversion["webhook"].get("clientConfig") or {}
                if config.get("caBundle") != bundle:
                    patch = [{"op": "add", "path": "/spec/conversion/webhook/clientConfig/caBundle", "value": bundle}]
        else:
            patch = [
                {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": bundle}
                for index, webhook in enumerate(live.get("webhooks") or ())
                if webhook["clientConfig"].get("caBundle") != bundle
            ]
        if patch:
            version = live["metadata"]["resourceVersion"]
            patch.insert(0, {"op": "replace", "path": "/metadata/resourceVersion", "value": version})
            await self._manager.client.patch(resource, name, patch, patch_type=PatchType.JSON)

    def _answering(
        self, path: str, answer: Callable[[AdmissionRequest], Awaitable[Object]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(http: web.Request) -> web.StreamResponse:
            with self._counted(path) as outcome:
                try:
                    request = read_admission(await http.read())
                except ReviewError as error:
                    outcome.code = 400
                    return web.Response(status=400, text=str(error))
                with structlog.contextvars.bound_contextvars(webhook=path, request=request.uid):
                    try:
                        async with asyncio.timeout(DEADLINE):
                            return _json(await answer(request))
                    except Denied as error:
                        return _json(deny(request.uid, error))
                    except Exception as error:  # the boundary to a handler's code
                        outcome.code = 500
                        log.error("webhook_failed", error=repr(error), exc_info=error)
                        failed = Denied(f"the webhook failed: {error!r}", reason="InternalError", code=500)
                        return _json(deny(request.uid, failed))

        return handle

    async def _convert(self, http: web.Request) -> web.StreamResponse:
        with self._counted("/convert") as outcome:
            try:
                request = read_conversion(await http.read())
            except ReviewError as error:
                outcome.code = 400
                return web.Response(status=400, text=str(error))
            with structlog.contextvars.bound_contextvars(webhook="/convert", request=request.uid):
                try:
                    objects = [self._converted(obj, request.desired) for obj in request.objects]
                except Exception as error:  # the boundary to a converter's code
                    outcome.code = 500
                    log.error("conversion_failed", error=repr(error), exc_info=error)
                    return _json(not_converted(request.uid, str(error)))
            return _json(converted(request.uid, objects))

    @contextmanager
    def _counted(self, path: str) -> Iterator[_Outcome]:
        """Count a call: how many are under way, how it ended, and the seconds that it took."""
        metrics, clock, outcome = self._manager.metrics, self._manager.clock, _Outcome()
        started = clock.monotonic()
        metrics.webhooks_in_flight.add(path)
        try:
            yield outcome
        finally:
            metrics.webhooks_in_flight.add(path, count=-1)
            metrics.webhook_requests.add(path, str(outcome.code))
            metrics.webhook_times.add(clock.monotonic() - started, path)

    def _converted(self, obj: Object, desired: str) -> Object:
        if obj["apiVersion"] == desired:
            return obj
        group = desired.rpartition("/")[0]
        converter = self._converters.get((group, obj["kind"]))
        if converter is None:
            raise ValueError(f"no converter for {obj['kind']} of {group}")
        return converter(deepcopy(obj), desired) | {"apiVersion": desired, "kind": obj["kind"]}


async def _mutate(handler: Mutate, request: AdmissionRequest) -> Object:
    if request.object is None:
        return allow(request)
    draft = deepcopy(request.object)
    given = handler(draft, request)
    if isinstance(given, Awaitable):
        given = await given
    return allow(request, mutated=draft if given is None else given)


async def _validate(handler: Validate, request: AdmissionRequest) -> Object:
    given = handler(request)
    if isinstance(given, Awaitable):
        given = await given
    return allow(request, warnings=given or ())


def _json(body: Object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
