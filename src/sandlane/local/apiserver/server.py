"""The API server without HTTP: a request in, an answer or a stream of lines out.

Everything is decided here by path and verb, and done by `Reader`, `Writer` and `Deleter`. The HTTP server and `FakeCluster` are two
ways to get here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import structlog

from sandlane.kube.clock import Clock
from sandlane.kube.patch import json_patch, merge_patch, strategic
from sandlane.kube.patch.errors import MalformedPatchError, PatchDirectiveError, PatchError, PatchTooLargeError
from sandlane.kube.resource import Key, Object
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver import discovery, scale
from sandlane.local.apiserver.admission.chain import AdmissionChain
from sandlane.local.apiserver.auth.authorizer import Authorizer
from sandlane.local.apiserver.auth.bootstrap import bootstrap_bindings, bootstrap_roles
from sandlane.local.apiserver.auth.escalation import Escalation
from sandlane.local.apiserver.auth.rbac import Rbac
from sandlane.local.apiserver.auth.reviews import Reviews
from sandlane.local.apiserver.auth.signing_rights import SigningRights
from sandlane.local.apiserver.auth.token_requests import TokenRequests
from sandlane.local.apiserver.auth.tokens import SigningKey, Tokens
from sandlane.local.apiserver.auth.user import ADMIN, User
from sandlane.local.apiserver.body import (
    check_applied_fields,
    check_fields,
    check_patched_fields,
    check_write_options,
    decode_body,
    decode_object,
    media_type,
    validation_mode,
)
from sandlane.local.apiserver.crd.definitions import CLEANUP, STORAGE, Definitions, DefinitionStrategy
from sandlane.local.apiserver.deleter import Deleter, delete_options
from sandlane.local.apiserver.kinds.field_errors import FieldError
from sandlane.local.apiserver.openapi import binary as openapi_binary
from sandlane.local.apiserver.openapi.documents import Described, OpenApi
from sandlane.local.apiserver.reader import Reader, make_filter
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.representation import Representation, in_yaml_if_asked, negotiate
from sandlane.local.apiserver.request_info import RequestInfo, is_true, read_request
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import (
    StatusError,
    bad_request,
    conflict,
    internal,
    invalid,
    method_not_allowed,
    no_such_path,
    not_found,
    too_large,
    unsupported_media_type,
)
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.local.apiserver.writer import Randomness, Write, Writer

log = structlog.get_logger(__name__)

VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2+sandlane",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "cpython",
    "platform": "linux/amd64",
}
FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
HEALTH_CHECKS = ("ping", "log", "etcd", "informer-sync")
PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
)
COLLECTION_VERBS = ("create", "list", "deletecollection")
JSON = (("content-type", "application/json"),)
TEXT = (("content-type", "text/plain; charset=utf-8"),)
NODE_SUBRESOURCES = ("log", "exec", "attach", "portforward", "proxy")


@dataclass(frozen=True)
class StreamResponse:
    """An answer that comes line by line."""

    lines: AsyncIterator[bytes]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = JSON


Answer = Response | StreamResponse
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
        self.admission = AdmissionChain(store, self.registry, rng, (Escalation(rbac).check, SigningRights(rbac).check))
        self.writer.admission = self.admission
        self.deleter = Deleter(self.writer)
        definitions = self._type("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        self.definitions = Definitions(store, self.registry, clock)
        self.writer.is_going = self.definitions.terminating.__contains__
        strategy = DefinitionStrategy(definitions.strategy, self.definitions)
        self.registry.register(replace(definitions, strategy=strategy))
        self.tokens = Tokens(store, clock, token_key)
        self._authorizer = Authorizer(rbac)
        self.authorize: Authorize = self._authorizer.authorize
        self.handlers: list[Handler] = [Reviews(rbac).handle, TokenRequests(store, clock, rng, self.tokens).handle]
        self.logs: Logs | None = None
        self._openapi: tuple[int, OpenApi] | None = None

    async def prepare(self) -> None:
        """Make what every cluster has: the first namespaces, the Service `kubernetes`, roles and their bindings."""
        namespaces = self._type("", "v1", "namespaces")
        for name in FIRST_NAMESPACES:
            if self.store.get(("", "namespaces"), Key("", name)) is None:
                obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                await self.writer.create(Write(namespaces, "", manager="kube-apiserver"), obj, [])
        if self.store.get(("", "services"), Key("default", "kubernetes")) is None:
            labels = {"component": "apiserver", "provider": "kubernetes"}
            _, _, port = self.address.rpartition(":")
            spec = {"ports": [{"name": "https", "port": 443, "targetPort": int(port)}], "type": "ClusterIP"}
            service = {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
                "spec": spec,
            }
            write = Write(self._type("", "v1", "services"), "default", manager="kube-apiserver")
            await self.writer.create(write, service, [])
        async with asyncio.TaskGroup() as group:
            for role in (*bootstrap_roles(), *bootstrap_bindings()):
                type_ = self._type("rbac.authorization.k8s.io", "v1", role["kind"].lower() + "s")
                if self.store.get(type_.storage_key, Key("", role["metadata"]["name"])) is None:
                    group.create_task(self.writer.create(Write(type_, "", manager="kube-apiserver"), role, []))

    async def close(self) -> None:
        """Close what was opened for admission."""
        await self.admission.close()

    def _type(self, group: str, version: str, plural: str) -> ResourceType:
        found = self.registry.get(group, version, plural)
        assert found is not None
        return found

    # -- dispatch ---------------------------------------------------------------------------------------

    async def handle(self, request: Request, user: User = ADMIN) -> Answer:
        """Answer a request. Never raises for what a client does."""
        try:
            answer = in_yaml_if_asked(request, await self._handle(request, user))
            if self.definitions.terminating and request.method != "GET":
                await self._finish_definitions()
            return answer
        except StatusError as error:
            return in_yaml_if_asked(request, _failure(error))
        except Exception as error:  # the boundary: a fault of ours harms one request
            log.error("request_failed", method=request.method, path=request.path, error=repr(error), exc_info=error)
            return _failure(internal(repr(error)))

    async def _handle(self, request: Request, user: User) -> Answer:
        info = read_request(request)
        user = self.act_as(user, request)
        await self.authorize(user, info)
        if not info.resource:
            return self._non_resource(request, info)
        type_ = self.registry.get(info.group, info.version, info.resource)
        if type_ is None:
            types = [each for each in self.registry if each.resource.group == info.group]
            return _failure(no_such_path()) if any(not each.custom for each in types) else _no_such_page()
        if type_.custom and info.namespace and not type_.resource.namespaced:
            return _no_such_page()
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
                return _json(shape.one(type_, self.reader.get(type_, self._namespace(type_, info), info.name)))
            case "list":
                return self._list(type_, info, request, query)
            case "watch":
                return self._watch(type_, info, request, query)
            case "create":
                return await self._create(type_, info, request, user, query)
            case "update":
                return await self._update(type_, info, request, user, query)
            case "patch":
                return await self._patch(type_, info, request, user, query)
            case "delete":
                return await self._delete(type_, info, request, user, query)
            case "deletecollection":
                return await self._delete_collection(type_, info, request, user, query)
        raise method_not_allowed()

    def act_as(self, user: User, request: Request) -> User:
        """Who makes the request: `user`, or whom they impersonate. Raises `StatusError` 403."""
        return self._authorizer.act_as(user, request)

    def _non_resource(self, request: Request, info: RequestInfo) -> Answer:
        path = info.path.rstrip("/") or "/"
        if path in ("/healthz", "/livez", "/readyz") or path.startswith(("/healthz/", "/livez/", "/readyz/")):
            return self._health(path, request)
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        accept = request.headers.get("accept", "")
        wants_aggregated = "as=APIGroupDiscoveryList" in accept and "v=v2" in accept.replace("v=v2beta1", "")
        parts = [part for part in path.split("/") if part]
        found: Object | None = None
        match parts:
            case ["version"]:
                found = dict(VERSION)
            case ["api"] | ["apis"] if wants_aggregated:
                body = discovery.aggregated(self.registry, core=parts == ["api"])
                return _json(body, content_type=discovery.AGGREGATED)
            case ["api"]:
                found = discovery.api_versions(self.address)
            case ["apis"]:
                found = discovery.group_list(self.registry)
            case ["apis", group]:
                found = discovery.group(self.registry, group)
            case ["api", version]:
                found = discovery.resource_list(self.registry, "", version)
            case ["apis", group, version]:
                found = discovery.resource_list(self.registry, group, version)
            case ["openapi", "v2"] if accept.startswith(openapi_binary.ASKED_TYPES):
                answer = self._document(request, self.openapi.v2_binary())
                content_type = ("content-type", openapi_binary.MEDIA_TYPE)
                return msgspec.structs.replace(answer, headers=(content_type, *answer.headers[1:]))
            case ["openapi", "v2"]:
                return self._document(request, self.openapi.v2())
            case ["openapi", "v3"]:
                return self._document(request, self.openapi.index())
            case ["openapi", "v3", *rest]:
                return self._document(request, self.openapi.v3("/".join(rest)))
            case []:
                found = {
                    "paths": [
                        "/api",
                        "/apis",
                        "/healthz",
                        "/livez",
                        "/openapi/v2",
                        "/openapi/v3",
                        "/readyz",
                        "/version",
                    ]
                }
        if found is None:
            return _no_such_page()
        return _json(found)

    @property
    def openapi(self) -> OpenApi:
        """The OpenAPI documents of what is served now."""
        if self._openapi is None or self._openapi[0] != self.registry.generation:
            described = [
                Described(
                    type_.resource,
                    frozenset(type_.verbs),
                    type_.subresources,
                    type_.schema if type_.custom else None,
                )
                for type_ in self.registry
                if type_.schema is not None
            ]
            self._openapi = (self.registry.generation, OpenApi(described))
        return self._openapi[1]

    def _document(self, request: Request, document: Any) -> Response:
        if document is None:
            raise no_such_path()
        etag = f'"{document.hash}"'
        headers = (*JSON, ("etag", etag), ("vary", "Accept"), ("cache-control", "no-cache, private"))
        if request.headers.get("if-none-match") == etag:
            return Response(304, headers)
        return Response(200, headers, document.body)

    def _health(self, path: str, request: Request) -> Answer:
        text = (("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff"))
        name, *check = path.strip("/").split("/")
        if check and (len(check) > 1 or check[0] not in HEALTH_CHECKS):
            return _no_such_page()
        if dict(request.query).get("verbose") is not None:
            lines = "".join(f"[+]{each} ok\n" for each in check or HEALTH_CHECKS)
            return Response(200, text, f"{lines}{name} check passed\n".encode())
        return Response(200, text, b"ok")

    @staticmethod
    def _namespace(type_: ResourceType, info: RequestInfo) -> str:
        return info.namespace if type_.resource.namespaced else ""

    # -- verbs ------------------------------------------------------------------------------------------

    def _list(self, type_: ResourceType, info: RequestInfo, request: Request, query: dict[str, str]) -> Answer:
        shape = negotiate(request.headers.get("accept", ""), query, listing=True)
        items, metadata = self.reader.list(type_, make_filter(type_, _scoped(type_, info), query), query)
        return _json(shape.many(type_, items, metadata))

    def _watch(self, type_: ResourceType, info: RequestInfo, request: Request, query: dict[str, str]) -> Answer:
        accept = request.headers.get("accept", "").replace(";stream=watch", "")
        shape = negotiate(accept, query, listing=False)
        return StreamResponse(self.reader.watch(type_, make_filter(type_, _scoped(type_, info), query), query, shape))

    async def _create(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Answer:
        write = self._write(type_, info, request, user, query)
        decoded = decode_object(type_, request, notice=write.validation != "Ignore")
        shape = negotiate(request.headers.get("accept", ""), query, listing=False)
        created = await self.writer.create(write, decoded.obj, decoded.duplicates)
        return _json(shape.one(type_, created), 201, write.warnings)

    async def _update(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Answer:
        write = self._write(type_, info, request, user, query)
        decoded = decode_object(type_, request, notice=write.validation != "Ignore")
        obj = decoded.obj
        if type_.custom and not obj["metadata"].get("resourceVersion"):
            fault = FieldError("FieldValueInvalid", "metadata.resourceVersion", "", "must be specified for an update")
            raise invalid(info.group, info.resource, info.name, [fault])
        check_fields(type_, obj, decoded.duplicates, write.validation, write.warnings)
        self._check_names(obj, info, type_)
        shape = negotiate(request.headers.get("accept", ""), query, listing=False)
        absent = self.store.get(type_.storage_key, Key(write.namespace, info.name)) is None
        if absent and type_.strategy.allows_create_on_update and not info.subresource:
            obj["metadata"].pop("resourceVersion", None)
            if obj["metadata"].get("uid"):
                why = f"Precondition failed: UID in precondition: {obj['metadata']['uid']}, UID in object meta: "
                raise conflict(type_.resource.group, type_.resource.plural, info.name, why)
            created = await self.writer.create(write, obj, [])
            return _json(shape.one(type_, created), 201, write.warnings)

        async def replacement(old: Object) -> Object:
            return msgspec.json.decode(msgspec.json.encode(obj))  # type: ignore[no-any-return]

        updated = await self.writer.modify(write, replacement)
        return _json(shape.one(type_, updated), 200, write.warnings)

    def _check_names(self, obj: Object, info: RequestInfo, type_: ResourceType) -> None:
        metadata = obj["metadata"]
        if not metadata.get("name"):
            raise bad_request("the name of the object (based on URL) was undeterminable: name must be provided")
        if metadata["name"] != info.name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({info.name})"
            )
        namespace = self._namespace(type_, info)
        if metadata.get("namespace") and metadata["namespace"] != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")

    async def _patch(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Answer:
        write = self._write(type_, info, request, user, query)
        shape = negotiate(request.headers.get("accept", ""), query, listing=False)
        media = media_type(request)
        if media not in PATCH_TYPES or (media == PATCH_TYPES[2] and type_.custom):
            if media not in PATCH_TYPES:
                raise StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
            raise unsupported_media_type([PATCH_TYPES[0], PATCH_TYPES[1], PATCH_TYPES[3]])
        if media.startswith("application/apply-patch"):
            return await self._apply(write, type_, info, request, query, shape)
        patch = decode_body(msgspec.structs.replace(request, headers={"content-type": "application/json"})).obj

        async def patched(old: Object) -> Object:
            version = old["metadata"]["resourceVersion"]
            try:
                if media == PATCH_TYPES[0]:
                    new = json_patch.json_patch(old, patch)
                elif media == PATCH_TYPES[1]:
                    new = merge_patch.merge_patch(old, patch)
                else:
                    new = strategic.strategic_merge_patch(old, patch, type_.schema)
            except PatchTooLargeError as error:
                raise too_large(str(error)) from error
            except MalformedPatchError as error:
                raise bad_request(str(error)) from error
            except PatchDirectiveError as error:
                raise StatusError(500, "", str(error)) from error
            except PatchError as error:  # kube-apiserver does not say why
                log.debug("patch_does_not_apply", path=request.path, error=str(error))
                message = "the server rejected our request due to an error in our request"
                raise StatusError(422, "Invalid", message, {}) from error
            if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
                raise StatusError(422, "Invalid", "the patch leaves no object", {})
            new.setdefault("kind", type_.resource.kind)
            new.setdefault("apiVersion", type_.resource.api_version)
            check_patched_fields(type_, new, request.body, write.validation, write.warnings)
            self._check_names(new, info, type_)
            if new["metadata"].get("resourceVersion") == version:
                new["metadata"].pop("resourceVersion")  # the patch did not name it
            return new

        updated = await self.writer.modify(write, patched)
        return _json(shape.one(type_, updated), 200, list(dict.fromkeys(write.warnings)))

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
        if not manager:
            raise StatusError(
                422,
                "Invalid",
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
                {
                    "group": "meta.k8s.io",
                    "kind": "PatchOptions",
                    "causes": [
                        {
                            "reason": "FieldValueRequired",
                            "message": "Required value: is required for apply patch",
                            "field": "fieldManager",
                        }
                    ],
                },
            )
        decoded = decode_body(msgspec.structs.replace(request, headers={"content-type": "application/yaml"}))
        obj = decoded.obj
        if not isinstance(obj, dict):
            raise bad_request("error decoding YAML: the body is not an object")
        given = obj.get("metadata") or {}
        if given.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if not obj.get("apiVersion") or not obj.get("kind"):
            missing = "apiVersion" if not obj.get("apiVersion") else "kind"
            raise bad_request(f"Object '{'Kind' if missing == 'kind' else missing}' is missing in the body")
        if obj["kind"] != type_.resource.kind or obj["apiVersion"] != type_.resource.api_version:
            raise bad_request(
                f"Incorrect version specified in apply patch. Specified patch version: {obj['apiVersion']}, "
                f"expected: {type_.resource.api_version}"
            )
        if decoded.duplicates:
            raise bad_request("error decoding YAML: " + ", ".join(f'duplicate field "{d}"' for d in decoded.duplicates))
        obj["metadata"] = dict(given)
        obj["metadata"].setdefault("name", info.name)
        if type_.resource.namespaced:
            obj["metadata"].setdefault("namespace", info.namespace)
        self._check_names(obj, info, type_)
        check_applied_fields(type_, obj)
        force = is_true(query.get("force"))
        made, created = await self.writer.apply(write, obj, force=force, manager=manager)
        return _json(shape.one(type_, made), 201 if created else 200, write.warnings)

    async def _delete(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Answer:
        write = self._write(type_, info, request, user, query)
        body = decode_body(request).obj if request.body.strip() else None
        options = delete_options(body, query)
        write.dry_run = write.dry_run or "All" in (options.get("dryRun") or ())
        shape = negotiate(request.headers.get("accept", ""), query, listing=False)
        answer, _ = await self.deleter.delete(write, options)
        if type_.storage_key == STORAGE and not write.dry_run:
            await self._delete_custom_resources(answer, user)
        if answer.get("kind") != "Status":
            answer = shape.one(type_, answer)
        return _json(answer, 200, write.warnings)

    async def _delete_custom_resources(self, definition: Object, user: User) -> None:
        """The objects of a definition that is going, then the definition itself."""
        spec = definition.get("spec")
        type_ = self.registry.by_storage((spec["group"], spec["names"]["plural"])) if spec else None
        for key in self.definitions.objects(definition) if type_ is not None else ():
            assert type_ is not None
            write = Write(type_, key.namespace, key.name, verb="delete", user=user)
            try:
                await self.deleter.delete(write, {})
            except StatusError as error:
                if error.reason != "NotFound":
                    raise
        await self._finish_definition(definition["metadata"]["name"])

    async def _finish_definitions(self) -> None:
        for storage, name in list(self.definitions.terminating.items()):
            if not self.store.count(storage):
                await self._finish_definition(name)

    async def _finish_definition(self, name: str) -> None:
        """Take the finalizer off a definition that is going and has no objects left."""
        definitions = self._type("apiextensions.k8s.io", "v1", "customresourcedefinitions")

        async def finished(old: Object) -> Object:
            if old["metadata"].get("deletionTimestamp") and not self.definitions.objects(old):
                kept = [each for each in old["metadata"].get("finalizers") or () if each != CLEANUP]
                old["metadata"]["finalizers"] = kept
            return old

        try:
            await self.writer.modify(Write(definitions, "", name, verb="update", manager="kube-apiserver"), finished)
        except StatusError as error:
            if error.reason != "NotFound":
                raise

    async def _delete_collection(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Answer:
        body = decode_body(request).obj if request.body.strip() else None
        options = delete_options(body, query)
        options.pop("preconditions", None)
        shape = negotiate(request.headers.get("accept", ""), query, listing=True)
        items, metadata = self.reader.list(type_, make_filter(type_, _scoped(type_, info), query), query)
        for item in items:
            write = self._write(type_, info, request, user, query)
            write.namespace = item["metadata"].get("namespace", "")
            write.name = item["metadata"]["name"]
            write.dry_run = write.dry_run or "All" in (options.get("dryRun") or ())
            try:
                await self.deleter.delete(write, dict(options))
            except StatusError as error:
                if error.reason != "NotFound":
                    raise
        return _json(shape.many(type_, items, metadata))

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
        if info.subresource in NODE_SUBRESOURCES:
            raise StatusError(503, "ServiceUnavailable", f"{info.subresource}: no node can be reached from here")
        if info.verb == "get":
            shape = negotiate(request.headers.get("accept", ""), query, listing=False)
            return _json(shape.one(type_, self.reader.get(type_, self._namespace(type_, info), info.name)))
        if info.verb == "update":
            return await self._update(type_, info, request, user, query)
        if info.verb == "patch":
            return await self._patch(type_, info, request, user, query)
        raise method_not_allowed()

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


def _scoped(type_: ResourceType, info: RequestInfo) -> RequestInfo:
    """For cluster-scoped resources the namespace in the path (namespaces themselves) is no filter."""
    if type_.resource.namespaced:
        return info
    return RequestInfo(info.verb, info.path, info.group, info.version, info.resource, "", info.name, info.subresource)


def _no_such_page() -> Response:
    """What the HTTP multiplexer of kube-apiserver answers to paths that nobody knows."""
    headers = (("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff"))
    return Response(404, headers, b"404 page not found\n")


def _json(body: Object, status: int = 200, warnings: list[str] | None = None, content_type: str = "") -> Response:
    headers = ((("content-type", content_type),) if content_type else JSON) + tuple(
        ("warning", f'299 - "{_quoted(text)}"') for text in warnings or ()
    )
    return Response(status, headers, msgspec.json.encode(body))


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _failure(error: StatusError) -> Response:
    headers: tuple[tuple[str, str], ...] = JSON
    if error.details and error.details.get("retryAfterSeconds"):
        headers = (*headers, ("retry-after", str(error.details["retryAfterSeconds"])))
    return Response(error.code, headers, msgspec.json.encode(error.status()))
