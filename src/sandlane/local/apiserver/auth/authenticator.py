"""Who sends an HTTP request: by bearer token, by client certificate of the cluster's authority, or nobody in particular."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from aiohttp import web

from sandlane.local.apiserver.auth.tokens import Tokens
from sandlane.local.apiserver.auth.user import ANONYMOUS, AUTHENTICATED, User

CREDENTIAL = "authentication.kubernetes.io/credential-id"


class Authenticator:
    """Knows users by what they show. TLS has already checked that a certificate is the authority's and in time."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def authenticate(self, http: web.BaseRequest) -> User | None:
        """The user; anonymous without credentials; None where a token is not good."""
        shown = http.transport.get_extra_info("peercert") if http.transport is not None else None
        if shown and (user := user_of_certificate(shown)) is not None:
            assert http.transport is not None
            whole = http.transport.get_extra_info("ssl_object").getpeercert(True)
            return replace(user, extra={CREDENTIAL: (f"X509SHA256={hashlib.sha256(whole).hexdigest()}",)})
        kind, _, token = http.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            return ANONYMOUS
        found = self._tokens.verify(token.strip())
        return None if found is None else found.user


def user_of_certificate(certificate: dict[str, Any]) -> User | None:
    """The user that a client certificate names: the common name is the user, the organisations are the groups."""
    named = [pair for part in certificate.get("subject") or () for pair in part]
    names = [value for key, value in named if key == "commonName"]
    if not names or not names[0]:
        return None
    groups = [value for key, value in named if key == "organizationName"]
    return User(names[0], (*dict.fromkeys([*groups, AUTHENTICATED]),))
