"""The laptop's client certificate for one LocalWorkload: asked for by the cluster's CSR API, renewed before it ends.

The key is made once, stays in this process and never reaches a disk: the `ssl` module reads it from memory.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import ssl
from datetime import datetime, timedelta

import structlog
from cryptography import x509

from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock
from sandlane.kube.errors import KubeError
from sandlane.kube.resource import CERTIFICATE_SIGNING_REQUESTS
from sandlane.laptop.errors import ConnectError
from sandlane.runtime.signing import key_pem, new_key
from sandlane.tunnel import identity

log = structlog.get_logger(__name__)

LIFETIME = timedelta(hours=1)
PATIENCE = 30.0
MARGIN = timedelta(seconds=30)
"""A certificate with less than this left is renewed before it is used."""
FIRST_POLL, LAST_POLL = 0.05, 0.5
LOOK_EVERY = 20.0
"""Seconds between looks at the time of day: a laptop that has slept notices within these."""


class Credentials:
    """The certificate for one LocalWorkload (by uid). `context` is for the next connection."""

    def __init__(self, client: Client, clock: Clock, rng: Random, uid: str, ca: str) -> None:
        self.uid = uid
        self._client = client
        self._clock = clock
        self._rng = rng
        self._ca = ca
        self._key = new_key()
        self._claim = identity.Claim(secrets.token_hex(8), uid)
        self._context: ssl.SSLContext | None = None
        self._ends: datetime | None = None
        self._lifetime = LIFETIME
        self._held = False
        self._asking = asyncio.Lock()

    @property
    def context(self) -> ssl.SSLContext:
        """TLS with the present certificate; `fresh` has to have been awaited."""
        assert self._context is not None
        return self._context

    @property
    def session(self) -> str:
        """This client among all of its LocalWorkload."""
        return self._claim.session

    async def fresh(self) -> None:
        """See to a certificate that is good for a while. Raises `ConnectError` (denied) and `KubeError`."""
        async with self._asking:
            if self._left() < MARGIN:
                await self._renew()

    async def keep(self) -> None:
        """Renew in good time, until cancelled. An API server that cannot be reached is asked again."""
        while True:
            await self._clock.sleep(LOOK_EVERY * (0.75 + 0.5 * self._rng.random()))
            if self._left() < self._lifetime * 0.4:
                try:
                    async with self._asking:
                        await self._renew()
                except (KubeError, ConnectError) as error:
                    log.warning("certificate_not_renewed", error=str(error), left=str(self._left()))

    def forget(self) -> None:
        """Ask for another certificate at the next `fresh`: the servers refused this one."""
        self._ends = None

    def _left(self) -> timedelta:
        return timedelta(0) if self._ends is None else self._ends - self._clock.now()

    async def _renew(self) -> None:
        pem = await self._signed()
        self._held = True  # from now on another client may only take over, and this one only renew
        self._context = tls_context(pem + key_pem(self._key), self._ca)
        certificate = x509.load_pem_x509_certificate(pem)
        # Counted from here, whatever this machine's clock shows; the signer may give less than was asked for.
        self._lifetime = min(LIFETIME, certificate.not_valid_after_utc - certificate.not_valid_before_utc)
        self._ends = self._clock.now() + self._lifetime

    async def _signed(self) -> bytes:
        name = f"sandlane-tunnel-{self.uid[:8]}-{secrets.token_hex(4)}"
        request = {
            "apiVersion": CERTIFICATE_SIGNING_REQUESTS.api_version,
            "kind": CERTIFICATE_SIGNING_REQUESTS.kind,
            "metadata": {"name": name, "annotations": {identity.RENEWAL: "true"} if self._held else {}},
            "spec": {
                "signerName": identity.SIGNER,
                "request": base64.b64encode(identity.signing_request(self._key, self._claim)).decode(),
                "usages": ["client auth"],
                "expirationSeconds": int(LIFETIME.total_seconds()),
            },
        }
        await self._client.create(CERTIFICATE_SIGNING_REQUESTS, request)
        end, delay = self._clock.monotonic() + PATIENCE, FIRST_POLL
        while self._clock.monotonic() < end:
            obj = await self._client.get(CERTIFICATE_SIGNING_REQUESTS, name)
            status = obj.get("status") or {}
            for condition in status.get("conditions") or ():
                if condition["type"] in ("Denied", "Failed"):
                    raise ConnectError(f"the cluster denied the certificate: {condition.get('message', '')}")
            if certificate := status.get("certificate"):
                return base64.b64decode(certificate)
            await self._clock.sleep(delay)
            delay = min(delay * 1.5, LAST_POLL)
        raise ConnectError(
            f"certificate signing request {name} was not answered within {PATIENCE:.0f} s: is the manager running?"
        )


def tls_context(pem: bytes, ca: str) -> ssl.SSLContext:
    """TLS with a laptop's certificate and key (PEM). The server's name is for the dialler to check."""
    context = ssl.create_default_context(cadata=ca)
    context.check_hostname = False
    memory = os.memfd_create("sandlane-key")
    try:
        os.write(memory, pem)
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)
    return context
