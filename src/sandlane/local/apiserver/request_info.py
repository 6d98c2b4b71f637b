"""What a request asks for, read from its method and path: verb, resource, namespace, name, subresource."""

from __future__ import annotations

from dataclasses import dataclass

from sandlane.kube.transport import Request

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = ("status", "finalize")


@dataclass(frozen=True)
class RequestInfo:
    """A request for a resource (`resource` is set), or for another path. `selected_name`: the one object that it lists."""

    verb: str
    path: str
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: tuple[str, ...] = ()
    selected_name: str = ""


def is_true(text: str | None) -> bool:
    """A flag in a query, as kube-apiserver reads it: all but `false`, `0` and nothing at all."""
    return text is not None and text.lower() not in ("false", "0")


def read_request(request: Request) -> RequestInfo:
    """Parse a request; `rest` is what follows a subresource (as `proxy/...`)."""
    verb = _VERBS.get(request.method, request.method.lower())
    parts = [part for part in request.path.split("/") if part]
    if len(parts) >= 2 and parts[0] == "api":
        group, version, parts = "", parts[1], parts[2:]
    elif len(parts) >= 3 and parts[0] == "apis":
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(request.method.lower(), request.path)
    if not parts:
        return RequestInfo(request.method.lower(), request.path, group, version)
    watching = parts[0] == "watch" and len(parts) > 1
    if watching:
        parts = parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, parts = parts[1], parts[2:]
    elif parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
    resource, name = parts[0], parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    query = dict(request.query)
    if verb == "get" and (watching or (not name and is_true(query.get("watch")))):
        verb = "watch"
    elif verb == "get" and not name:
        verb = "list"
    elif verb == "delete" and not name:
        verb = "deletecollection"
    selected = ""
    if not name:
        terms = query.get("fieldSelector", "").split(",")
        selected = next((term.partition("=")[2].lstrip("=") for term in terms if term.startswith("metadata.name=")), "")
    rest = tuple(parts[3:])
    return RequestInfo(verb, request.path, group, version, resource, namespace, name, subresource, rest, selected)
