"""Certificates are there, renewed in time, and nobody ever meets a server that it cannot verify."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sandlane.kube.resource import SECRETS
from sandlane.runtime.certificates import (
    LIFE,
    Certificates,
    FileCertificates,
    SecretCertificates,
    make_serving,
    renewed,
)
from sandlane.runtime.signing import CA_LIFE, make_ca
from sandlane.testing.clock import START, ManualClock

NAMES = ["webhook.d.svc", "127.0.0.1"]
NOW = START


def test_what_is_good_stays() -> None:
    """Nothing is renewed before two thirds of its life."""
    first = renewed(None, "ca", NAMES, NOW)
    assert renewed(first, "ca", NAMES, NOW + LIFE * 0.6) is first
    second = renewed(first, "ca", NAMES, NOW + LIFE * 0.7)
    assert second.ca == first.ca
    assert second.serving != first.serving
    assert renewed(first, "ca", [*NAMES, "other"], NOW).serving != first.serving


def test_a_new_ca_is_known_before_it_signs() -> None:
    """The bundle holds both; the serving certificate stays with the old CA until its own renewal."""
    first = renewed(None, "ca", NAMES, NOW)
    late = NOW + CA_LIFE * 0.7
    fresh = make_serving(first.ca, NAMES, late - timedelta(days=1))
    after = renewed(Certificates(fresh, first.ca, first.bundle), "ca", NAMES, late)
    assert after.ca != first.ca
    assert after.serving == fresh
    assert len(x509.load_pem_x509_certificates(after.bundle)) == 2
    later = renewed(after, "ca", NAMES, late + LIFE * 0.7)
    later.serving.parsed.verify_directly_issued_by(after.ca.parsed)


def source(rig: Any) -> SecretCertificates:
    """Certificates in a Secret of the rig's cluster."""
    return SecretCertificates(rig.cluster.client, rig.clock, namespace="d", name="cert", names=NAMES)


async def test_replicas_share_a_secret(rig: Any) -> None:
    """The first makes it; the second reads it; a broken Secret is made anew."""
    one, two = source(rig), source(rig)
    await one.refresh()
    await two.refresh()
    assert one.bundle == two.bundle != b""
    await rig.cluster.client.patch(SECRETS, "cert", {"data": {"tls.crt": "bm9uc2Vuc2U="}}, namespace="d")
    await two.refresh()
    assert two.bundle != one.bundle


async def test_renewal_goes_on_by_itself(rig: Any) -> None:
    """Over a year, the certificate in use is always good for weeks."""
    certificates = source(rig)
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(certificates.run())
        seen = set()
        for _ in range(12):
            await rig.clock.advance(1)
            assert certificates.expires is not None
            assert certificates.expires - rig.clock.now() > timedelta(days=20)
            seen.add(certificates.expires)
            rig.clock.freeze_past(30 * 86400)
            await rig.clock.advance(61)
        job.cancel()
    assert len(seen) >= 4


async def handshake(context: ssl.SSLContext, bundle: bytes) -> x509.Certificate:
    """The certificate that a caller who trusts the bundle meets. Raises `ssl.SSLError`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        trust = ssl.create_default_context(cadata=bundle.decode())
        trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        host, port = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(host, port, ssl=trust)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
        return x509.load_der_x509_certificate(der)


async def test_files_are_followed(tmp_path: Path) -> None:
    """A renewed pair is served without a restart; half-written files change nothing."""
    real = ManualClock()
    ca = make_ca("files", _today())
    certificates = FileCertificates(tmp_path, real)
    certificates.refresh()
    assert not certificates.ready
    met = []
    for _ in range(2):
        pair = make_serving(ca, NAMES, _today())
        (tmp_path / "tls.crt").write_bytes(pair.certificate)
        (tmp_path / "tls.key").write_bytes(pair.key)
        certificates.refresh()
        met.append((await handshake(certificates.context, ca.certificate)).serial_number)
    assert met[0] != met[1]
    (tmp_path / "tls.crt").write_bytes(b"half")
    certificates.refresh()
    assert (await handshake(certificates.context, ca.certificate)).serial_number == met[1]
    with pytest.raises(ssl.SSLError):
        await handshake(certificates.context, make_ca("other", _today()).certificate)


def _today() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)
