"""Signs the certificates of laptops: requests for the signer `sandlane.dev/tunnel`, after asking whether the user may connect.

The user must have the verb `connect` on the very LocalWorkload (`localworkloads` in `sandlane.dev`); nobody can ask for another one's.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta

import structlog

from sandlane.kube.clock import timestamp
from sandlane.kube.resource import CERTIFICATE_SIGNING_REQUESTS, SUBJECT_ACCESS_REVIEWS, Object
from sandlane.kube.unstructured import Unstructured
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result
from sandlane.tunnel.authority import Authority
from sandlane.tunnel.identity import SIGNER, IdentityError, requested_uid
from sandlane.world.records import LocalWorkload
from sandlane.world.world import World

log = structlog.get_logger(__name__)

DEFAULT_LIFETIME = timedelta(hours=1)
LONGEST = timedelta(hours=24)


class TunnelSigner:
    """A controller over CertificateSigningRequests of one signer."""

    def __init__(self, manager: Manager, world: World, authority: Callable[[], Authority]) -> None:
        self._world = world
        self._authority = authority
        self._client = manager.client
        self._clock = manager.clock
        self._requests = manager.cache.informer(CERTIFICATE_SIGNING_REQUESTS, Unstructured)
        self.clients: dict[str, str] = {}
        """Identity -> the user whose certificate was last signed."""

    def setup_with_manager(self, manager: Manager) -> Controller:
        """Say who wakes it."""
        return (
            Controller.managed_by(manager)
            .named("tunnelsigner")
            .for_(CERTIFICATE_SIGNING_REQUESTS, Unstructured)
            .complete(self)
        )

    async def reconcile(self, request: Request) -> Result:
        """Sign or deny one request."""
        record = self._requests.store.get(request)
        if record is None:
            return Result.done()
        obj = record.object()
        spec, status = obj["spec"], obj.get("status") or {}
        if spec.get("signerName") != SIGNER or status.get("certificate"):
            return Result.done()
        conditions = status.get("conditions") or []
        if any(condition["type"] in ("Denied", "Failed") for condition in conditions):
            return Result.done()
        pem = base64.b64decode(spec["request"])
        problem, local = await self._problem(spec, pem)
        if problem or local is None:
            await self._decide(obj, "Denied", "NotAllowed", problem)
            log.warning("tunnel_certificate_denied", name=request.name, user=spec.get("username"), why=problem)
            return Result.done()
        if not any(condition["type"] == "Approved" for condition in conditions):
            obj = await self._decide(obj, "Approved", "MayConnect", "the user may connect to this LocalWorkload")
        seconds = spec.get("expirationSeconds")
        lifetime = min(timedelta(seconds=seconds), LONGEST) if seconds else DEFAULT_LIFETIME
        certificate = self._authority().sign_laptop(pem, self._clock.now(), lifetime)
        self.clients[local.metadata.uid] = spec.get("username", "")
        obj["status"] = {**(obj.get("status") or {}), "certificate": base64.b64encode(certificate).decode()}
        await self._client.replace(CERTIFICATE_SIGNING_REQUESTS, obj, subresource="status")
        log.info("tunnel_certificate_signed", name=request.name, user=spec.get("username"))
        return Result.done()

    async def _problem(self, spec: Object, pem: bytes) -> tuple[str, LocalWorkload | None]:
        """Why the request is denied, or the LocalWorkload that it is for."""
        try:
            uid = requested_uid(pem)
        except IdentityError as error:
            return str(error), None
        local = next((each for each in self._world.local_workloads if each.metadata.uid == uid), None)
        if local is None or local.metadata.deleting:
            return f"there is no LocalWorkload with uid {uid}", None
        attributes = {
            "group": "sandlane.dev",
            "resource": "localworkloads",
            "verb": "connect",
            "namespace": local.metadata.namespace,
            "name": local.metadata.name,
        }
        review = {
            "apiVersion": SUBJECT_ACCESS_REVIEWS.api_version,
            "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.get("username", ""),
                "groups": spec.get("groups") or [],
                "uid": spec.get("uid", ""),
                "extra": spec.get("extra") or {},
                "resourceAttributes": attributes,
            },
        }
        answer = await self._client.create(SUBJECT_ACCESS_REVIEWS, {**review, "metadata": {}})
        if not (answer.get("status") or {}).get("allowed"):
            who = spec.get("username") or "the requester"
            return f"{who} has not the verb connect on localworkloads {local.metadata.key}", None
        return "", local

    async def _decide(self, obj: Object, kind: str, reason: str, message: str) -> Object:
        now = timestamp(self._clock.now())
        condition = {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastUpdateTime": now,
            "lastTransitionTime": now,
        }
        conditions = [*((obj.get("status") or {}).get("conditions") or []), condition]
        obj = {**obj, "status": {**(obj.get("status") or {}), "conditions": conditions}}
        return await self._client.replace(CERTIFICATE_SIGNING_REQUESTS, obj, subresource="approval")
