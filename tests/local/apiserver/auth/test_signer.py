"""Certificates of API clients: approved requests are signed, and TLS knows the user by them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from sandlane.local.apiserver.auth.authenticator import user_of_certificate
from sandlane.local.apiserver.auth.signer import SIGNER, ClientSigner
from sandlane.local.apiserver.auth.user import User
from sandlane.local.apiserver.pki import ClusterPki

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CERTIFICATE = base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()
APPROVED = {"type": "Approved", "status": "True", "reason": "Test", "message": ""}


def _pem(name: str = "jane", *groups: str, key: Any = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    subject += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
async def signing(asked: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """The server, with the signer at work."""
    pki = ClusterPki(tmp_path / "pki", asked.clock.now())
    server = asked.server
    async with asyncio.TaskGroup() as group:
        signer = ClientSigner(server.store, server.registry, server.writer, pki, asked.clock)
        task = group.create_task(signer.run())
        yield asked
        task.cancel()


async def _approved(asked: Any, pem: bytes, **spec: Any) -> Any:
    """Make and approve a request; what it is once it is decided."""
    body = {"request": base64.b64encode(pem).decode(), "signerName": SIGNER, "usages": ["client auth"]} | spec
    obj = await asked.make(PATH, {"metadata": {"name": "r"}, "spec": body})
    assert "certificate" not in obj.get("status", {})
    obj["status"] = {"conditions": [APPROVED]}
    status, answer = await asked.ask("PUT", f"{PATH}/r/approval", obj)
    assert status == 200, answer
    async with asyncio.timeout(10):
        while True:
            _, obj = await asked.ask("GET", f"{PATH}/r")
            if "certificate" in obj["status"] or len(obj["status"]["conditions"]) > 1:
                return obj["status"]
            await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
async def test_signs_what_is_approved(signing: Any, kind: str) -> None:
    """An approved request gets a certificate for its user and groups, as long as it asked for."""
    key: Any = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    status = await _approved(signing, _pem("jane", "dev", "ops", key=key), expirationSeconds=3600)
    certificate = x509.load_pem_x509_certificate(base64.b64decode(status["certificate"]))
    assert certificate.subject.rfc4514_string() == "O=ops,O=dev,CN=jane"
    assert certificate.not_valid_after_utc == signing.clock.now() + timedelta(hours=1)
    assert certificate.public_key() == key.public_key()


@pytest.mark.parametrize(
    ("pem", "spec", "why"),
    [
        (_pem(""), {}, "no common name"),
        (_pem(), {"usages": ["client auth", "server auth"]}, "usages"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", {}, "cannot be read"),
        (_pem(key=rsa.generate_private_key(65537, 1024)), {}, "2048 bits"),
    ],
)
async def test_refuses(signing: Any, pem: bytes, spec: Any, why: str) -> None:
    """An approved request that the signer cannot take fails with a reason."""
    status = await _approved(signing, pem, **spec)
    failed = status["conditions"][-1]
    assert (failed["type"], why in failed["message"], "certificate" in status) == ("Failed", True, False)


async def test_masters_are_not_made(asked: Any) -> None:
    """Nobody gets a certificate for the group that may do everything."""
    request = base64.b64encode(_pem("jane", "system:masters")).decode()
    spec = {"request": request, "signerName": SIGNER, "usages": ["client auth"]}
    status, answer = await asked.ask("POST", PATH, {"metadata": {"name": "r"}, "spec": spec})
    assert (status, "system:masters group is not allowed" in answer["message"]) == (403, True)


@pytest.mark.parametrize(("verb", "names"), [("approve", [SIGNER]), ("sign", ["kubernetes.io/*"])])
async def test_signers_are_a_right(asked: Any, verb: str, names: list[str]) -> None:
    """Approving takes `approve` on the signer, a certificate `sign`; the rest of the status does not."""
    jane = User("jane", ("system:authenticated",))
    resources = ["certificatesigningrequests/approval", "certificatesigningrequests/status"]
    rules = [{"apiGroups": ["certificates.k8s.io"], "resources": resources, "verbs": ["*"]}]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    subjects = [{"kind": "User", "name": "jane"}]
    for name in ("base", "signer"):
        await asked.make(f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": rules})
        role = {"kind": "ClusterRole", "name": name}
        binding: Any = {"metadata": {"name": name}, "roleRef": role, "subjects": subjects}
        await asked.make(f"{rbac}/clusterrolebindings", binding)
        rules = []
    request = base64.b64encode(_pem()).decode()
    spec = {"request": request, "signerName": SIGNER, "usages": ["client auth"]}
    obj = await asked.make(PATH, {"metadata": {"name": "r"}, "spec": spec})
    where = "approval" if verb == "approve" else "status"
    obj["status"] = {"conditions": [APPROVED]} if verb == "approve" else {"certificate": CERTIFICATE}
    status, answer = await asked.ask("PUT", f"{PATH}/r/{where}", obj, user=jane)
    assert (status, f"user not permitted to {verb} requests" in answer["message"]) == (403, True)
    more = {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": [verb], "resourceNames": names}
    allowing = {"metadata": {"name": "signer"}, "rules": [more]}
    assert (await asked.ask("PUT", f"{rbac}/clusterroles/signer", allowing))[0] == 200
    status, answer = await asked.ask("PUT", f"{PATH}/r/{where}", obj, user=jane)
    assert status == 200, answer


def test_user_of_certificate() -> None:
    """The common name is the user, organisations are the groups; without a common name there is no user."""
    subject = ((("organizationName", "dev"),), (("organizationName", "ops"),), (("commonName", "jane"),))
    user = user_of_certificate({"subject": subject})
    assert user is not None
    assert (user.name, user.groups) == ("jane", ("dev", "ops", "system:authenticated"))
    assert user_of_certificate({"subject": subject[:1]}) is None
