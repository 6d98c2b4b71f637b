"""Signs the certificates of API clients: approved CertificateSigningRequests of the signer `kubernetes.io/kube-apiserver-client`.

A request that the signer does not take (bad signature, other usages, the group `system:masters`) gets the condition Failed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from datetime import timedelta

import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from sandlane.kube.clock import Clock, timestamp
from sandlane.kube.resource import Key, Object
from sandlane.local.apiserver.auth.user import MASTERS
from sandlane.local.apiserver.pki import ClusterPki
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.resource_type import StorageKey
from sandlane.local.apiserver.status import StatusError
from sandlane.local.apiserver.store.objects import Event, ObjectStore
from sandlane.local.apiserver.writer import Write, Writer
from sandlane.runtime.signing import PublicKey

log = structlog.get_logger(__name__)

SIGNER = "kubernetes.io/kube-apiserver-client"
STORAGE: StorageKey = ("certificates.k8s.io", "certificatesigningrequests")
USAGES = frozenset({"digital signature", "key encipherment", "client auth"})
LONGEST = timedelta(days=365)
_LEAST_RSA_BITS = 2048


class RefusedRequest(ValueError):
    """A request that is approved but cannot be signed."""


class ClientSigner:
    """Watches the store for approved requests. `run` signs until it is cancelled."""

    def __init__(self, store: ObjectStore, registry: Registry, writer: Writer, pki: ClusterPki, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._writer = writer
        self._pki = pki
        self._clock = clock
        self._waiting = dict.fromkeys(key.name for key, _ in store.list(STORAGE))
        self._woken = asyncio.Event()
        if self._waiting:
            self._woken.set()
        store.on_write.append(self._written)

    async def run(self) -> None:
        """Sign what is approved, as it comes."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                name = next(iter(self._waiting))
                del self._waiting[name]
                try:
                    await self._sign(name)
                except StatusError as error:  # deleted meanwhile, or no space: the next change of it tries again
                    log.warning("client_certificate_not_written", name=name, error=error.message)

    def _written(self, storage: StorageKey, event: Event) -> None:
        if storage == STORAGE and event.after is not None:
            self._waiting[event.key.name] = None
            self._woken.set()

    async def _sign(self, name: str) -> None:
        stored = self._store.get(STORAGE, Key("", name))
        type_ = self._registry.get(STORAGE[0], "v1", STORAGE[1])
        if stored is None or type_ is None or not is_due(msgspec.json.decode(stored.data)):
            return

        async def signed(old: Object) -> Object:
            if is_due(old):
                self._answer(old)
            return old

        write = Write(type_, "", name, "status", "update", manager="kube-controller-manager")
        await self._writer.modify(write, signed)
        log.info("client_certificate_decided", name=name)

    def _answer(self, obj: Object) -> None:
        """Put a certificate into the status, or why there is none."""
        status = obj.setdefault("status", {})
        now = self._clock.now()
        try:
            key, user, groups = read_request(obj["spec"])
        except RefusedRequest as error:
            failed = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": str(error)}
            times = {"lastUpdateTime": timestamp(now), "lastTransitionTime": timestamp(now)}
            status.setdefault("conditions", []).append(failed | times)
            return
        seconds = obj["spec"].get("expirationSeconds")
        lifetime = min(timedelta(seconds=seconds), LONGEST) if seconds else LONGEST
        days = lifetime / timedelta(days=1)
        pem = self._pki.sign(key, user, groups, server=False, days=days, now=now)
        status["certificate"] = base64.b64encode(pem).decode()


def is_due(obj: Object) -> bool:
    """Whether a request waits for this signer: approved, and neither signed nor denied nor failed."""
    status = obj.get("status") or {}
    kinds = {condition["type"] for condition in status.get("conditions") or () if condition.get("status") == "True"}
    refused = kinds & {"Denied", "Failed"}
    return (
        obj["spec"].get("signerName") == SIGNER and "Approved" in kinds and not refused and "certificate" not in status
    )


def read_request(spec: Object) -> tuple[PublicKey, str, tuple[str, ...]]:
    """Key, user and groups that a request asks for. Raises `RefusedRequest`."""
    usages = set(spec.get("usages") or ())
    if "client auth" not in usages or not usages <= USAGES:
        raise RefusedRequest(f"usages must be among {', '.join(sorted(USAGES))} and include client auth")
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(spec["request"], validate=True))
        valid = request.is_signature_valid
        key = request.public_key()
    except (ValueError, binascii.Error, UnsupportedAlgorithm, InvalidSignature) as error:
        raise RefusedRequest(f"the request cannot be read: {error}") from error
    if not valid:
        raise RefusedRequest("the request is not signed with its own key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        raise RefusedRequest(f"RSA keys need at least {_LEAST_RSA_BITS} bits")
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise RefusedRequest(f"keys of the kind {type(key).__name__} are not signed")
    names = [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = tuple(str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    if not names or not names[0]:
        raise RefusedRequest("the subject has no common name")
    if MASTERS in groups:
        raise RefusedRequest(f"the group {MASTERS} is not given away")
    return key, names[0], groups
