"""A signing request names one client of one LocalWorkload, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from sandlane.runtime.signing import make_ca, new_key, subject_of
from sandlane.tunnel.identity import Claim, IdentityError, requested, sign, signing_request
from support.tunnel import NOW, SESSION, UID

CLAIM = Claim(SESSION, UID)


def request(*names: str, key: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey | None = None) -> bytes:
    """A request with these DNS names."""
    key = key or new_key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject_of("x"))
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    hashed = None if isinstance(key, ed448.Ed448PrivateKey) else hashes.SHA256()
    return builder.sign(key, hashed).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"nothing", "not a PEM certificate signing request"),
        (request(), "names no DNS name"),
        (request(CLAIM.identity, "other"), "exactly one DNS name"),
        (request(UID), "exactly one DNS name"),
        (request(f"*.{UID}"), "exactly one DNS name"),
        (request(f"{CLAIM.identity}.x"), "exactly one DNS name"),
    ],
)
def test_what_is_no_claim(pem: bytes, why: str) -> None:
    """Each is refused with the reason."""
    with pytest.raises(IdentityError, match=why):
        requested(pem)


def test_a_request_that_was_changed_on_its_way() -> None:
    """It has to be signed by the key that it is for."""
    whole = x509.load_pem_x509_csr(signing_request(new_key(), CLAIM)).public_bytes(serialization.Encoding.DER)
    changed = whole.replace(SESSION.encode(), SESSION[::-1].encode())
    pem = x509.load_der_x509_csr(changed).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(IdentityError, match="not signed by its own key"):
        requested(pem)


def test_only_usual_keys_are_signed() -> None:
    """A key that no TLS library here makes is refused; a usual one gets the claim and nothing else."""
    ca = make_ca("test", NOW)
    with pytest.raises(IdentityError, match="are not signed"):
        sign(request(CLAIM.identity, key=ed448.Ed448PrivateKey.generate()), ca, NOW, timedelta(hours=1))
    made = x509.load_pem_x509_certificate(sign(request(CLAIM.identity), ca, NOW, timedelta(hours=1)))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [CLAIM.identity, CLAIM.workload]
