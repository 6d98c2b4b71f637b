"""The cluster's certificate authority, its serving certificate and tokens, kept in the data directory (0600)."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509

from sandlane.runtime import signing
from sandlane.runtime.signing import CLIENT, SERVER, KeyPair, PublicKey, key_pem, make_ca, new_key, subject_of

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
            made = make_ca("sandlane-local", now)
            write_private(key, made.key)
            write_private(certificate, made.certificate)
        self.ca = KeyPair(certificate.read_bytes(), key.read_bytes())

    @property
    def ca_pem(self) -> bytes:
        """The authority's certificate."""
        return self.ca.certificate

    def serving_context(self, *hosts: str) -> ssl.SSLContext:
        """TLS for a server at these IP addresses; clients may show certificates of the authority."""
        certificate, key = self._folder / "server.crt", self._folder / "server.key"
        if not self._is_good(certificate, hosts):
            made = new_key()
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
        return signing.sign(
            self.ca,
            public_key,
            subject_of(name, groups),
            names or (),
            [SERVER if server else CLIENT],
            now or self._now,
            datetime.timedelta(days=days),
        )

    def _is_good(self, path: Path, hosts: tuple[str, ...]) -> bool:
        if not path.exists():
            return False
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        if certificate.not_valid_after_utc < self._now + datetime.timedelta(days=30):
            return False
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return {ipaddress.ip_address(host) for host in hosts} <= set(names.get_values_for_type(x509.IPAddress))
