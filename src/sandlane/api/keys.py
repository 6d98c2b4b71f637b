"""Routing keys: the one given in the spec, or one derived from the object's uid."""

from __future__ import annotations

import hashlib
from functools import lru_cache

LENGTH = 13
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


@lru_cache(maxsize=10_000)
def derive_key(uid: str) -> str:
    """13 lower-case letters and digits (67 bits), the same for the same uid, and not guessable without it."""
    number = int.from_bytes(hashlib.sha256(f"sandlane.dev/routing-key/{uid}".encode()).digest())
    digits = []
    for _ in range(LENGTH):
        number, digit = divmod(number, 36)
        digits.append(_ALPHABET[digit])
    return "".join(digits)


def routing_key(uid: str, wanted: str) -> str:
    """The key of a Sandbox or RouteGroup with this uid whose spec asks for `wanted` (or for none)."""
    return wanted or derive_key(uid)
