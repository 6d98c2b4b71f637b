"""Certificates of the webhook server: an own CA and serving certificate in a Secret, or files that somebody else renews.

Every replica serves what the Secret holds; the leader makes and renews it. A new certificate is loaded into the running
server's TLS context: connections that are open go on, new ones get it. When the CA is renewed, the bundle holds old and
new, and the serving certificate stays with the old CA until its own renewal, weeks later: callers know the new CA by then.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
import tempfile
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from sandlane.kube.resource import SECRETS, Object
from sandlane.runtime.signing import CLIENT, SERVER, KeyPair, make_ca, make_pair, subject_of

log = structlog.get_logger(__name__)

LIFE = timedelta(days=90)
RENEW = 2 / 3
"""The part of its life after which a certificate is renewed."""
LOOK = 60.0
SOON = 2.0


class Certificates(msgspec.Struct, frozen=True):
    """What a server needs: its pair, the CA that signs the next one, and the bundle that its callers are to trust."""

    serving: KeyPair
    ca: KeyPair
    bundle: bytes


def make_serving(ca: KeyPair, names: Iterable[str], now: datetime) -> KeyPair:
    """A serving certificate for DNS names and IP addresses, signed by a CA."""
    names = list(names)
    return make_pair(ca, subject_of(names[0]), [_general(name) for name in names], [SERVER], now, LIFE)


def make_client(ca: KeyPair, uri: str, now: datetime) -> KeyPair:
    """A client certificate that names its holder by a URI, signed by a CA."""
    return make_pair(ca, subject_of("client"), [x509.UniformResourceIdentifier(uri)], [CLIENT], now, LIFE)


def renewed(old: Certificates | None, ca_name: str, names: Iterable[str], now: datetime) -> Certificates:
    """What should be served now: `old` itself while it is good, otherwise with what is due made anew."""
    names = list(names)
    if old is None:
        ca = make_ca(ca_name, now)
        return Certificates(make_serving(ca, names, now), ca, ca.certificate)
    ca, bundle = old.ca, old.bundle
    if due(ca, now):
        ca = make_ca(ca_name, now)
        trusted = [c for c in x509.load_pem_x509_certificates(old.bundle) if c.not_valid_after_utc > now]
        bundle = ca.certificate + b"".join(c.public_bytes(serialization.Encoding.PEM) for c in trusted)
    good = _covers(old.serving, names) and not due(old.serving, now)
    if good and ca is old.ca:
        return old
    return Certificates(old.serving if good else make_serving(ca, names, now), ca, bundle)


class SecretCertificates:
    """Certificates in a Secret, made and renewed by whoever may write."""

    def __init__(self, client: Client, clock: Clock, *, namespace: str, name: str, names: Iterable[str]) -> None:
        self.context = server_context()
        self.bundle = b""
        self.held: Certificates | None = None
        """What the Secret holds, as far as it is known."""
        self._client, self._clock = client, clock
        self._namespace, self._name = namespace, name
        self._names = list(names)
        self._loaded: KeyPair | None = None
        self._listeners: list[Callable[[bytes], None]] = []

    @property
    def ready(self) -> bool:
        """Whether there is a certificate to serve with."""
        return self._loaded is not None

    @property
    def expires(self) -> datetime | None:
        """When the certificate in use expires."""
        return self._loaded.parsed.not_valid_after_utc if self._loaded else None

    def on_bundle(self, listener: Callable[[bytes], None]) -> None:
        """Call `listener` with each new bundle."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Keep the server's certificate good until cancelled."""
        while True:
            try:
                await self.refresh()
            except KubeError as error:
                log.info("certificate_not_renewed", secret=self._name, error=str(error))
            await self._clock.sleep(LOOK if self.ready else SOON)

    async def refresh(self) -> None:
        """Read the Secret, renew what is due, serve what it holds. Raises `KubeError`."""
        try:
            secret: Object | None = await self._client.get(SECRETS, self._name, self._namespace)
        except NotFound:
            secret = None
        old = _read(secret)
        if old is not None:
            self._serve(old)  # also if it is due: better than nothing until it is renewed
        new = renewed(old, f"{self._name} CA", self._names, self._clock.now())
        if new is old:
            return
        try:
            await self._write(secret, new)
        except (AlreadyExists, Conflict):
            return  # another one was faster: its certificate is read next time
        log.info("certificate_renewed", secret=self._name, expires=str(new.serving.parsed.not_valid_after_utc))
        self._serve(new)

    async def _write(self, secret: Object | None, new: Certificates) -> None:
        files = {
            "ca.crt": new.bundle,
            "ca.key": new.ca.key,
            "tls.crt": new.serving.certificate,
            "tls.key": new.serving.key,
        }
        data = {name: base64.b64encode(content).decode() for name, content in files.items()}
        if secret is not None:
            await self._client.replace(SECRETS, secret | {"data": data})
            return
        metadata = {"name": self._name, "namespace": self._namespace}
        body = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data}
        await self._client.create(SECRETS, body)

    def _serve(self, certificates: Certificates) -> None:
        self.held = certificates
        if certificates.serving != self._loaded:
            load_pair(self.context, certificates.serving)
            self._loaded = certificates.serving
        if certificates.bundle != self.bundle:
            self.bundle = certificates.bundle
            for listener in self._listeners:
                listener(self.bundle)


