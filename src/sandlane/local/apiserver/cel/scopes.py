"""The variables of expressions in admission: match conditions of webhooks, and policies. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from sandlane.local.apiserver.cel import types
from sandlane.local.apiserver.cel.authorizer import AUTHORIZER
from sandlane.local.apiserver.cel.types import DYN, STRING, Field, Type

Variables = tuple[tuple[str, Type], ...]


def _object(**fields: Type) -> Type:
    return Type("object", (), {name: Field(name, type_) for name, type_ in fields.items()}.get)


_KIND = _object(group=STRING, version=STRING, kind=STRING)
_RESOURCE = _object(group=STRING, version=STRING, resource=STRING)
_USER = _object(
    username=STRING,
    uid=STRING,
    groups=types.list_of(STRING),
    extra=types.map_of(STRING, types.list_of(STRING)),
)
_REQUEST = _object(
    kind=_KIND,
    resource=_RESOURCE,
    subResource=STRING,
    requestKind=_KIND,
    requestResource=_RESOURCE,
    requestSubResource=STRING,
    name=STRING,
    namespace=STRING,
    operation=STRING,
    userInfo=_USER,
    dryRun=types.BOOL,
    options=DYN,
)
CONDITIONS: Variables = (("object", DYN), ("oldObject", DYN), ("request", _REQUEST), ("authorizer", AUTHORIZER))
"""What match conditions see."""


def of_policy(*, params: bool, variables: Iterable[str] | None) -> Variables:
    """What a policy's validations see. `variables` are those that it has named before; None for its match conditions."""
    made = (*CONDITIONS, ("namespaceObject", DYN))
    if params:
        made = (*made, ("params", DYN))
    if variables is not None:
        made = (*made, ("variables", _named(tuple(variables))))
    return made


@lru_cache(maxsize=1024)
def _named(names: tuple[str, ...]) -> Type:
    """An object with these fields: the same for the same names."""
    return _object(**dict.fromkeys(names, DYN))
