"""Certificates of the tunnel: one authority per cluster, kept in a Secret; pairs for tunnel servers and routers."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta

from cryptography import x509

from sandlane.api.labels import MANAGED_BY, MANAGER
from sandlane.kube.client import Client
from sandlane.kube.errors import AlreadyExists, NotFound
from sandlane.kube.resource import SECRETS, Object
from sandlane.runtime.signing import CLIENT, SERVER, KeyPair, make_ca, make_pair, subject_of
from sandlane.tunnel import identity
from sandlane.tunnel.bootstrap import ROUTER_NAME, SERVER_NAME

SECRET = "sandlane-tunnel-ca"
PAIR_LIFE = timedelta(days=30)


class Authority:
    """The authority of a cluster, and what it signs."""

    def __init__(self, ca: KeyPair) -> None:
        self.ca = ca

    def sign_laptop(self, request: bytes, now: datetime, lifetime: timedelta) -> bytes:
        """A laptop's certificate for its signing request. Raises `identity.IdentityError`."""
        return identity.sign(request, self.ca, now, lifetime)

    def server_pair(self, now: datetime) -> KeyPair:
        """For the tunnel servers."""
        return self._pair(SERVER_NAME, now)

    def router_pair(self, now: datetime) -> KeyPair:
        """For the routers: only this name may send requests into tunnels."""
        return self._pair(ROUTER_NAME, now)

    def _pair(self, name: str, now: datetime) -> KeyPair:
        return make_pair(self.ca, subject_of(name), [x509.DNSName(name)], [SERVER, CLIENT], now, PAIR_LIFE)


async def load_authority(client: Client, namespace: str, now: datetime, *, make: bool = True) -> Authority | None:
    """The authority in the Secret, made if there is none (with `make`; else None); replicas that race agree on the first."""
    for _ in range(3):
        try:
            secret = await client.get(SECRETS, SECRET, namespace)
            return Authority(_read(secret))
        except NotFound:
            if not make:
                return None
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
