"""Who may hold a tunnel: a short-lived client certificate that names one LocalWorkload by its uid, and one client of it.

The certificate's DNS name is `<session>.<uid>`, the tunnel's identity; its URI is `urn:uuid:<uid>`. Nothing that the laptop writes
into the handshake counts beside it. The laptop makes the key, chooses a session for as long as it runs, and asks with a certificate
signing request (signer `sandlane.dev/tunnel`); the manager signs it after a SubjectAccessReview.

What the laptop can learn of its standing: a denied request says why in its condition's message. A handshake that is refused for good
is a 403 whose `x-sandlane-reason` is `REVOKED`, or `TAKEN_OVER`, with the new client's user in `DETAIL_HEADER`. And the LocalWorkload's
`status.connection` has the session that holds it, and its user: another session there than one's own is the notice of a takeover.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandlane.runtime import signing
from sandlane.runtime.signing import CLIENT, KeyPair, PublicKey, subject_of

SIGNER = "sandlane.dev/tunnel"
RENEWAL = "sandlane.dev/renewal"
"""Annotation of a signing request that renews: it never takes a LocalWorkload over from another session."""
TAKEN_OVER = "taken-over"
REVOKED = "revoked"
DETAIL_HEADER = "x-sandlane-detail"
"""On a refused handshake: the reason in words, for the user."""
_NAME = re.compile(r"([0-9a-f]{8,32})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


class Claim(NamedTuple):
    """One client (`session`: 8 to 32 hexadecimal digits) of the LocalWorkload with a uid."""

    session: str
    uid: str

    @property
    def identity(self) -> str:
        """The tunnel's name among all tunnels."""
        return f"{self.session}.{self.uid}"

    @property
    def workload(self) -> str:
        """The LocalWorkload, as the certificate's URI names it."""
        return f"urn:uuid:{self.uid}"


class IdentityError(ValueError):
    """A certificate signing request that is not one of a tunnel; the message says why."""


def signing_request(key: ec.EllipticCurvePrivateKey, claim: Claim) -> bytes:
    """A PEM certificate signing request for a client's tunnel."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject_of(claim.uid))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(claim.identity)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def requested(pem: bytes) -> Claim:
    """What a signing request asks for. Raises `IdentityError` if it is not exactly one session of one uid."""
    try:
        request = x509.load_pem_x509_csr(pem)
    except ValueError as error:
        raise IdentityError(f"not a PEM certificate signing request: {error}") from error
    if not request.is_signature_valid:
        raise IdentityError("the request is not signed by its own key")
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise IdentityError("the request names no DNS name; it must be SESSION.UID, of the LocalWorkload") from None
    dns = names.get_values_for_type(x509.DNSName)
    found = _NAME.fullmatch(dns[0]) if len(dns) == 1 and len(list(names)) == 1 else None
    if found is None:
        raise IdentityError("the request must name exactly one DNS name, SESSION.UID of the LocalWorkload")
    return Claim(found[1], found[2])


def sign(pem: bytes, ca: KeyPair, now: datetime, lifetime: timedelta) -> bytes:
    """A PEM client certificate for a signing request, valid for `lifetime`.

    Raises `IdentityError` as `requested` does; nothing of the request but its key and the claim is taken over.
    """
    claim = requested(pem)
    key = x509.load_pem_x509_csr(pem).public_key()
    if not isinstance(key, PublicKey):
        raise IdentityError(f"keys of the kind {type(key).__name__} are not signed")
    names = [x509.DNSName(claim.identity), x509.UniformResourceIdentifier(claim.workload)]
    return signing.sign(ca, key, subject_of(claim.uid), names, [CLIENT], now, lifetime)
