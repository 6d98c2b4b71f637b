"""Who a request over HTTPS is from."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from sandlane.local.apiserver.auth.authenticator import Authenticator
from sandlane.local.apiserver.auth.user import ADMIN
from sandlane.local.apiserver.http import HttpFront
from sandlane.local.apiserver.pki import ClusterPki, write_private
from sandlane.runtime.signing import key_pem

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


class Served:
    """The server over HTTPS."""

    def __init__(self, asked: Any, front: HttpFront, pki: ClusterPki, folder: Path, port: int) -> None:
        self.front = front
        self.pki = pki
        self._asked = asked
        self._folder = folder
        self._port = port

    def trust(self, authority: ClusterPki | None = None, *groups: str) -> ssl.SSLContext:
        """TLS of a client; with a certificate for jane, where an authority for it is given."""
        context = ssl.create_default_context(cadata=self.pki.ca_pem.decode())
        if authority is not None:
            key = ec.generate_private_key(ec.SECP256R1())
            signed = authority.sign(key.public_key(), "jane", groups, server=False, days=1, now=self._asked.clock.now())
            write_private(self._folder / "client.pem", signed + key_pem(key))
            context.load_cert_chain(self._folder / "client.pem")
        return context

    async def ask(
        self, method: str, path: str, context: ssl.SSLContext, token: str = "", *more: tuple[str, str]
    ) -> tuple[int, Any]:
        """The status code and the parsed answer."""
        headers = [("Authorization", f"Bearer {token}")] if token else []
        async with aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{self._port}{path}"
            body: Any = {} if method == "POST" else None
            async with session.request(method, url, json=body, headers=[*headers, *more], ssl=context) as answer:
                return answer.status, await answer.json()


@pytest.fixture
async def served(real: Any, tmp_path: Path) -> Any:
    """The server over HTTPS, with its own authority."""
    pki = ClusterPki(tmp_path / "pki", real.clock.now())
    async with AsyncExitStack() as stack:
        front = HttpFront(real.server, Authenticator(real.server.tokens).authenticate)
        port = await front.serve(stack, "127.0.0.1", 0, pki.serving_context("127.0.0.1"))
        yield Served(real, front, pki, tmp_path, port)


async def test_client_certificate(served: Any) -> None:
    """A certificate of the cluster's authority says who the user is; the user is told by which certificate."""
    status, review = await served.ask("POST", WHO, served.trust(served.pki, "dev"))
    (credential,) = review["status"]["userInfo"].pop("extra")["authentication.kubernetes.io/credential-id"]
    who = {"username": "jane", "groups": ["dev", "system:authenticated"]}
    assert (status, review["status"]["userInfo"]) == (201, who)
    assert credential.startswith("X509SHA256=")


async def test_strange_certificate(served: Any, real: Any, tmp_path: Path) -> None:
    """A certificate of another authority ends the connection."""
    other = ClusterPki(tmp_path / "other", real.clock.now())
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):
        await served.ask("POST", WHO, served.trust(other))


async def test_tokens(served: Any, real: Any) -> None:
    """A ServiceAccount's token says who it is; one that is not good is 401 wherever it is shown."""
    status, review = await served.ask("POST", WHO, served.trust(), await real.token())
    assert (status, review["status"]["userInfo"]["username"]) == (201, "system:serviceaccount:default:robot")
    assert (await served.ask("GET", "/api", served.trust(), "junk"))[0] == 401


async def test_nobody(served: Any) -> None:
    """Who shows nothing is anonymous."""
    status, answer = await served.ask("GET", "/api", served.trust())
    assert (status, answer["message"]) == (403, 'forbidden: User "system:anonymous" cannot get path "/api"')
    assert (await served.ask("GET", "/version", served.trust()))[0] == 200


async def test_several_groups(served: Any, real: Any) -> None:
    """Groups to impersonate may come in several headers."""
    real.server.tokens.known["admin"] = ADMIN
    be = (("Impersonate-User", "joe"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b"))
    status, review = await served.ask("POST", WHO, served.trust(), "admin", *be)
    assert (status, review["status"]["userInfo"]["groups"]) == (201, ["a", "b", "system:authenticated"])


async def test_exec_is_create(served: Any, real: Any) -> None:
    """Running something in a Pod over a WebSocket, which is a GET, takes the verb create besides get."""

    async def upgrade(http: Any, request: Any, info: Any) -> web.StreamResponse:
        return web.json_response({})

    served.front.upgrade = upgrade
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    role: Any = {
        "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}],
    }
    subjects = [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]
    await real.make(f"{rbac}/roles", role)
    reference = {"kind": "Role", "name": "r"}
    await real.make(f"{rbac}/rolebindings", {"metadata": {"name": "r"}, "roleRef": reference, "subjects": subjects})
    path, token = "/api/v1/namespaces/default/pods/p/exec", await real.token()
    status, answer = await served.ask("GET", path, served.trust(), token)
    assert (status, "cannot create" in answer["message"]) == (403, True)
    role["rules"][0]["verbs"].append("create")
    await real.ask("PUT", f"{rbac}/roles/r", role)
    assert (await served.ask("GET", path, served.trust(), token))[0] == 200
