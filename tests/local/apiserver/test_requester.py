"""CertificateSigningRequests name who made them."""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandlane.kube.resource import CERTIFICATE_SIGNING_REQUESTS
from sandlane.testing.cluster import FakeCluster


async def test_requester_is_the_servers() -> None:
    """A request carries the name and groups of the user who made it, not those that the body claims."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    spec = {
        "request": base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode(),
        "signerName": "example.test/s",
        "usages": ["client auth"],
        "username": "root",
        "uid": "7",
    }
    async with FakeCluster() as cluster:
        body = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "r"}}
        made = await cluster.client.create(CERTIFICATE_SIGNING_REQUESTS, {**body, "spec": spec})
    assert made["spec"]["username"] == "system:admin"
    assert "system:masters" in made["spec"]["groups"]
    assert "uid" not in made["spec"]
