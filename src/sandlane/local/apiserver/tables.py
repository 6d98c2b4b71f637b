"""Tables for `kubectl get`: columns and cells of each kind, with the names and texts of Kubernetes 1.36."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sandlane.kube.clock import SystemClock, parse_timestamp
from sandlane.kube.resource import Object, Resource
from sandlane.local.apiserver.printers import PRINTERS
from sandlane.local.apiserver.printers_data import DATA_PRINTERS
from sandlane.local.apiserver.resource_type import Column, ResourceType
from sandlane.local.apiserver.schema import Schema

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_NOW: Callable[[], datetime] = SystemClock().now


def age(stamp: str | None) -> str:
    """A time as its distance from now, as kubectl prints ages."""
    if not stamp:
        return "<unknown>"
    return duration((_NOW().astimezone(UTC) - parse_timestamp(stamp)).total_seconds())


def duration(seconds: float) -> str:
    """Seconds as `2m`, `3h5m`, `4d`, as kubectl prints durations."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 0:
        return "0s"
    if total < 120:
        return f"{total}s"
    minutes = total // 60
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    years, rest = divmod(days, 365)
    if years < 8:
        return f"{years}y{rest}d" if rest else f"{years}y"
    return f"{years}y"


def builtin_columns(resource: Resource) -> tuple[Column, ...]:
    """The columns of a built-in kind beside its name; `Age` alone for those without a printer of their own."""
    key = (resource.group, resource.kind)
    return PRINTERS.get(key) or DATA_PRINTERS.get(key, ())


def table_columns(type_: ResourceType) -> list[Object]:
    """`columnDefinitions`."""
    name = Column("Name", format="name", description=_describe("name"))
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description or _describe_column(column.name),
            "priority": column.priority,
        }
        for column in (name, *_columns(type_))
    ]


def table_row(type_: ResourceType, obj: Object) -> list[Any]:
    """`cells`."""
    return [obj["metadata"]["name"], *(_cell(column, obj) for column in _columns(type_))]


def _columns(type_: ResourceType) -> tuple[Column, ...]:
    if type_.columns:
        return type_.columns
    stamp: Callable[[Object], Any] = lambda obj: obj["metadata"].get("creationTimestamp")  # noqa: E731
    return (
        Column(
            "Created At" if not type_.custom else "Age", "date", description=_describe("creationTimestamp"), read=stamp
        ),
    )


def _cell(column: Column, obj: Object) -> Any:
    value = column.read(obj)
    if column.name == "Age" and column.type in ("string", "date") and isinstance(value, str):
        return age(value)
    if column.type == "date" and isinstance(value, str) and column.name != "Created At":
        return age(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"))
    return value


def _describe(field: str) -> str:
    return str(Schema.builtin(_META).raw["properties"][field]["description"])


def _describe_column(name: str) -> str:
    return _describe("creationTimestamp") if name in ("Age", "Created At") else ""
