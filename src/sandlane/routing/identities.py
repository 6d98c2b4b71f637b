"""Gives routers and tunnel servers their certificates for the xDS server: one Secret each, made, renewed and removed.

Only the leader writes. A certificate is renewed after two thirds of its 90 days, and when whom it trusts has changed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

import msgspec
import structlog
from cryptography import x509

from sandlane.api.labels import MANAGED_BY, MANAGER
from sandlane.kube.apply import NotOwned
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import NotFound
from sandlane.kube.resource import SECRETS, Key, Object
from sandlane.routing.envoy.identity import identity_in, secret, uri
from sandlane.runtime.certificates import Certificates, SecretCertificates, due, issued, make_client
from sandlane.runtime.result import TransientError
from sandlane.runtime.signing import KeyPair

log = structlog.get_logger(__name__)

LOOK = 60.0
"""Seconds for which a Secret that was right is not read again."""
RENEWAL = 3600.0
"""Seconds after which somebody has to look whether a certificate is due."""


class _Known(msgspec.Struct, frozen=True):
    read: float
    bundle: bytes
    fingerprint: str


class Identities:
    """Keeps the Secrets that routers and tunnel servers show to the xDS server."""

    def __init__(self, client: Client, clock: Clock, authority: SecretCertificates) -> None:
        self._client = client
        self._clock = clock
        self._authority = authority
        self._known: dict[Key, _Known] = {}

    async def ensure(self, key: Key, identity: str, labels: Mapping[str, str]) -> str:
        """Make the Secret hold a good certificate for an identity; gives the certificate's fingerprint.

        Raises `NotOwned` when a stranger has the name, `TransientError` while there is no authority yet.
        """
        held = self._authority.held
        if held is None:
            raise TransientError("the xDS server has no certificate yet")
        now = self._clock.monotonic()
        known = self._known.get(key)
        if known is not None and known.bundle == held.bundle and now < known.read + LOOK:
            return known.fingerprint
        try:
            live: Object | None = await self._client.get(SECRETS, key.name, key.namespace)
        except NotFound:
            live = None
        if live is not None and (live["metadata"].get("labels") or {}).get(MANAGED_BY) != MANAGER:
            raise NotOwned(SECRETS, key, "")
        certificate = self._good(live, identity, held)
        if certificate is None:
            pair = make_client(held.ca, uri(identity), self._clock.now())
            certificate = pair.certificate
            await self._client.apply(SECRETS, secret(key.namespace, key.name, labels, pair, held.bundle))
            log.info("certificate_issued", secret=str(key), identity=identity)
        fingerprint = hashlib.sha256(certificate + held.bundle).hexdigest()[:16]
        self._known[key] = _Known(now, held.bundle, fingerprint)
        return fingerprint

    async def remove(self, key: Key) -> None:
        """Delete a Secret."""
        self._known.pop(key, None)
        try:
            await self._client.delete(SECRETS, key.name, key.namespace)
        except NotFound:
            pass

    def _good(self, live: Object | None, identity: str, held: Certificates) -> bytes | None:
        """The certificate that a Secret holds, if it can stay."""
        data = (live or {}).get("data") or {}
        try:
            pair = KeyPair(base64.b64decode(data["tls.crt"]), base64.b64decode(data["tls.key"]))
            certificate = pair.parsed
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = [each.encode() for each in names.get_values_for_type(x509.UniformResourceIdentifier)]
            trusted = x509.load_pem_x509_certificates(held.bundle)
            good = (
                base64.b64decode(data["ca.crt"]) == held.bundle
                and {"identity.json", "trust.json"} <= data.keys()
                and identity_in(uris) == identity
                and any(issued(certificate, ca) for ca in trusted)
                and not due(pair, self._clock.now())
            )
        except (KeyError, ValueError, TypeError, x509.ExtensionNotFound):
            return None
        return pair.certificate if good else None
