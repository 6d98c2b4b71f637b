"""Objects at rest and as a version shows them. Where versions are converted by a webhook, both ways may take a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sandlane.kube.patch.values import copy_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.store.objects import Listing


class _Versioned(msgspec.Struct):
    apiVersion: str


View = Callable[[ResourceType, bytes], Object]
"""Gives an object at rest as a version shows it."""


def decode(type_: ResourceType, data: bytes) -> Object:
    """An object at rest in the form of a version that needs no webhook."""
    obj: Object = msgspec.json.decode(data)
    return type_.from_storage(obj) if type_.from_storage else obj


async def show(type_: ResourceType, *data: bytes) -> list[Object]:
    """Objects at rest in the form of a version. Raises `StatusError` when they cannot be converted."""
    if type_.conversion is None:
        return [decode(type_, each) for each in data]
    objects: list[Object] = [msgspec.json.decode(each) for each in data]
    return await _converted(type_, objects)


def is_current(type_: ResourceType, data: bytes) -> bool:
    """Whether an object lies there in the version in which it would be stored now."""
    if not type_.storage_version:
        return True
    kept: str = msgspec.json.decode(data, type=_Versioned).apiVersion
    return kept == f"{type_.resource.group}/{type_.storage_version}"


async def view(type_: ResourceType, listing: Listing) -> View:
    """How to decode the objects of a listing: those that a webhook has to convert are so already."""
    if type_.conversion is None:
        return decode
    shown = dict(
        zip(
            (id(stored.data) for _, stored in listing),
            await show(type_, *(stored.data for _, stored in listing)),
            strict=True,
        )
    )
    return lambda _, data: shown[id(data)]


async def rest(type_: ResourceType, obj: Object) -> Object:
    """The form in which an object of a version is kept. Raises `StatusError` when it cannot be converted."""
    if type_.conversion is not None:
        kept = f"{type_.resource.group}/{type_.storage_version}"
        return obj if obj["apiVersion"] == kept else (await type_.conversion.convert([obj], kept))[0]
    return type_.to_storage(copy_json(obj)) if type_.to_storage else obj


async def as_kept(type_: ResourceType, obj: Object, kept: Object) -> Object:
    """What a version shows of `obj` once it lies there as `kept`: a webhook need not give back all that it was given,
    and a status that was taken off comes back with its defaults."""
    if not type_.custom:
        return obj
    if kept is obj or kept["apiVersion"] == obj["apiVersion"]:
        type_.strategy.default(obj)
        return obj
    version = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
    kept = {**kept, "metadata": kept["metadata"] | version}
    if type_.conversion is not None:
        return (await _converted(type_, [kept]))[0]
    assert type_.from_storage is not None
    return type_.from_storage(copy_json(kept))


async def translate(obj: Object, source: ResourceType, target: ResourceType) -> Object:
    """An object of one version in the form of another version. Raises `StatusError` when it cannot be converted."""
    if source is target:
        return obj
    if target.conversion is not None:
        return (await _converted(target, [copy_json(obj)]))[0]
    kept = source.to_storage(copy_json(obj)) if source.to_storage else copy_json(obj)
    return target.from_storage(kept) if target.from_storage else kept


async def _converted(type_: ResourceType, objects: Sequence[Object]) -> list[Object]:
    """Objects of any versions in the form of a version: one call for all that need it."""
    assert type_.conversion is not None
    assert type_.from_storage is not None
    wanted = type_.resource.api_version
    others = [obj for obj in objects if obj["apiVersion"] != wanted]
    for obj in others:
        if (own := type_.versions.get(obj["apiVersion"])) is not None:
            own.strategy.default(obj)
    made = iter(await type_.conversion.convert(others, wanted) if others else ())
    shown = [obj if obj["apiVersion"] == wanted else next(made) for obj in objects]
    for obj in shown:
        type_.strategy.prune(obj)
    return shown
