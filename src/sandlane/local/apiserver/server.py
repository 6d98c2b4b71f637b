"""The API server without HTTP: a request in, an answer or a stream of lines out.

Everything is decided here by path and verb, and done by `Reader`, `Writer` and `Deleter`. The HTTP server and `FakeCluster` are two
ways to get here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import msgspec
import structlog

from sandlane.kube.clock import Clock
from sandlane.kube.resource import Key, Object
from sandlane.kube.transport import Request
from sandlane.local.apiserver import scale
from sandlane.local.apiserver.admission.chain import AdmissionChain
from sandlane.local.apiserver.admission.type_checks import TypeChecks
from sandlane.local.apiserver.answers import (
    TEXT,
    Answer,
    StreamResponse,
    failure,
    json_answer,
    no_such_page,
    with_warnings,
)
from sandlane.local.apiserver.auth.authorizer import Authorizer
from sandlane.local.apiserver.auth.escalation import Escalation
from sandlane.local.apiserver.auth.rbac import Rbac
from sandlane.local.apiserver.auth.reviews import Reviews
from sandlane.local.apiserver.auth.signing_rights import SigningRights
from sandlane.local.apiserver.auth.token_requests import TokenRequests
from sandlane.local.apiserver.auth.tokens import SigningKey, Tokens
from sandlane.local.apiserver.auth.user import ADMIN, User
from sandlane.local.apiserver.body import (
    check_fields,
    check_write_options,
    decode_body,
    decode_object,
    media_type,
    validation_mode,
)
from sandlane.local.apiserver.crd.definitions import STORAGE, Definitions, DefinitionStrategy
from sandlane.local.apiserver.crd.removal import Removal
from sandlane.local.apiserver.deleter import Deleter, delete_options
from sandlane.local.apiserver.first_objects import make_first_objects
from sandlane.local.apiserver.kinds.field_errors import FieldError
from sandlane.local.apiserver.metadata import Randomness
from sandlane.local.apiserver.other_paths import OtherPaths
from sandlane.local.apiserver.patching import (
    APPLY,
    applied_object,
    check_names,
    decoded_patch,
    patch_type,
    patched_object,
)
from sandlane.local.apiserver.reader import Reader, make_filter
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.representation import Representation, as_asked, negotiate
from sandlane.local.apiserver.request_info import RequestInfo, is_true, read_request
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import (
    StatusError,
    conflict,
    internal,
    invalid,
    method_not_allowed,
    no_such_path,
    not_found,
)
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.local.apiserver.webhook_calls import Caller
from sandlane.local.apiserver.writer import Seen, Write, Writer

log = structlog.get_logger(__name__)

COLLECTION_VERBS = ("create", "list", "deletecollection")
ENDPOINTS_GO = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
CONNECTED = ("exec", "attach", "portforward", "proxy")
NODE_SUBRESOURCES = ("log", "exec", "attach", "portforward", "proxy")


Handler = Callable[[ResourceType, RequestInfo, Request, User, dict[str, str]], Awaitable[Answer | None]]
Authorize = Callable[[User, RequestInfo], Awaitable[None]]
Logs = Callable[[str, str, dict[str, str]], Awaitable[AsyncIterator[bytes]]]
"""Gives a container's log: namespace, Pod, query (`container`, `follow`, ...). Raises `StatusError`."""


