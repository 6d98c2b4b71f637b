"""From JSON values to what kube-apiserver keeps of them: types checked, unknown fields out, one canonical form.

Go's typed round trip is what clients see of a real server: empty optional values vanish, structs and required values
are always there, quantities and times come back in one form. `conform` does all of that in one pass.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import msgspec

from sandlane.kube.quantity import QuantityError, canonical_quantity
from sandlane.kube.resource import Object
from sandlane.local.apiserver.wire.times import canonical_micro_time, canonical_time
from sandlane.local.apiserver.wire.types import Field, fields_of

_Path: TypeAlias = "tuple[_Path, str] | None"
_Convert: TypeAlias = Callable[[Any, _Path, "Conformer"], Any]

_GO_TYPES = {"s": "string", "b": "bool", "i": "int32", "l": "int64", "f": "float64"}
_BASE64 = re.compile("[A-Za-z0-9+/]*")
_ABSENT = msgspec.UNSET
_MAP_KEY = "\0"  # marks a segment of a path that is the key of a map, not the name of a field


class DecodeError(ValueError):
    """A value of a type that its field cannot have."""


class Conformer:
    """Gathers the unknown fields of one object, in document order."""

    def __init__(self) -> None:
        self.unknown: list[str] = []


def conform(obj: Object, definition: str) -> tuple[Object, list[str]]:
    """A new object as kube-apiserver would keep it, and the paths of fields that it does not know.

    Raises DecodeError with the text of Go's JSON decoder when a field has a value of the wrong type.
    """
    conformer = Conformer()
    result: Object = _struct(definition).convert(obj, None, conformer)
    return result, conformer.unknown


def render_path(path: _Path, *, indexes: bool = True) -> str:
    """`spec.containers[0].name`, or without indexes and map keys `spec.containers.name`."""
    parts: list[str] = []
    while path is not None:
        path, segment = path
        parts.append(segment)
    text = ""
    for segment in reversed(parts):
        if segment.startswith(("[", _MAP_KEY)) and not indexes:
            continue
        text += segment if segment.startswith("[") or not text else f".{segment.removeprefix(_MAP_KEY)}"
    return text


def _mismatch(value: Any, path: _Path, wanted: str, owner: str = "") -> DecodeError:
    if isinstance(value, bool):
        got = "bool"
    elif isinstance(value, (int, float)):
        got = f"number {value}" if wanted in ("int32", "int64") else "number"
    else:
        got = {str: "string", list: "array", dict: "object", type(None): "null"}.get(type(value), "value")
    if path is None:
        return DecodeError(f"json: cannot unmarshal {got} into Go value of type {wanted}")
    field = render_path(path, indexes=False)
    return DecodeError(f"json: cannot unmarshal {got} into Go struct field {owner}.{field} of type {wanted}")


class _Struct:
    """The compiled form of one definition."""

    def __init__(self, definition: str) -> None:
        self.name = definition.rpartition(".")[2]
        self.fields: dict[str, tuple[_Convert, bool]] | None = (
            None  # made at the first use: types may refer to each other
        )
        self.fill: list[tuple[str, Callable[[], Any]]] = []
        self._definition = definition

    def compile(self) -> dict[str, tuple[_Convert, bool]]:
        """Converters by field name; the flag says whether an empty value vanishes."""
        fields: dict[str, tuple[_Convert, bool]] = {}
        for field in _flat(self._definition):
            drop = (
                field.omit_empty
                and not field.pointer
                and not field.type.startswith((".", "T", "M", "I", "Q", "R", "F", "J"))
                and field.name != "managedFields"  # an empty list asks to forget them
            )
            convert = _converter(field.type, self.name)
            fields[field.name] = (_or_null(convert) if _is_bare_list(field) else convert, drop)
            maker = _filler(field)
            if maker is not None:
                self.fill.append((field.name, maker))
        self.fields = fields
        return fields

    def convert(self, value: Any, path: _Path, conformer: Conformer, owner: str = "") -> Object:
        """A new dict with the fields that the definition knows."""
        if not isinstance(value, dict):
            raise _mismatch(value, path, f"v1.{self.name}", owner or self.name)
        fields = self.fields if self.fields is not None else self.compile()
        result: Object = {}
        for key, each in value.items():
            field = fields.get(key)
            if field is None:
                conformer.unknown.append(render_path((path, key)))
            elif each is not None:
                converted = field[0](each, (path, key), conformer)
                if converted is not _ABSENT and (converted or not field[1]):
                    result[key] = converted
        for key, maker in self.fill:
            if key not in result:
                result[key] = maker()
        return result


def _is_bare_list(field: Field) -> bool:
    """A list that is always written; kept in protobuf, an empty one comes back as null."""
    return field.type.startswith("[") and not field.omit_empty and not field.omit_zero


def _or_null(convert: _Convert) -> _Convert:
    return lambda value, path, conformer: convert(value, path, conformer) or None


@cache
def _struct(definition: str) -> _Struct:
    return _Struct(definition)


def _flat(definition: str) -> list[Field]:
    """Fields as JSON has them: those of inlined types among the type's own."""
    fields: list[Field] = []
    for field in fields_of(definition):
        fields += _flat(field.type[1:]) if field.inline else [field]
    return fields


def _filler(field: Field) -> Callable[[], Any] | None:
    """What Go writes for the field when nothing is known of it; None where it writes nothing."""
    kind = field.type[0]
    if field.pointer:
        return None if field.omit_empty or field.omit_zero else lambda: None
    if kind == ".":
        definition = field.type[1:]
        return None if field.omit_zero else lambda: _struct(definition).convert({}, None, Conformer())
    if field.omit_zero or (field.omit_empty and kind not in "TMIQRF"):
        return None
    zero = {"s": "", "b": False, "i": 0, "l": 0, "f": 0, "I": 0, "Q": "0"}.get(kind)
    return lambda: zero


