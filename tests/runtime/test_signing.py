"""Certificates hold before verifiers that take RFC 5280 at its word."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from sandlane.runtime.certificates import load_pair, server_context
from sandlane.runtime.signing import CLIENT, SERVER, make_ca, make_pair, subject_of

NOW = datetime.now(UTC)


def test_a_strict_client_trusts_the_server(tmp_path: Path) -> None:
    """As every client on Python 3.13 and newer; both ends show their certificates."""
    ca = make_ca("test", NOW)
    pair = make_pair(ca, subject_of("x" * 80), [x509.DNSName("api.example")], [SERVER, CLIENT], NOW, timedelta(days=1))
    server = server_context()
    server.load_verify_locations(cadata=ca.certificate.decode())
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cadata=ca.certificate.decode())
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        load_pair(context, pair)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there, server_hostname="api.example"),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert all(end.version() == "TLSv1.3" and end.getpeercert() for end in ends)
