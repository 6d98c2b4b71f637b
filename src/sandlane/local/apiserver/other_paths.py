"""Paths that are no resources: discovery, OpenAPI, keys of tokens, health, version."""

from __future__ import annotations

import hashlib
from typing import Any

from sandlane.kube.resource import Object
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver import discovery
from sandlane.local.apiserver.answers import PLAIN, json_answer, no_such_page
from sandlane.local.apiserver.auth.tokens import Tokens
from sandlane.local.apiserver.openapi import binary as openapi_binary
from sandlane.local.apiserver.openapi.documents import Described, OpenApi
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.request_info import RequestInfo
from sandlane.local.apiserver.status import method_not_allowed, no_such_path

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
HEALTH_CHECKS = ("ping", "log", "etcd", "informer-sync")
PATHS = (
    "/.well-known/openid-configuration",
    "/api",
    "/apis",
    "/healthz",
    "/livez",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
)


class OtherPaths:
    """Answers by what the registry serves now."""

    def __init__(self, registry: Registry, address: str, tokens: Tokens) -> None:
        self._registry = registry
        self._tokens = tokens
        self._address = address
        self._openapi: tuple[int, OpenApi] | None = None

    def answer(self, request: Request, info: RequestInfo) -> Response:
        """The answer. Raises `StatusError`."""
        path = info.path.rstrip("/") or "/"
        if path in ("/healthz", "/livez", "/readyz") or path.startswith(("/healthz/", "/livez/", "/readyz/")):
            return self._health(path, request)
        accept = request.headers.get("accept", "")
        wants_aggregated = "as=APIGroupDiscoveryList" in accept and "v=v2" in accept.replace("v=v2beta1", "")
        parts = [part for part in path.split("/") if part]
        found: Object | None = None
        match parts:
            case ["version"]:
                found = dict(VERSION)
            case ["api"] | ["apis"] if wants_aggregated:
                body = discovery.aggregated(self._registry, core=parts == ["api"])
                return self._tagged(request, body)
            case ["api"]:
                found = discovery.api_versions(self._address)
            case ["apis"]:
                found = discovery.group_list(self._registry)
            case ["apis", group]:
                found = discovery.group(self._registry, group)
            case ["api", version]:
                found = discovery.resource_list(self._registry, "", version)
            case ["apis", group, version]:
                found = discovery.resource_list(self._registry, group, version)
            case ["openapi", "v2"] if accept.startswith(openapi_binary.ASKED_TYPES):
                return self._document(request, self.openapi.v2_binary(), openapi_binary.MEDIA_TYPE)
            case ["openapi", "v2"]:
                return self._document(request, self.openapi.v2())
            case ["openapi", "v3"]:
                return self._document(request, self.openapi.index())
            case ["openapi", "v3", *rest]:
                return self._document(request, self.openapi.v3("/".join(rest)))
            case [".well-known", "openid-configuration"]:
                found = self._tokens.openid_configuration()
            case ["openid", "v1", "jwks"]:
                return json_answer(self._tokens.public_keys(), content_type="application/jwk-set+json")
            case []:
                found = {"paths": list(PATHS)}
        if found is None:
            return no_such_page()
        if request.method != "GET" and parts and parts != ["apis"] and not (parts[0] == "apis" and len(parts) == 2):
            raise method_not_allowed()
        return json_answer(found)

    @property
    def openapi(self) -> OpenApi:
        """The OpenAPI documents of what is served now."""
        if self._openapi is None or self._openapi[0] != self._registry.generation:
            described = [
                Described(
                    type_.resource,
                    frozenset(type_.verbs),
                    type_.subresources,
                    type_.schema if type_.custom else None,
                )
                for type_ in self._registry
                if type_.schema is not None
            ]
            self._openapi = (self._registry.generation, OpenApi(described))
        return self._openapi[1]

    @staticmethod
    def _tagged(request: Request, body: Object) -> Response:
        """Aggregated discovery, which clients keep and ask for again by its hash."""
        answer = json_answer(body, content_type=discovery.AGGREGATED)
        etag = f'"{hashlib.sha512(answer.body).hexdigest().upper()}"'
        headers = (*answer.headers, ("etag", etag), ("vary", "Accept"), ("cache-control", "public"))
        if request.headers.get("if-none-match") == etag:
            return Response(304, headers)
        return Response(200, headers, answer.body)

    @staticmethod
    def _document(request: Request, document: Any, media: str = "application/json") -> Response:
        if document is None:
            raise no_such_path()
        etag = f'"{document.hash}"'
        headers = (("content-type", media), ("etag", etag), ("vary", "Accept"), ("cache-control", "no-cache, private"))
        if request.headers.get("if-none-match") == etag:
            return Response(304, headers)
        return Response(200, headers, document.body)

    @staticmethod
    def _health(path: str, request: Request) -> Response:
        name, *check = path.strip("/").split("/")
        if check and (len(check) > 1 or check[0] not in HEALTH_CHECKS):
            return no_such_page()
        if dict(request.query).get("verbose") is not None:
            lines = "".join(f"[+]{each} ok\n" for each in check or HEALTH_CHECKS)
            return Response(200, PLAIN, f"{lines}{name} check passed\n".encode())
        return Response(200, PLAIN, b"ok")
