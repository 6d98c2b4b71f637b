"""X.509 certificates of authorities and of those whom they vouch for, with all that strict verifiers ask for.

Rules: RFC 5280, sections 4.2.1.1 to 4.2.1.3 and 4.2.1.9; Python 3.13 and newer verify them. Keys are P-256.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
CA_LIFE = timedelta(days=3650)
BACKDATED = timedelta(minutes=5)
"""Clocks differ."""


class KeyPair(msgspec.Struct, frozen=True):
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes

    @property
    def parsed(self) -> x509.Certificate:
        """The (first) certificate."""
        return x509.load_pem_x509_certificate(self.certificate)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def subject_of(name: str, organizations: Iterable[str] = ()) -> x509.Name:
    """A subject; of the name only the first 64 characters, the most that X.520 allows."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]
    return x509.Name(attributes + [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations])


def make_ca(name: str, now: datetime, life: timedelta = CA_LIFE) -> KeyPair:
    """A certificate authority, signed by itself."""
    key, subject = new_key(), subject_of(name)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(subject, subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return KeyPair(_pem(builder.sign(key, hashes.SHA256())), key_pem(key))


def sign(
    ca: KeyPair,
    key: PublicKey,
    subject: x509.Name,
    names: Iterable[x509.GeneralName],
    usages: Iterable[x509.ObjectIdentifier],
    now: datetime,
    life: timedelta,
) -> bytes:
    """A certificate for somebody's key as PEM, signed by a CA, good from a little before `now`."""
    signer = serialization.load_pem_private_key(ca.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        _builder(subject, ca.parsed.subject, key, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(issuer, critical=False)
    )
    if names := list(names):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pem(builder.sign(signer, hashes.SHA256()))


def make_pair(
    ca: KeyPair,
    subject: x509.Name,
    names: Iterable[x509.GeneralName],
    usages: Iterable[x509.ObjectIdentifier],
    now: datetime,
    life: timedelta,
) -> KeyPair:
    """A certificate as `sign` makes it, for a fresh key."""
    key = new_key()
    return KeyPair(sign(ca, key.public_key(), subject, names, usages, now, life), key_pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        key_cert_sign=sign,
        crl_sign=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