class ApiServer:
    """One API server over one store. `run_hooks` lists functions asked first (extensions: reviews, logs, CRDs)."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Clock,
        rng: Randomness,
        service_cidr: str = "10.96.0.0/16",
        address: str = "127.0.0.1:6443",
        token_key: SigningKey | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.rng = rng
        self.address = address
        self.registry = Registry()
        self.reader = Reader(store, clock)
        self.writer = Writer(store, clock, rng, service_cidr)
        rbac = Rbac(store)
        self._caller = Caller(store)
        checks = Escalation(rbac).check, SigningRights(rbac).check
        self.admission = AdmissionChain(store, self.registry, self._caller, rng, checks, rbac)
        self.writer.admission = self.admission
        self.deleter = Deleter(self.writer)
        definitions = self._type("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        self.definitions = Definitions(store, self.registry, clock, self._caller, rng)
        self.writer.is_going = self.definitions.terminating.__contains__
        strategy = DefinitionStrategy(definitions.strategy, self.definitions)
        self.registry.register(replace(definitions, strategy=strategy))
        self.removal = Removal(store, self.registry, self.definitions, self.deleter)
        self.type_checks = TypeChecks(store, self.registry, self.writer)
        self.tokens = Tokens(store, clock, token_key)
        self._authorizer = Authorizer(rbac)
        self.authorize: Authorize = self._authorizer.authorize
        self.handlers: list[Handler] = [Reviews(rbac).handle, TokenRequests(store, clock, rng, self.tokens).handle]
        self.logs: Logs | None = None
        self._others = OtherPaths(self.registry, address, self.tokens)

    async def prepare(self) -> None:
        """Make what every cluster has."""
        _, _, port = self.address.rpartition(":")
        await make_first_objects(self.writer, self.registry, int(port))

    async def close(self) -> None:
        """Close the connections to webhooks."""
        await self._caller.close()

    def _type(self, group: str, version: str, plural: str) -> ResourceType:
        found = self.registry.get(group, version, plural)
        assert found is not None
        return found

    # -- dispatch ---------------------------------------------------------------------------------------

    async def handle(self, request: Request, user: User = ADMIN) -> Answer:
        """Answer a request. Never raises for what a client does."""
        try:
            answer = with_warnings(as_asked(request, await self._handle(request, user)), self._deprecated(request))
            if self.definitions.terminating and request.method != "GET":
                await self.removal.finish_all()
            if self.definitions.unaccepted and request.method != "GET":
                await self.removal.pass_names_on()
            if self.type_checks.pending and request.method != "GET":
                await self.type_checks.run()
            return answer
        except StatusError as error:
            return with_warnings(as_asked(request, failure(error)), self._deprecated(request))
        except Exception as error:  # the boundary: a fault of ours harms one request
            log.error("request_failed", method=request.method, path=request.path, error=repr(error), exc_info=error)
            return failure(internal(repr(error)))

    async def _handle(self, request: Request, user: User) -> Answer:
        info = read_request(request)
        user = self.act_as(user, request)
        await self.authorize(user, info)
        if not info.resource:
            return self._others.answer(request, info)
        type_ = self.registry.get(info.group, info.version, info.resource)
        if type_ is None:
            types = [each for each in self.registry if each.resource.group == info.group]
            return failure(no_such_path()) if any(not each.custom for each in types) else no_such_page()
        if type_.custom and info.namespace and not type_.resource.namespaced:
            return no_such_page()
        if request.method == "HEAD":
            raise method_not_allowed()
        query = dict(request.query)
        for handler in self.handlers:
            answer = await handler(type_, info, request, user, query)
            if answer is not None:
                return answer
        if info.subresource:
            return await self._subresource(type_, info, request, user, query)
        if info.verb not in type_.verbs or (
            info.verb != "watch" and bool(info.name) == (info.verb in COLLECTION_VERBS)
        ):
            raise method_not_allowed()
        if (
            type_.resource.namespaced
            and not info.namespace
            and info.verb in ("create", "update", "patch", "delete", "get")
        ):
            raise method_not_allowed() if info.verb == "create" else no_such_path()
        match info.verb:
            case "get":
                shape = negotiate(request.headers.get("accept", ""), query, listing=False)
                version = query.get("resourceVersion", "")
                found = await self.reader.get(type_, self._namespace(type_, info), info.name, version)
                return json_answer(shape.one(type_, found))
            case "list":
                return await self._list(type_, info, request, query)
            case "watch":
                return self._watch(type_, info, request, query)
            case "deletecollection":
                return await self._delete_collection(type_, info, request, user, query)
        return await self._write_one(type_, info, request, user, query)

    def _deprecated(self, request: Request) -> list[str]:
        """What clients are told whenever they speak of a resource that goes out of use."""
        info = read_request(request)
        if (info.group, info.resource) == ("", "endpoints"):
            return [ENDPOINTS_GO]
        type_ = self.registry.get(info.group, info.version, info.resource) if info.resource else None
        return [type_.deprecated] if type_ is not None and type_.deprecated else []

    def act_as(self, user: User, request: Request) -> User:
        """Who makes the request: `user`, or whom they impersonate. Raises `StatusError` 403."""
        return self._authorizer.act_as(user, request)

    @staticmethod
    def _namespace(type_: ResourceType, info: RequestInfo) -> str:
        return info.namespace if type_.resource.namespaced else ""

    # -- verbs ------------------------------------------------------------------------------------------

    async def _list(self, type_: ResourceType, info: RequestInfo, request: Request, query: dict[str, str]) -> Answer:
        shape = negotiate(request.headers.get("accept", ""), query, listing=True)
        items, metadata = await self.reader.list(type_, make_filter(type_, _scoped(type_, info), query), query)
        return json_answer(shape.many(type_, items, metadata))

    def _watch(self, type_: ResourceType, info: RequestInfo, request: Request, query: dict[str, str]) -> Answer:
        accept = request.headers.get("accept", "").replace(";stream=watch", "").replace("MetadataList", "Metadata")
        shape = negotiate(accept, query, listing=False)
        return StreamResponse(self.reader.watch(type_, make_filter(type_, _scoped(type_, info), query), query, shape))

    async def _write_one(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Answer:
        """Create, change or delete one object. A refusal goes out with the warnings that came before it."""
        does = {"create": self._create, "update": self._update, "patch": self._patch, "delete": self._delete}.get(
            info.verb
        )
        if does is None:
            raise method_not_allowed()
        write = self._write(type_, info, request, user, query)
        try:
            return await does(write, info, request, query)
        except StatusError as error:
            error.warnings = list(dict.fromkeys(write.warnings))
            raise

    async def _create(self, write: Write, info: RequestInfo, request: Request, query: dict[str, str]) -> Answer:
        type_ = write.type_
        decoded = decode_object(type_, request, notice=write.validation != "Ignore")
        shape = negotiate(request.headers.get("accept", ""), query, listing=False)
        created = await self.writer.create(write, decoded.obj, decoded.duplicates)
        return json_answer(shape.one(type_, created), 201, write.warnings)

    async def _update(self, write: Write, info: RequestInfo, request: Request, query: dict[str, str]) -> Answer:
        type_ = write.type_
        decoded = decode_object(type_, request, notice=write.validation != "Ignore")
        obj = decoded.obj
        check_fields(type_, obj, decoded.duplicates, write.validation, write.warnings)
        check_names(obj, info, type_)
        shape = negotiate(request.headers.get("accept", ""), query, listing=False)
        absent = await self.store.settled(type_.storage_key, Key(write.namespace, info.name)) is None
        if absent and type_.strategy.allows_create_on_update and not info.subresource:
            obj["metadata"].pop("resourceVersion", None)
            if obj["metadata"].get("uid"):
                why = f"Precondition failed: UID in precondition: {obj['metadata']['uid']}, UID in object meta: "
                raise conflict(type_.resource.group, type_.resource.plural, info.name, why)
            created = await self.writer.create(write, obj, [])
            return json_answer(shape.one(type_, created), 201, write.warnings)

        async def replacement(old: Object) -> Object:
            if type_.strategy.needs_version and obj["metadata"].get("resourceVersion") in (None, "", "0"):
                text = "must be specified for an update"
                what = FieldError("FieldValueInvalid", "metadata.resourceVersion", 0, text)
                raise invalid(info.group, info.resource, info.name, [what])
            return msgspec.json.decode(msgspec.json.encode(obj))  # type: ignore[no-any-return]

        updated = await self.writer.modify(write, replacement)
        return json_answer(shape.one(type_, updated), 200, write.warnings)

    async def _patch(self, write: Write, info: RequestInfo, request: Request, query: dict[str, str]) -> Answer:
        type_ = write.type_
        shape = negotiate(request.headers.get("accept", ""), query, listing=False)
        media = patch_type(type_, request)
        if media.startswith(APPLY):
            return await self._apply(write, type_, info, request, query, shape)
        patch = decoded_patch(request, media)

        async def patched(old: Object) -> Object:
            return patched_object(write, info, request, media, patch, old)

        updated = await self.writer.modify(write, patched)
        return json_answer(shape.one(type_, updated), 200, list(dict.fromkeys(write.warnings)))

    async def _apply(
        self,
        write: Write,
        type_: ResourceType,
        info: RequestInfo,
        request: Request,
        query: dict[str, str],
        shape: Representation,
    ) -> Answer:
        manager = query.get("fieldManager", "")
        obj = applied_object(type_, info, request, manager)
        force = is_true(query.get("force"))
        made, created = await self.writer.apply(write, obj, force=force, manager=manager)
        return json_answer(shape.one(type_, made), 201 if created else 200, write.warnings)

    async def _delete(self, write: Write, info: RequestInfo, request: Request, query: dict[str, str]) -> Answer:
        type_ = write.type_
        body = decode_body(request).obj if request.body.strip() else None
        options = delete_options(body, query)
        write.dry_run = write.dry_run or "All" in (options.get("dryRun") or ())
        shape = negotiate(request.headers.get("accept", ""), query, listing=False)
        answer, _ = await self.deleter.delete(write, options)
        if type_.storage_key == STORAGE and not write.dry_run:
            await self.removal.delete_objects(answer, write.user)
        if answer.get("kind") != "Status":
            answer = shape.one(type_, answer)
        return json_answer(answer, 200, write.warnings)

    async def _delete_collection(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Answer:
        body = decode_body(request).obj if request.body.strip() else None
        options = delete_options(body, query)
        shape = negotiate(request.headers.get("accept", ""), query, listing=True)
        items, metadata = await self.reader.list(type_, make_filter(type_, _scoped(type_, info), query), query)
        for item in items:
            write = self._write(type_, info, request, user, query)
            write.namespace = item["metadata"].get("namespace", "")
            write.name, write.one_of_many = item["metadata"]["name"], True
            write.dry_run = write.dry_run or "All" in (options.get("dryRun") or ())
            try:
                await self.deleter.delete(write, dict(options))
            except StatusError as error:
                if error.reason != "NotFound":
                    raise
        return json_answer(shape.many(type_, items, metadata))

    # -- subresources -----------------------------------------------------------------------------------

    async def _subresource(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Answer:
        sub = type_.subresource(info.subresource)
        if sub is None:
            if type_.custom:
                raise not_found(info.group, info.resource, info.name)
            raise no_such_path()
        if info.verb not in sub.verbs:
            raise method_not_allowed()
        if info.subresource == "scale":
            return await scale.handle(self, type_, info, request, user, query)
        if info.subresource in ("binding", "eviction"):
            return await scale.pod_action(self, type_, info, request, user, query)
        if info.subresource == "log" and self.logs is not None:
            return StreamResponse(await self.logs(info.namespace, info.name, query), headers=TEXT)
        if info.subresource in CONNECTED:
            await self.admit_connection(info, request, user)
        if info.subresource in NODE_SUBRESOURCES:
            raise StatusError(503, "ServiceUnavailable", f"{info.subresource}: no node can be reached from here")
        if info.verb == "get":
            shape = negotiate(request.headers.get("accept", ""), query, listing=False)
            return json_answer(shape.one(type_, await self.reader.get(type_, self._namespace(type_, info), info.name)))
        return await self._write_one(type_, info, request, user, query)

    async def admit_connection(self, info: RequestInfo, request: Request, user: User) -> None:
        """Ask admission about a connection to something. Raises `StatusError`."""
        type_ = self._type(info.group, info.version, info.resource)
        sub = type_.subresource(info.subresource)
        assert sub is not None
        write = self._write(type_, info, request, user, dict(request.query))
        write.seen = Seen("", "v1", sub.kind)
        options = connect_options(sub.kind, request, info)
        await self.admission.mutate(write, "CONNECT", options, None)
        await self.admission.validate(write, "CONNECT", options, None)

    def _write(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Write:
        dry_run = [value for name, value in request.query if name == "dryRun"]
        if any(value not in ("All", "") for value in dry_run):
            kind = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}.get(
                info.verb, "DeleteOptions"
            )
            shown = "[" + ",".join(f'"{value}"' for value in dry_run) + "]"
            message = f'Unsupported value: {shown}: supported values: "All"'
            cause = {"reason": "FieldValueNotSupported", "message": message, "field": "dryRun"}
            details = {"group": "meta.k8s.io", "kind": kind, "causes": [cause]}
            raise StatusError(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: dryRun: {message}', details)
        check_write_options(info.verb, query, media_type(request))
        agent = request.headers.get("user-agent", "unknown").partition("/")[0] or "unknown"
        return Write(
            type_,
            self._namespace(type_, info),
            info.name,
            info.subresource,
            info.verb,
            query.get("fieldManager") or agent,
            "All" in dry_run,
            validation_mode(query, info.verb),
            user,
            options={key: query[key] for key in ("fieldManager", "fieldValidation") if key in query},
        )


def connect_options(kind: str, request: Request, info: RequestInfo) -> Object:
    """What a connection is asked for, as an object: `PodExecOptions` and its kin."""
    options: Object = {"kind": kind, "apiVersion": "v1"}
    if kind.endswith("ProxyOptions"):
        return options | ({"path": "/" + "/".join(info.rest)} if info.rest or info.path.endswith("/") else {})
    for name, value in request.query:
        if name in ("stdin", "stdout", "stderr", "tty") and is_true(value):
            options[name] = True
        elif name == "container":
            options[name] = value
        elif name == "command":
            options.setdefault(name, []).append(value)
        elif name == "ports" and value.isdecimal():
            options.setdefault(name, []).append(int(value))
    return options


def _scoped(type_: ResourceType, info: RequestInfo) -> RequestInfo:
    """For cluster-scoped resources the namespace in the path (namespaces themselves) is no filter."""
    if type_.resource.namespaced:
        return info
    return RequestInfo(info.verb, info.path, info.group, info.version, info.resource, "", info.name, info.subresource)
