"""Certificates of the tunnel: one authority per cluster, kept in a Secret; pairs for tunnel servers and routers."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandlane.api.labels import MANAGED_BY, MANAGER
from sandlane.kube.client import Client
from sandlane.kube.errors import AlreadyExists, NotFound
from sandlane.kube.resource import SECRETS, Object
from sandlane.runtime.certificates import KeyPair, make_ca
from sandlane.tunnel import identity
from sandlane.tunnel.bootstrap import ROUTER_NAME, SERVER_NAME

SECRET = "sandlane-tunnel-ca"
PAIR_LIFE = timedelta(days=30)


class Authority:
    """The authority of a cluster, and what it signs."""

    def __init__(self, ca: KeyPair) -> None:
        self.ca = ca
        key = serialization.load_pem_private_key(ca.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def sign_laptop(self, request: bytes, now: datetime, lifetime: timedelta) -> bytes:
        """A laptop's certificate for its signing request. Raises `identity.IdentityError`."""
        serial = x509.random_serial_number()
        return identity.sign(request, self.ca.parsed, self._key, now, lifetime, serial)

    def server_pair(self, now: datetime) -> KeyPair:
        """For the tunnel servers."""
        return self._pair(SERVER_NAME, now)

    def router_pair(self, now: datetime) -> KeyPair:
        """For the routers: only this name may send requests into tunnels."""
        return self._pair(ROUTER_NAME, now)

    def _pair(self, name: str, now: datetime) -> KeyPair:
        key = identity.new_key()
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.ca.parsed.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + PAIR_LIFE)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), identity.key_pem(key))


async def load_authority(client: Client, namespace: str, now: datetime) -> Authority:
    """The authority in the Secret, made if there is none; replicas that race agree on the first."""
    for _ in range(3):
        try:
            secret = await client.get(SECRETS, SECRET, namespace)
            return Authority(_read(secret))
        except NotFound:
            pass
        ca = make_ca("sandlane-tunnel", now)
        encoded = {"ca.crt": ca.certificate, "ca.key": ca.key}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": SECRET, "namespace": namespace, "labels": {MANAGED_BY: MANAGER}},
            "data": {name: base64.b64encode(data).decode() for name, data in encoded.items()},
        }
        try:
            await client.create(SECRETS, secret)
        except AlreadyExists:
            continue
        return Authority(ca)
    raise RuntimeError(f"the Secret {namespace}/{SECRET} comes and goes")


def _read(secret: Object) -> KeyPair:
    data = secret.get("data") or {}
    return KeyPair(base64.b64decode(data["ca.crt"]), base64.b64decode(data["ca.key"]))
