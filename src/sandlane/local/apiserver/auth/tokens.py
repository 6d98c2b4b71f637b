"""Tokens of ServiceAccounts: JSON web tokens, signed by the cluster's key (ES256), and what they say.

A token is good while it has not expired and the ServiceAccount, and the object that it is bound to, are still those that it was made for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from sandlane.kube.clock import Clock
from sandlane.kube.resource import Key, Object
from sandlane.local.apiserver.auth.user import AUTHENTICATED, User, service_account_groups, service_account_name
from sandlane.local.apiserver.pki import write_private
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.runtime.signing import key_pem

ISSUER = "https://kubernetes.default.svc.cluster.local"
CONFIGURATION_PATH = "/.well-known/openid-configuration"
KEYS_PATH = "/openid/v1/jwks"
SigningKey = ec.EllipticCurvePrivateKey
BOUND = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}
"""Kinds that a token can be bound to, with their plurals."""
_CLAIM = "kubernetes.io"
_EXTRA = "authentication.kubernetes.io"
_HALF = 32


@dataclass(frozen=True)
class Verified:
    """Whose token it is, and for which audiences of those that were asked for."""

    user: User
    audiences: tuple[str, ...]


def load_key(path: Path) -> SigningKey:
    """The key that signs tokens, made at the first start."""
    if not path.exists():
        write_private(path, key_pem(ec.generate_private_key(ec.SECP256R1())))
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, SigningKey):
        raise ValueError(f"{path}: not an elliptic curve key")
    return key


class Tokens:
    """Makes tokens and checks them. `known` holds other tokens (the administrator's) with their users."""

    def __init__(self, store: ObjectStore, clock: Clock, key: SigningKey | None = None) -> None:
        self._store = store
        self._clock = clock
        self._key = key
        self.known: dict[str, User] = {}

    @property
    def key(self) -> SigningKey:
        """The signing key; one is made where none was given."""
        if self._key is None:
            self._key = ec.generate_private_key(ec.SECP256R1())
        return self._key

    def issue(
        self, account: Object, audiences: Iterable[str], seconds: int, identity: str, bound: tuple[str, Object] | None
    ) -> str:
        """A token of a ServiceAccount; `identity` is its own name, `bound` the kind and object that it depends on."""
        now = int(self._clock.now().timestamp())
        metadata = account["metadata"]
        private: Object = {
            "namespace": metadata["namespace"],
            "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
        }
        if bound is not None:
            kind, obj = bound
            private[kind.lower()] = {"name": obj["metadata"]["name"], "uid": obj["metadata"]["uid"]}
            node = (obj.get("spec") or {}).get("nodeName") if kind == "Pod" else ""
            if node:
                private["node"] = {"name": node}
        claims: Object = {
            "aud": list(audiences),
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": identity,
            _CLAIM: private,
            "nbf": now,
            "sub": service_account_name(metadata["namespace"], metadata["name"]),
        }
        header = {"alg": "ES256", "kid": self._key_id()}
        signed = f"{_encode(msgspec.json.encode(header))}.{_encode(msgspec.json.encode(claims))}"
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encode(r.to_bytes(_HALF, 'big') + s.to_bytes(_HALF, 'big'))}"

    def verify(self, token: str, audiences: Iterable[str] = (ISSUER,)) -> Verified | None:
        """Whose token it is, or None when it is not good for any of the audiences."""
        wanted = tuple(audiences)
        for each, user in self.known.items():
            if hmac.compare_digest(each.encode(), token.encode(errors="surrogateescape")):
                return Verified(user, wanted)
        claims = self._claims(token)
        if claims is None:
            return None
        shared = tuple(each for each in wanted if each in (claims.get("aud") or ()))
        now = self._clock.now().timestamp()
        if not shared or claims.get("iss") != ISSUER or not claims["nbf"] <= now + 1 or not now < claims["exp"]:
            return None
        owner = self._user(claims)
        return None if owner is None else Verified(owner, shared)

    def openid_configuration(self) -> Object:
        """What others need to check tokens (OpenID Connect discovery)."""
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}{KEYS_PATH}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def public_keys(self) -> Object:
        """The keys that tokens are signed by, as a JSON Web Key Set."""
        numbers = self.key.public_key().public_numbers()
        x, y = (_encode(number.to_bytes(_HALF, "big")) for number in (numbers.x, numbers.y))
        key = {"use": "sig", "kty": "EC", "kid": self._key_id(), "crv": "P-256", "alg": "ES256", "x": x, "y": y}
        return {"keys": [key]}

    def _key_id(self) -> str:
        public = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return _encode(hashlib.sha256(public).digest())

    def _claims(self, token: str) -> Any:
        """What a token says, if we have signed it."""
        parts = token.split(".")
        if len(parts) != 3 or not token.isascii():
            return None
        try:
            header = msgspec.json.decode(_decode(parts[0]))
            signature = _decode(parts[2])
            if not isinstance(header, dict) or header.get("alg") != "ES256" or len(signature) != 2 * _HALF:
                return None
            r, s = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
            signed = f"{parts[0]}.{parts[1]}".encode()
            self.key.public_key().verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
            return msgspec.json.decode(_decode(parts[1]))
        except (binascii.Error, msgspec.DecodeError, InvalidSignature, UnicodeDecodeError):
            return None

    def _user(self, claims: Object) -> User | None:
        private = claims[_CLAIM]
        namespace, account = private["namespace"], private["serviceaccount"]
        if self._uid("serviceaccounts", namespace, account["name"]) != account["uid"]:
            return None
        extra: dict[str, tuple[str, ...]] = {f"{_EXTRA}/credential-id": (f"JTI={claims['jti']}",)}
        for kind, plural in BOUND.items():
            bound = private.get(kind.lower())
            if bound is None:
                continue
            if "uid" in bound and self._uid(plural, "" if kind == "Node" else namespace, bound["name"]) != bound["uid"]:
                return None
            if kind != "Secret":
                extra[f"{_EXTRA}/{kind.lower()}-name"] = (bound["name"],)
                if "uid" in bound:
                    extra[f"{_EXTRA}/{kind.lower()}-uid"] = (bound["uid"],)
        groups = (*service_account_groups(namespace), AUTHENTICATED)
        return User(service_account_name(namespace, account["name"]), groups, account["uid"], extra)

    def _uid(self, plural: str, namespace: str, name: str) -> str | None:
        stored = self._store.get(("", plural), Key(namespace, name))
        if stored is None:
            return None
        metadata = msgspec.json.decode(stored.data)["metadata"]
        return str(metadata["uid"])


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
