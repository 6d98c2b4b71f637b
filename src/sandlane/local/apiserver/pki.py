"""The cluster's certificate authority, its serving certificate and tokens, kept in the data directory (0600)."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
YEARS = 10
SERVING_DAYS = 365


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class ClusterPki:
    """The authority and what it has signed. Made at the first start, read again later."""

    def __init__(self, folder: Path, now: datetime.datetime) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._now = now
        certificate, key = folder / "ca.crt", folder / "ca.key"
        if not (certificate.exists() and key.exists()):
            self._make_authority(certificate, key)
        self.ca_pem = certificate.read_bytes()
        self.ca = x509.load_pem_x509_certificate(self.ca_pem)
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self.ca_key = loaded

    def serving_context(self, *hosts: str) -> ssl.SSLContext:
        """TLS for a server at these IP addresses; clients may show certificates of the authority."""
        certificate, key = self._folder / "server.crt", self._folder / "server.key"
        if not self._is_good(certificate, hosts):
            made = ec.generate_private_key(ec.SECP256R1())
            names = [
                *(x509.DNSName(name) for name in ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")),
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in sorted({*hosts, "127.0.0.1"})),
            ]  # fmt: skip
            signed = self.sign(made.public_key(), "kube-apiserver", (), names, server=True, days=SERVING_DAYS)
            write_private(certificate, signed)
            write_private(key, key_pem(made))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(cadata=self.ca_pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        return context

    def sign(
        self,
        public_key: PublicKey,
        name: str,
        groups: tuple[str, ...],
        names: list[x509.GeneralName] | None = None,
        *,
        server: bool,
        days: float,
        now: datetime.datetime | None = None,
    ) -> bytes:
        """A certificate as PEM, good from `now` (the start of this process, if not given)."""
        now = now or self._now
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        subject += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.ca.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _make_authority(self, certificate: Path, key: Path) -> None:
        made = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sandlane-local")])
        signed = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(made.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - datetime.timedelta(minutes=5))
            .not_valid_after(self._now + datetime.timedelta(days=365 * YEARS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(made, hashes.SHA256())
        )
        write_private(key, key_pem(made))
        write_private(certificate, signed.public_bytes(serialization.Encoding.PEM))

    def _is_good(self, path: Path, hosts: tuple[str, ...]) -> bool:
        if not path.exists():
            return False
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        if certificate.not_valid_after_utc < self._now + datetime.timedelta(days=30):
            return False
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return {ipaddress.ip_address(host) for host in hosts} <= set(names.get_values_for_type(x509.IPAddress))


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
