"""Tokens of ServiceAccounts: what they say, and when they are no longer good."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sandlane.local.apiserver.auth.tokens import ISSUER, Tokens, load_key
from sandlane.local.apiserver.auth.user import ADMIN, ANONYMOUS
from sandlane.local.apiserver.store.objects import ObjectStore

ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/robot"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
POD = {"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot", "containers": [{"name": "a", "image": "a"}]}}


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _claims(token: str) -> Any:
    return msgspec.json.decode(_bytes(token.split(".")[1]))


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


async def test_says_whose_it_is(asked: Any) -> None:
    """A token names its ServiceAccount, whose groups are those of its namespace and of everybody."""
    token = await asked.token()
    user = asked.who(token)
    assert (user.name, user.groups) == (
        "system:serviceaccount:default:robot",
        ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"),
    )
    assert list(user.extra) == ["authentication.kubernetes.io/credential-id"]
    claims = _claims(token)
    assert (claims["iss"], claims["aud"], claims["exp"] - claims["iat"]) == (ISSUER, [ISSUER], 3600)


async def test_expires(asked: Any) -> None:
    """A token is good until its time is over."""
    token = await asked.token(expirationSeconds=600)
    await asked.clock.advance(599)
    assert asked.who(token) is not None
    await asked.clock.advance(1)
    assert asked.who(token) is None


async def test_goes_with_its_account(asked: Any) -> None:
    """A token of a ServiceAccount that was deleted is no good, nor for another one of the same name."""
    token = await asked.token()
    await asked.ask("DELETE", ACCOUNT)
    assert asked.who(token) is None
    await asked.make("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "robot"}})
    assert asked.who(token) is None


async def test_goes_with_its_pod(asked: Any) -> None:
    """A token that is bound to a Pod says so, and ends with the Pod."""
    await asked.make("/api/v1/namespaces/default/pods", POD)
    token = await asked.token(boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "p"})
    assert asked.who(token).extra["authentication.kubernetes.io/pod-name"] == ("p",)
    await asked.ask("DELETE", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0")
    assert asked.who(token) is None


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ({"kind": "Pod", "apiVersion": "v1", "name": "absent"}, 404),
        ({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "other"}, 409),
        ({"kind": "Service", "apiVersion": "v1", "name": "p"}, 400),
    ],
)
async def test_is_bound_to_what_is_there(asked: Any, reference: Any, code: int) -> None:
    """A token cannot be bound to an object that is not there, is another one, or of a kind that ends nothing."""
    await asked.make("/api/v1/namespaces/default/pods", POD)
    status, _ = await asked.ask("POST", f"{ACCOUNT}/token", {"spec": {"boundObjectRef": reference}})
    assert status == code


async def test_forged_tokens_are_refused(asked: Any) -> None:
    """A token that we have not signed, or whose text was changed, names nobody."""
    token = await asked.token()
    header, claims, signature = token.split(".")
    other = Tokens(ObjectStore(), asked.clock)
    account = {
        "metadata": {
            "namespace": "default",
            "name": "robot",
            "uid": _claims(token)["kubernetes.io"]["serviceaccount"]["uid"],
        }
    }
    admin = _part({**_claims(token), "sub": "system:serviceaccount:kube-system:admin"})
    forged = [
        other.issue(account, [ISSUER], 3600, "x", None),
        f"{header}.{admin}.{signature}",
        f"{_part({'alg': 'none'})}.{claims}.",
        f"{_part({'alg': 'HS256'})}.{claims}.{signature}",
        f"{header}.{claims}.{signature[:-4]}",
        f"{header}.{claims}",
        f"{header}.{claims}.!!!!",
        "\udcff.a.b",
        "..",
    ]
    assert [asked.who(each) for each in forged] == [None] * len(forged)


async def test_audiences(asked: Any) -> None:
    """A token for another audience does not open the API; a review for that audience accepts it."""
    token = await asked.token(audiences=["vault", "other"])
    assert asked.who(token) is None
    _, review = await asked.ask("POST", REVIEWS, {"spec": {"token": token, "audiences": ["vault", "api"]}})
    assert (review["status"]["authenticated"], review["status"]["audiences"]) == (True, ["vault"])
    _, review = await asked.ask("POST", REVIEWS, {"spec": {"token": token}})
    assert "authenticated" not in review["status"]


async def test_review_without_token(asked: Any) -> None:
    """A TokenReview without a token is a bad request, and so is one whose spec is no object."""
    assert (await asked.ask("POST", REVIEWS, {"spec": {}}))[0] == 400
    assert (await asked.ask("POST", REVIEWS, {"spec": "x"}))[0] == 400


@pytest.mark.parametrize(("seconds", "code"), [(599, 422), (2**32 + 1, 422), ("x", 400), (True, 400), (600, 201)])
async def test_times(asked: Any, seconds: Any, code: int) -> None:
    """A token lives for at least ten minutes."""
    status, _ = await asked.ask("POST", f"{ACCOUNT}/token", {"spec": {"expirationSeconds": seconds}})
    assert status == code


async def test_dry_run_gives_no_token(asked: Any) -> None:
    """A dry run answers as usual, with an empty token."""
    status, made = await asked.ask("POST", f"{ACCOUNT}/token?dryRun=All", {"spec": {}})
    assert (status, made["status"]["token"]) == (201, "")


def test_key_is_kept(tmp_path: Path) -> None:
    """The signing key is made once, readable by its owner only."""
    path = tmp_path / "sa.key"
    first, second = load_key(path), load_key(path)
    assert first.private_numbers() == second.private_numbers()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_known_tokens(asked: Any) -> None:
    """A token that the server was given names its user."""
    asked.server.tokens.known["secret"] = ADMIN
    assert (asked.who("secret"), asked.who("secre")) == (ADMIN, None)


async def test_others_can_check(asked: Any) -> None:
    """A ServiceAccount may read the keys, and with them anybody can check a token."""
    token = await asked.token()
    user = asked.who(token)
    status, about = await asked.ask("GET", "/.well-known/openid-configuration", user=user)
    assert (status, about["issuer"], about["jwks_uri"]) == (200, ISSUER, f"{ISSUER}/openid/v1/jwks")
    status, keys = await asked.ask("GET", "/openid/v1/jwks", user=user)
    assert status == 200
    (key,) = msgspec.json.decode(keys)["keys"]
    header, claims, signature = token.split(".")
    assert msgspec.json.decode(_bytes(header))["kid"] == key["kid"]
    x, y = (int.from_bytes(_bytes(key[name]), "big") for name in ("x", "y"))
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    r, s = (int.from_bytes(half, "big") for half in (_bytes(signature)[:32], _bytes(signature)[32:]))
    public.verify(encode_dss_signature(r, s), f"{header}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))
    assert (await asked.ask("GET", "/openid/v1/jwks", user=ANONYMOUS))[0] == 403
