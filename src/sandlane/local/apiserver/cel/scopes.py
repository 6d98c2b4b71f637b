"""The variables of expressions in admission: match conditions of webhooks, and policies. Pure."""

from __future__ import annotations

from collections.abc import Mapping
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


_NAMES = types.map_of(STRING, STRING)
_NAMESPACE = _object(
    metadata=_object(
        **dict.fromkeys(("name", "generateName", "namespace", "uid", "UID", "resourceVersion"), STRING),
        labels=_NAMES,
        annotations=_NAMES,
        **dict.fromkeys(("creationTimestamp", "deletionTimestamp"), DYN),
        **dict.fromkeys(("deletionGracePeriodSeconds", "generation"), types.INT),
        finalizers=types.list_of(STRING),
    ),
    spec=_object(finalizers=types.list_of(STRING)),
    status=_object(
        conditions=types.list_of(
            _object(**dict.fromkeys(("status", "type", "message", "reason"), STRING), lastTransitionTime=DYN)
        ),
        phase=STRING,
    ),
)


def of_policy(*, params: bool | Type, variables: Mapping[str, Type] | None, of: Type = DYN) -> Variables:
    """What a policy's validations see. `variables` are those that it has named before, None for its match conditions;
    `params` whether it takes any, or their type; `of` is the type of the object, where one is known."""
    made: Variables = (("object", of), ("oldObject", of), *CONDITIONS[2:], ("namespaceObject", _NAMESPACE))
    if params:
        made = (*made, ("params", params if isinstance(params, Type) else DYN))
    if variables is not None:
        known = ((name, types.resolved(type_, {})) for name, type_ in variables.items())
        made = (*made, ("variables", _named(tuple(known))))
    return made


@lru_cache(maxsize=1024)
def _named(fields: Variables) -> Type:
    """An object with these fields: the same for the same fields."""
    return _object(**dict(fields))
