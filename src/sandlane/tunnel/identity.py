"""Who may hold a tunnel: a short-lived client certificate that names one LocalWorkload by its uid.

The certificate's DNS name is `<uid>`; nothing that the laptop writes into the handshake counts beside it. The laptop
makes the key and a certificate signing request (signer `sandlane.dev/tunnel`); the manager signs it after a
SubjectAccessReview.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandlane.runtime import signing
from sandlane.runtime.signing import CLIENT, KeyPair, PublicKey, subject_of

SIGNER = "sandlane.dev/tunnel"
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class IdentityError(ValueError):
    """A certificate signing request that is not one of a tunnel; the message says why."""


def signing_request(key: ec.EllipticCurvePrivateKey, uid: str) -> bytes:
    """A PEM certificate signing request for the tunnel of the LocalWorkload with this uid."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject_of(uid))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(uid)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def requested_uid(pem: bytes) -> str:
    """The uid that a signing request asks for. Raises `IdentityError` if it is not exactly one uid."""
    try:
        request = x509.load_pem_x509_csr(pem)
    except ValueError as error:
        raise IdentityError(f"not a PEM certificate signing request: {error}") from error
    if not request.is_signature_valid:
        raise IdentityError("the request is not signed by its own key")
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise IdentityError("the request names no DNS name; it must be the LocalWorkload's uid") from None
    dns = names.get_values_for_type(x509.DNSName)
    if len(list(names)) != 1 or len(dns) != 1 or not _UID.fullmatch(dns[0]):
        raise IdentityError("the request must name exactly one DNS name, the LocalWorkload's uid")
    return dns[0]


def sign(pem: bytes, ca: KeyPair, now: datetime, lifetime: timedelta) -> bytes:
    """A PEM client certificate for a signing request, valid for `lifetime`.

    Raises `IdentityError` as `requested_uid` does; nothing of the request but its key and the uid is taken over.
    """
    uid = requested_uid(pem)
    key = x509.load_pem_x509_csr(pem).public_key()
    if not isinstance(key, PublicKey):
        raise IdentityError(f"keys of the kind {type(key).__name__} are not signed")
    return signing.sign(ca, key, subject_of(uid), [x509.DNSName(uid)], [CLIENT], now, lifetime)
