"""Signs the certificates of laptops: requests for the signer `sandlane.dev/tunnel`, after asking whether the user may connect.

The user must have the verb `connect` on the very LocalWorkload (`localworkloads` in `sandlane.dev`); nobody can ask for another one's.
Who is given a certificate holds the LocalWorkload from then on: that is in its status before the certificate is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta

import msgspec
import structlog

from sandlane.kube.clock import timestamp
from sandlane.kube.resource import CERTIFICATE_SIGNING_REQUESTS, LOCAL_WORKLOADS, SUBJECT_ACCESS_REVIEWS, Object
from sandlane.kube.unstructured import Unstructured
from sandlane.localworkload.holding import Refused, hold
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.recorder import WARNING
from sandlane.runtime.result import Request, Result
from sandlane.runtime.status import write_status
from sandlane.tunnel.authority import Authority
from sandlane.tunnel.identity import RENEWAL, SIGNER, Claim, IdentityError, requested
from sandlane.world.records import LocalWorkload
from sandlane.world.world import World

log = structlog.get_logger(__name__)

DEFAULT_LIFETIME = timedelta(hours=1)
LONGEST = timedelta(hours=24)


class TunnelSigner:
    """A controller over CertificateSigningRequests of one signer."""

    def __init__(self, manager: Manager, world: World, authority: Callable[[], Authority | None]) -> None:
        self._world = world
        self._authority = authority
        self._client = manager.client
        self._cache = manager.cache
        self._clock = manager.clock
        self._recorder = manager.recorder
        self._requests = manager.cache.informer(CERTIFICATE_SIGNING_REQUESTS, Unstructured)

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
        authority = self._authority()
        if authority is None:
            return Result.requeue_after(0.2)
        pem = base64.b64decode(spec["request"])
        try:
            claim = requested(pem)
            local = await self._allowed(spec, claim)
            await self._hold(local, obj, claim)
        except (IdentityError, Refused) as refusal:
            await self._decide(obj, "Denied", "NotAllowed", str(refusal))
            log.warning("tunnel_certificate_denied", name=request.name, user=spec.get("username"), why=str(refusal))
            return Result.done()
        if not any(condition["type"] == "Approved" for condition in conditions):
            obj = await self._decide(obj, "Approved", "MayConnect", "the user may connect to this LocalWorkload")
        seconds = spec.get("expirationSeconds")
        lifetime = min(timedelta(seconds=seconds), LONGEST) if seconds else DEFAULT_LIFETIME
        certificate = authority.sign_laptop(pem, self._clock.now(), lifetime)
        obj["status"] = {**(obj.get("status") or {}), "certificate": base64.b64encode(certificate).decode()}
        signed = await self._client.replace(CERTIFICATE_SIGNING_REQUESTS, obj, subresource="status")
        self._cache.observe(CERTIFICATE_SIGNING_REQUESTS, signed)
        log.info("tunnel_certificate_signed", name=request.name, user=spec.get("username"))
        return Result.done()

    async def _allowed(self, spec: Object, claim: Claim) -> LocalWorkload:
        """The LocalWorkload that a request is for. Raises `Refused` when there is none, or its user may not connect."""
        local = next((each for each in self._world.local_workloads if each.metadata.uid == claim.uid), None)
        if local is None or local.metadata.deleting:
            raise Refused(f"there is no LocalWorkload with uid {claim.uid}")
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
            raise Refused(f"{who} has not the verb connect on localworkloads {local.metadata.key}")
        return local

    async def _hold(self, local: LocalWorkload, obj: Object, claim: Claim) -> None:
        """Let the client hold the LocalWorkload. Raises `Refused` when another one does."""
        user, before = obj["spec"].get("username", ""), local.status.connection
        renewal = (obj["metadata"].get("annotations") or {}).get(RENEWAL) == "true"
        try:
            connection = hold(before, user, claim.session, self._clock.now(), renewal=renewal)
        except Refused as refusal:
            message = f"{user or 'somebody'} may not connect to {local.metadata.name}: {refusal}"
            self._recorder.event(LOCAL_WORKLOADS, local.metadata, "Refused", message, kind=WARNING)
            raise Refused(f"LocalWorkload {local.metadata.key}: {refusal}") from refusal
        if connection == before:
            return
        status = msgspec.structs.replace(local.status, connection=connection)
        written = await write_status(self._client, LOCAL_WORKLOADS, local.metadata, status)
        self._cache.observe(LOCAL_WORKLOADS, written)
        if before is not None and before.tunnels:
            message = f"a new client of {user} takes over from {before.client} at {before.remote_address or 'a laptop'}"
            self._recorder.event(LOCAL_WORKLOADS, local.metadata, "TakenOver", message)

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
        decided = await self._client.replace(CERTIFICATE_SIGNING_REQUESTS, obj, subresource="approval")
        self._cache.observe(CERTIFICATE_SIGNING_REQUESTS, decided)
        return decided
