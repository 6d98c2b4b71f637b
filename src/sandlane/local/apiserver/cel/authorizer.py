"""`authorizer` in expressions of admission: asks whether somebody may do something. Pure but for the `Decide` that it is given.

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sandlane.local.apiserver.cel.types import Field, Type

_PREFIX = "kubernetes.authorization."
RESOURCE_CHECK = Type(f"{_PREFIX}ResourceCheck")
AUTHORIZER = Type(f"{_PREFIX}Authorizer", (), {"requestResource": Field("requestResource", RESOURCE_CHECK)}.get)
_PATH, _GROUP, _DECISION = f"{_PREFIX}PathCheck", f"{_PREFIX}GroupCheck", f"{_PREFIX}Decision"

Decide = Callable[[str, tuple[str, ...], dict[str, str]], str | None]
"""User, groups and what is asked for (`verb`, `group`, `resource`, `path`, ...): why it is allowed, or None."""


class Authorizer(msgspec.Struct, frozen=True):
    """Somebody whose rights can be asked for; `asked` fills up, step by step."""

    cel_type: str
    decide: Decide
    user: str
    groups: tuple[str, ...]
    asked: dict[str, str] = {}
    fields: dict[str, Any] = {}
    """What can be read of it: `requestResource`, a check of what the request is for."""

    def of(self, cel_type: str, **asked: str) -> Authorizer:
        """The next step."""
        return msgspec.structs.replace(self, cel_type=cel_type, asked={**self.asked, **asked})


class Decision(msgspec.Struct, frozen=True):
    """What came out: `why` is None where it is not allowed."""

    cel_type: str
    why: str | None


def _check(at: Authorizer, verb: str) -> Decision:
    return Decision(_DECISION, at.decide(at.user, at.groups, {**at.asked, "verb": verb}))


def _service_account(at: Authorizer, namespace: str, name: str) -> Authorizer:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return msgspec.structs.replace(at, user=f"system:serviceaccount:{namespace}:{name}", groups=groups)


def _step(cel_type: str, field: str) -> Callable[[Authorizer, str], Authorizer]:
    return lambda at, value: at.of(cel_type, **{field: value})


ROWS: list[tuple[str, str, Callable[..., Any]]] = [
    ("path", f"{AUTHORIZER}.(string) {_PATH}", _step(_PATH, "path")),
    ("group", f"{AUTHORIZER}.(string) {_GROUP}", _step(_GROUP, "group")),
    ("serviceAccount", f"{AUTHORIZER}.(string, string) {AUTHORIZER}", _service_account),
    ("resource", f"{_GROUP}.(string) {RESOURCE_CHECK}", _step(RESOURCE_CHECK.name, "resource")),
    *(
        (name, f"{RESOURCE_CHECK}.(string) {RESOURCE_CHECK}", _step(RESOURCE_CHECK.name, name))
        for name in ("subresource", "namespace", "name", "fieldSelector", "labelSelector")
    ),
    *(("check", f"{type_}.(string) {_DECISION}", _check) for type_ in (_PATH, RESOURCE_CHECK)),
    ("allowed", f"{_DECISION}.() bool", lambda decision: decision.why is not None),
    ("reason", f"{_DECISION}.() string", lambda decision: decision.why or ""),
    ("errored", f"{_DECISION}.() bool", lambda decision: False),
    ("error", f"{_DECISION}.() string", lambda decision: ""),
]
"""Functions: name, signature, what does it."""
