"""The `token` subresource of ServiceAccounts (TokenRequest), and TokenReview."""

from __future__ import annotations

import datetime

import msgspec

from sandlane.kube.clock import Clock, timestamp
from sandlane.kube.resource import Key, Object
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver.auth.tokens import BOUND, ISSUER, Tokens
from sandlane.local.apiserver.auth.user import User
from sandlane.local.apiserver.body import check_fields, decode_body, decode_object, validation_mode
from sandlane.local.apiserver.kinds.field_errors import FieldError
from sandlane.local.apiserver.metadata import Randomness, new_uid
from sandlane.local.apiserver.request_info import RequestInfo
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import bad_request, conflict, invalid, not_found
from sandlane.local.apiserver.store.objects import ObjectStore

JSON = (("content-type", "application/json"),)
AUTHENTICATION = "authentication.k8s.io"
DEFAULT_SECONDS, LEAST_SECONDS, MOST_SECONDS = 3600, 600, 1 << 32


class TokenRequests:
    """Answers requests for tokens and about tokens. `handle` is one of the server's handlers."""

    def __init__(self, store: ObjectStore, clock: Clock, rng: Randomness, tokens: Tokens) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._tokens = tokens

    async def handle(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Response | None:
        """The answer, or None for anything else."""
        if info.verb != "create":
            return None
        where = (info.group, info.resource, info.subresource)
        if where == ("", "serviceaccounts", "token"):
            made = self._request(info, request, query.get("dryRun") == "All")
        elif where == (AUTHENTICATION, "tokenreviews", ""):
            decoded = decode_object(type_, request)
            check_fields(type_, decoded.obj, decoded.duplicates, validation_mode(query, info.verb), [])
            made = self._review(decoded.obj)
        else:
            return None
        return Response(201, JSON, msgspec.json.encode(made))

    def _request(self, info: RequestInfo, request: Request, dry_run: bool) -> Object:
        body = decode_body(request).obj
        if not isinstance(body, dict) or body.get("kind", "TokenRequest") != "TokenRequest":
            raise bad_request("the body is not a TokenRequest")
        spec = body.get("spec") or {}
        if not isinstance(spec, dict):
            raise bad_request("spec of the TokenRequest is not an object")
        account = self._read("serviceaccounts", info.namespace, info.name)
        seconds = spec.get("expirationSeconds")
        seconds = DEFAULT_SECONDS if seconds is None else seconds
        _check_seconds(info.name, seconds)
        audiences = list(spec.get("audiences") or [ISSUER])
        bound = self._bound(info, spec.get("boundObjectRef"))
        expires = self._clock.now() + datetime.timedelta(seconds=seconds)
        token = "" if dry_run else self._tokens.issue(account, audiences, seconds, new_uid(self._rng), bound)
        return {
            "kind": "TokenRequest",
            "apiVersion": f"{AUTHENTICATION}/v1",
            "metadata": {
                "name": info.name,
                "namespace": info.namespace,
                "uid": new_uid(self._rng),
                "creationTimestamp": timestamp(self._clock.now()),
            },
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef"),
            },
            "status": {"token": token, "expirationTimestamp": timestamp(expires)},
        }

    def _bound(self, info: RequestInfo, reference: Object | None) -> tuple[str, Object] | None:
        """The object that a token shall depend on. Raises `StatusError`."""
        if reference is None:
            return None
        kind, name = reference.get("kind", ""), reference.get("name", "")
        if kind not in BOUND or reference.get("apiVersion") != "v1":
            group, _, version = str(reference.get("apiVersion") or "").rpartition("/")
            raise bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        obj = self._read(BOUND[kind], "" if kind == "Node" else info.namespace, name)
        if kind == "Pod":
            account = (obj.get("spec") or {}).get("serviceAccountName") or "default"
            if account != info.name:
                why = f'cannot bind token for serviceaccount "{info.name}" to pod running with different serviceaccount name.'
                raise bad_request(why)
        uid = reference.get("uid")
        if uid and uid != obj["metadata"]["uid"]:
            why = f"the UID in the bound object reference ({uid}) does not match the UID in record. "
            why += "The object might have been deleted and then recreated"
            raise conflict("", BOUND[kind], name, why)
        return kind, obj

    def _read(self, plural: str, namespace: str, name: str) -> Object:
        stored = self._store.get(("", plural), Key(namespace, name))
        if stored is None:
            raise not_found("", plural, name)
        obj: Object = msgspec.json.decode(stored.data)
        return obj

    def _review(self, obj: Object) -> Object:
        spec = obj.get("spec") or {}
        token = spec.get("token")
        if not token or not isinstance(token, str):
            raise bad_request("token is required for TokenReview in authentication")
        wanted = spec.get("audiences") or [ISSUER]
        found = self._tokens.verify(token, wanted)
        status: Object = {"user": {}, "error": "invalid bearer token"}
        if found is not None:
            status = {"authenticated": True, "user": found.user.to_info(), "audiences": list(found.audiences)}
        return obj | {"status": status}


def _check_seconds(name: str, seconds: object) -> None:
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise bad_request("spec.expirationSeconds of the TokenRequest is not a number")
    detail = ""
    if seconds < LEAST_SECONDS:
        detail = "may not specify a duration less than 10 minutes"
    elif seconds > MOST_SECONDS:
        detail = "may not specify a duration larger than 2^32 seconds"
    if detail:
        error = FieldError("FieldValueInvalid", "spec.expirationSeconds", seconds, detail)
        raise invalid(AUTHENTICATION, "TokenRequest", "", [error])