class FileCertificates:
    """`tls.crt` and `tls.key` (and perhaps `ca.crt`) in a folder, as cert-manager mounts them; read again when changed."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.context = server_context()
        self.bundle = b""
        self._folder, self._clock = folder, clock
        self._loaded: KeyPair | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a certificate to serve with."""
        return self._loaded is not None

    @property
    def expires(self) -> datetime | None:
        """When the certificate in use expires."""
        return self._loaded.parsed.not_valid_after_utc if self._loaded else None

    def on_bundle(self, listener: Callable[[bytes], None]) -> None:
        """Whoever renews the files tells the callers: nothing is injected."""

    async def run(self) -> None:
        """Follow the files until cancelled."""
        while True:
            self.refresh()
            await self._clock.sleep(10.0)

    def refresh(self) -> None:
        """Read the files; a pair that cannot be used is logged, and the last good one stays."""
        try:
            pair = KeyPair((self._folder / "tls.crt").read_bytes(), (self._folder / "tls.key").read_bytes())
            if pair != self._loaded:
                load_pair(self.context, pair)
                self._loaded = pair
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            log.error("certificate_files_unusable", folder=str(self._folder), error=str(error))


def server_context() -> ssl.SSLContext:
    """TLS for a server; a certificate is loaded later."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Serve new connections with this certificate. Raises `ssl.SSLError`."""
    with tempfile.NamedTemporaryFile() as file:  # 0600; the ssl module only loads from files
        file.write(pair.certificate + b"\n" + pair.key)
        file.flush()
        context.load_cert_chain(file.name)


def _read(secret: Object | None) -> Certificates | None:
    """The certificates of a Secret, or None when there are none that can be used."""
    data = (secret or {}).get("data") or {}
    try:
        parts = [base64.b64decode(data[name]) for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")]
        found = Certificates(KeyPair(parts[2], parts[3]), KeyPair(parts[0], parts[1]), parts[0])
        trusted = x509.load_pem_x509_certificates(parts[0])
        load_pair(server_context(), found.serving)
        if not any(issued(found.serving.parsed, ca) for ca in trusted):
            return None
    except (KeyError, ValueError, OSError, TypeError):
        return None
    only = trusted[0].public_bytes(serialization.Encoding.PEM)
    return msgspec.structs.replace(found, ca=KeyPair(only, parts[1]))


def due(pair: KeyPair, now: datetime) -> bool:
    """Whether it is time to make a certificate anew."""
    certificate = pair.parsed
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= start + (end - start) * RENEW


def issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether a CA has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _covers(pair: KeyPair, names: list[str]) -> bool:
    held = pair.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(held) == {_general(name) for name in names}


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