@cache
def _converter(type_: str, owner: str) -> _Convert:
    kind = type_[0]
    if kind == ".":
        target = _struct(type_[1:])
        return lambda value, path, conformer: target.convert(value, path, conformer, owner)
    if kind == "[":
        return _list_of(_converter(type_[1:], owner), type_[1:], owner)
    if kind == "{":
        return _map_of(_converter(type_[1:], owner), type_[1:], owner)
    return _scalar(kind, owner)


def _list_of(convert: _Convert, item: str, owner: str) -> _Convert:
    empty = _EMPTY.get(item[0])

    def convert_list(value: Any, path: _Path, conformer: Conformer) -> Any:
        if type(value) is not list:
            raise _mismatch(value, path, f"[]{_go_type(item)}", owner)
        return [
            convert(each if each is not None else empty, (path, f"[{index}]"), conformer)
            for index, each in enumerate(value)
        ]

    return convert_list


def _map_of(convert: _Convert, item: str, owner: str) -> _Convert:
    empty = _EMPTY.get(item[0])

    def convert_map(value: Any, path: _Path, conformer: Conformer) -> Any:
        if type(value) is not dict:
            raise _mismatch(value, path, f"map[string]{_go_type(item)}", owner)
        return {
            key: convert(each if each is not None else empty, (path, _MAP_KEY + key), conformer)
            for key, each in value.items()
        }

    return convert_map


_EMPTY: dict[str, Any] = {
    "s": "",
    "b": False,
    "i": 0,
    "l": 0,
    "f": 0,
    "y": "",
    ".": {},
    "{": {},
    "[": [],
    "Q": "0",
    "I": 0,
}


def _go_type(type_: str) -> str:
    if type_[0] == ".":
        return f"v1.{type_.rpartition('.')[2]}"
    if type_[0] in "[{":
        return ("[]" if type_[0] == "[" else "map[string]") + _go_type(type_[1:])
    return _GO_TYPES.get(type_[0], "string")


def _scalar(kind: str, owner: str) -> _Convert:
    if kind == "s":
        return _exactly(str, "string", owner)
    if kind == "b":
        return _exactly(bool, "bool", owner)
    if kind in "il":
        return _integer(31 if kind == "i" else 63, owner)
    if kind == "f":
        return _number(owner)
    if kind == "I":
        return _int_or_string(owner)
    if kind in "RFJ":
        return lambda value, path, conformer: value
    return _text(kind, owner)


def _exactly(wanted: type, name: str, owner: str) -> _Convert:
    def convert(value: Any, path: _Path, conformer: Conformer) -> Any:
        if type(value) is not wanted:
            raise _mismatch(value, path, name, owner)
        return value

    return convert


def _integer(bits: int, owner: str) -> _Convert:
    limit = 1 << bits

    def convert(value: Any, path: _Path, conformer: Conformer) -> Any:
        if type(value) is not int or not -limit <= value < limit:
            raise _mismatch(value, path, f"int{bits + 1}", owner)
        return value

    return convert


def _number(owner: str) -> _Convert:
    def convert(value: Any, path: _Path, conformer: Conformer) -> Any:
        if type(value) not in (int, float):
            raise _mismatch(value, path, "float64", owner)
        return value

    return convert


def _int_or_string(owner: str) -> _Convert:
    def convert(value: Any, path: _Path, conformer: Conformer) -> Any:
        if type(value) not in (int, str) or (type(value) is int and not -(1 << 31) <= value < 1 << 31):
            raise _mismatch(value, path, "int32", owner)
        return value

    return convert


def _text(kind: str, owner: str) -> _Convert:
    """A scalar that is written as a string with rules of its own."""

    def convert(value: Any, path: _Path, conformer: Conformer) -> Any:
        if kind == "Q" and type(value) in (int, float):
            value = str(value)
        if value is None and kind in "TM":
            return None  # in a list or a map; the zero time is written as null
        if type(value) is not str:
            raise _mismatch(value, path, _TEXT_NAMES[kind], owner)
        if not value and kind in "TM":
            return _ABSENT
        try:
            return _TEXTS[kind](value)
        except (QuantityError, ValueError) as error:
            raise DecodeError(str(error)) from error

    return convert


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error as error:
        plain = text.replace("\n", "").replace("\r", "")
        if plain != text:
            return _base64(plain)
        raise ValueError(f"illegal base64 data at input byte {_where_base64_ends(text)}") from error
    return text


def _where_base64_ends(text: str) -> int:
    """Where a decoder gives up: at the first strange character, or where the last four begin that are not whole."""
    digits = _BASE64.match(text)
    assert digits is not None
    end, rest = digits.end(), text[digits.end() :]
    if not rest:
        return end - end % 4
    if rest[0] != "=" or end % 4 < 2:
        return end
    padding = 4 - end % 4
    if rest.startswith("=" * padding):
        return end + padding
    return len(text) if rest == "=" else end + 1


_TEXT_NAMES = {"Q": "resource.Quantity", "T": "v1.Time", "M": "v1.MicroTime", "D": "v1.Duration", "y": "[]uint8"}
_TEXTS: dict[str, Callable[[str], str]] = {
    "Q": lambda text: canonical_quantity(text.strip()),
    "T": canonical_time,
    "M": canonical_micro_time,
    "D": str,
    "y": _base64,
}
