"""Faults of fields with the texts of Kubernetes' validation, gathered by one `Faults` per object."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sandlane.kube.resource import Object

MIN_ZERO = "must be greater than or equal to 0"
IMMUTABLE = "field is immutable"


OMITTED: Any = msgspec.UNSET
"""In place of a value that is too big to be shown."""


class FieldError(msgspec.Struct, frozen=True):
    """One fault. `type` is the reason of a Status cause (`FieldValueInvalid`); `value` is shown by some types."""

    type: str
    field: str
    value: Any = None
    detail: str = ""

    @property
    def message(self) -> str:
        """The text without the field: `Invalid value: "x": must be ...`."""
        title = _TITLES[self.type]
        if self.type in _WITH_VALUE and self.value is not OMITTED:
            title = f"{title}: {_show(self.value)}"
        return f"{title}: {self.detail}" if self.detail else title


_TITLES = {
    "FieldValueInvalid": "Invalid value",
    "FieldValueRequired": "Required value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
    "FieldValueNotFound": "Not found",
    "FieldValueTypeInvalid": "Invalid value",
}
_WITH_VALUE = frozenset(
    {
        "FieldValueInvalid",
        "FieldValueNotSupported",
        "FieldValueDuplicate",
        "FieldValueNotFound",
        "FieldValueTypeInvalid",
    }
    | {"FieldValueTooMany"}
)


def _show(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return (
        text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
        if isinstance(value, dict)
        else text
    )


def too_many(field: str, count: int, limit: int) -> FieldError:
    """A list or map over its limit."""
    return FieldError("FieldValueTooMany", field, count, f"must have at most {limit} item{'s' * (limit != 1)}")


def too_long(field: str, limit: int) -> FieldError:
    """A text over its limit in bytes."""
    return FieldError("FieldValueTooLong", field, None, f"may not be more than {limit} byte{'s' * (limit != 1)}")


def go_struct(value: Object, fields: str) -> Object:
    """A struct as messages show it: all its `fields` (their names with a small first letter), by the names of Go."""
    return {_go_name(name): _by_go_names(value.get(_json_name(name))) for name in fields.split()}


def _go_name(name: str) -> str:
    return name[:1].upper() + name[1:]


def _json_name(name: str) -> str:
    return "seLinuxOptions" if name == "SELinuxOptions" else "apiGroup" if name == "APIGroup" else name


def _by_go_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {_go_name(name): _by_go_names(each) for name, each in value.items()}
    return value


class Faults:
    """The faults of one object, in the order in which they are found."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self.warnings: list[str] = []

    def invalid(self, field: str, value: Any, detail: str) -> None:
        """A value that cannot be."""
        self.errors.append(FieldError("FieldValueInvalid", field, value, detail))

    def required(self, field: str, detail: str = "") -> None:
        """A value that is missing."""
        self.errors.append(FieldError("FieldValueRequired", field, None, detail))

    def not_supported(self, field: str, value: Any, supported: Iterable[str]) -> None:
        """A value that is not one of a few, which are named in their order."""
        detail = "supported values: " + ", ".join(f'"{each}"' for each in supported)
        self.errors.append(FieldError("FieldValueNotSupported", field, value, detail))

    def duplicate(self, field: str, value: Any) -> None:
        """A value that must be unique and is not."""
        self.errors.append(FieldError("FieldValueDuplicate", field, value))

    def forbidden(self, field: str, detail: str) -> None:
        """A value that may not be set here."""
        self.errors.append(FieldError("FieldValueForbidden", field, None, detail))

    def too_long(self, field: str, limit: int) -> None:
        """A value over its limit in bytes."""
        self.errors.append(too_long(field, limit))

    def not_found(self, field: str, value: Any, detail: str = "") -> None:
        """A value that refers to something that is not there."""
        self.errors.append(FieldError("FieldValueNotFound", field, value, detail))

    def immutable(self, field: str, value: Any, *, same: bool) -> None:
        """A field that may not change, unless it is the same."""
        if not same:
            self.invalid(field, value, IMMUTABLE)

    def non_negative(self, field: str, value: Any) -> None:
        """A number that must not be below zero, where it is given."""
        if value is not None and value < 0:
            self.invalid(field, value, MIN_ZERO)

    def one_of(self, field: str, value: Any, supported: Iterable[str], *, required: bool = False) -> None:
        """One of a few texts; empty is fine unless it is required."""
        if not value:
            if required:
                self.required(field)
        elif value not in supported:
            self.not_supported(field, value, supported)
