"""Who may hold a tunnel: a short-lived client certificate that names one LocalWorkload by its uid.

The certificate's DNS name is `<uid>`; nothing that the laptop writes into the handshake counts beside it. The laptop
makes the key and a certificate signing request (signer `sandlane.dev/tunnel`); the manager signs it after a
SubjectAccessReview.
"""

from __future__ import annotations

import datetime
import re

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SIGNER = "sandlane.dev/tunnel"
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class IdentityError(ValueError):
    """A certificate signing request that is not one of a tunnel; the message says why."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(key: ec.EllipticCurvePrivateKey, uid: str) -> bytes:
    """A PEM certificate signing request for the tunnel of the LocalWorkload with this uid."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uid)]))
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


def sign(
    pem: bytes,
    ca_certificate: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
    serial: int,
) -> bytes:
    """A PEM client certificate for a signing request, valid from five minutes ago (clocks differ) for `lifetime`.

    Raises `IdentityError` as `requested_uid` does; nothing of the request but its key and the uid is taken over.
    """
    uid = requested_uid(pem)
    request = x509.load_pem_x509_csr(pem)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uid)]))
        .issuer_name(ca_certificate.subject)
        .public_key(request.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(uid)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
