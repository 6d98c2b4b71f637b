"""Validation of custom resources: the value rules of their schema with the texts of kube-apiserver, and CEL rules."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sandlane.kube.patch.values import equal_json
from sandlane.local.apiserver.cel.regexes import compiled
from sandlane.local.apiserver.crd import cel_rules
from sandlane.local.apiserver.crd.formats import FORMATS
from sandlane.local.apiserver.kinds.field_errors import FieldError, too_long, too_many
from sandlane.local.apiserver.schema import Schema

_BLOCKING = frozenset(f"FieldValue{name}" for name in ("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid"))
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def validate(
    value: Any, schema: Schema, path: str = "", old: Any = None, *, updating: bool = False
) -> list[FieldError]:
    """Faults of a value. On an update a value that was as faulty before is let through (ratcheting)."""
    errors = check_values(value, schema, path, old, updating=updating)
    return errors + check_rules(value, schema, path, old, errors, updating=updating)


def check_values(
    value: Any, schema: Schema, path: str = "", old: Any = None, *, updating: bool = False
) -> list[FieldError]:
    """Faults by the value rules of a schema."""
    errors: list[FieldError] = []
    _check(value, schema, path, errors, old, updating)
    return errors


def check_rules(
    value: Any, schema: Schema, path: str, old: Any, found: list[FieldError], *, updating: bool
) -> list[FieldError]:
    """Faults by the CEL rules of a schema, which are not asked where `found` says that the value has another form."""
    if any(error.type in _BLOCKING for error in found):
        return [FieldError("FieldValueInvalid", "<nil>", None, _UNCHECKED)] if cel_rules.has_rules(schema) else []
    errors: list[FieldError] = []
    cel_rules.check(value, schema, path, errors, old, updating)
    return errors


def _check(value: Any, schema: Schema, path: str, errors: list[FieldError], old: Any, updating: bool) -> None:
    if updating and old is not None and equal_json(value, old):
        return
    raw = schema.raw
    if value is None and schema.nullable:
        return
    if not _has_type(value, schema):
        given, wanted = _types_told(value, schema)
        detail = f'{path or "<root>"} in body must be of type {wanted}: "{given}"'
        errors.append(FieldError("FieldValueTypeInvalid", path, given, detail))
        if schema.type == "integer" and isinstance(value, float):
            _unnamed(errors, f"Checked value must be of type {_number_told(schema)} in {path}")
    _check_value(value, schema, path, errors)
    if isinstance(value, dict):
        _check_object(value, schema, path, errors, old, updating)
    elif isinstance(value, list):
        _check_list(value, schema, path, errors, old, updating)
    for branch in raw.get("allOf") or ():
        _check(value, Schema(branch), path, errors, None, False)
    any_of = () if schema.int_or_string else raw.get("anyOf") or ()
    if any_of and not _fitting(value, any_of):
        _unnamed(errors, f'"{path}" must validate at least one schema (anyOf)')
        errors += _nearest(value, any_of, path)
    if (one_of := raw.get("oneOf")) and (count := _fitting(value, one_of)) != 1:
        found = f"Found {count} valid alternatives" if count else "Found none valid"
        _unnamed(errors, f'"{path}" must validate one and only one schema (oneOf). {found}')
        errors += () if count else _nearest(value, one_of, path)
    if (negated := raw.get("not")) is not None and _fitting(value, [negated]):
        _unnamed(errors, f'"{path}" must not validate the schema (not)')


def _types_told(value: Any, schema: Schema) -> tuple[str, str]:
    """The type of a value that has another one than its schema, and the one that it should have."""
    shown = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    if schema.format and value is not None and not isinstance(value, (str, list)):
        return {int: "int64", float: "float64"}.get(type(value), ""), schema.format
    given = "null" if value is None else shown[type(value)]
    return given, "integer,string" if schema.int_or_string else schema.type


def _number_told(schema: Schema) -> str:
    return f"{schema.type} with format {schema.format}" if schema.format else f"{schema.type} (default format)"


def _unnamed(errors: list[FieldError], detail: str) -> None:
    """A fault that kube-apiserver does not tie to a field."""
    errors.append(FieldError("FieldValueInvalid", "<nil>", "", detail))


def _fitting(value: Any, branches: Sequence[Mapping[str, Any]]) -> int:
    """How many of some schemas a value fits."""
    return sum(not _faults_by(value, branch, "") for branch in branches)


def _nearest(value: Any, branches: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    """What keeps a value from the alternative that speaks of most of it."""
    return _faults_by(value, max(branches, key=lambda branch: _spoken_of(value, branch)), path)


def _spoken_of(value: Any, raw: Mapping[str, Any]) -> int:
    """How many parts of a value a schema speaks of."""
    if isinstance(value, dict):
        return 1 + sum(_spoken_of(value[name], child) for name, child in (raw.get("properties") or {}).items() if name in value)  # fmt: skip
    return 1


def _faults_by(value: Any, raw: Mapping[str, Any], path: str) -> list[FieldError]:
    found: list[FieldError] = []
    _check(value, Schema(raw), path, found, None, False)
    return found


def _has_type(value: Any, schema: Schema) -> bool:
    if schema.int_or_string:
        return isinstance(value, (int, str)) and not isinstance(value, bool)
    if not schema.type:
        return True
    if isinstance(value, bool):
        return schema.type == "boolean"
    if schema.type == "string" and schema.format and isinstance(value, list):
        return True  # so says kube-apiserver
    if schema.type == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[schema.type])


def _check_value(value: Any, schema: Schema, path: str, errors: list[FieldError]) -> None:
    raw = schema.raw
    if schema.enum and not any(equal_json(value, allowed) for allowed in schema.enum):
        supported = ", ".join(json.dumps(each) for each in schema.enum)
        errors.append(FieldError("FieldValueNotSupported", path, value, f"supported values: {supported}"))
    at = path or "<root>"

    def invalid(detail: str) -> None:
        errors.append(FieldError("FieldValueInvalid", path, value, f"{at} in body {detail}"))

    if isinstance(value, str):
        if (limit := raw.get("maxLength")) is not None and len(value) > limit:
            errors.append(too_long(path, limit))
        elif (limit := raw.get("minLength")) is not None and len(value) < limit:
            invalid(f"should be at least {limit} chars long")
        elif (pattern := raw.get("pattern")) is not None and not compiled(pattern).search(value):
            invalid(f"should match '{pattern}'")
        check = FORMATS.get(schema.format)
        if check is not None and not check(value):
            detail = f'{at} in body must be of type {schema.format}: "{value}"'
            errors.append(FieldError("FieldValueTypeInvalid", path, value, detail))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = raw.get("minimum"), raw.get("maximum")
        if schema.format == "int32" and not -(2**31) <= value < 2**31:
            _unnamed(errors, f"Checked value must be of type {_number_told(schema)} in {path}")
        if low is not None and raw.get("exclusiveMinimum") and value <= low:
            invalid(f"should be greater than {low}")  # kube-apiserver finds both
        if low is not None and (value < low or (raw.get("exclusiveMinimum") and value == low)):
            invalid(f"should be greater than {'' if raw.get('exclusiveMinimum') else 'or equal to '}{low}")
        if high is not None and raw.get("exclusiveMaximum") and value >= high:
            invalid(f"should be less than {high}")
        if high is not None and (value > high or (raw.get("exclusiveMaximum") and value == high)):
            invalid(f"should be less than {'' if raw.get('exclusiveMaximum') else 'or equal to '}{high}")
        multiple = raw.get("multipleOf")
        if multiple and value % multiple:
            invalid(f"should be a multiple of {multiple}")


def _check_object(
    value: dict[str, Any], schema: Schema, path: str, errors: list[FieldError], old: Any, updating: bool
) -> None:
    raw = schema.raw
    for name in ("apiVersion", "kind") if schema.embedded else ():
        if not value.get(name):
            errors.append(FieldError("FieldValueRequired", f"{path}.{name}", None))
    for name in raw.get("required") or ():
        if name not in value:
            errors.append(FieldError("FieldValueRequired", f"{path}.{name}" if path else name, None, ""))
    if (limit := raw.get("maxProperties")) is not None and len(value) > limit:
        errors.append(too_many(path, len(value), limit))
    if (limit := raw.get("minProperties")) is not None and len(value) < limit:
        errors.append(
            FieldError(
                "FieldValueInvalid",
                path,
                len(value),
                f"{path or '<root>'} in body should have at least {limit} properties",
            )
        )
    before = old if isinstance(old, dict) else {}
    for name, below in value.items():
        if not path and name == "metadata":
            continue
        child = schema.properties.get(name)
        at = f"{path}.{name}" if path else name
        if child is None:
            child = schema.additional
        if child is not None and "$ref" not in child.raw:
            _check(below, child, at, errors, before.get(name), updating)


def _check_list(
    value: list[Any], schema: Schema, path: str, errors: list[FieldError], old: Any, updating: bool
) -> None:
    raw = schema.raw
    if (limit := raw.get("maxItems")) is not None and len(value) > limit:
        errors.append(too_many(path, len(value), limit))
    if (limit := raw.get("minItems")) is not None and len(value) < limit:
        errors.append(
            FieldError("FieldValueInvalid", path, len(value), f"{path} in body should have at least {limit} items")
        )
    if raw.get("uniqueItems"):
        _check_unique(value, value, path, errors)
    if schema.list_type == "set":
        _check_unique(value, value, path, errors)
    elif schema.list_type == "map":
        defaults = schema.items.properties if schema.items else {}
        keys = [
            {
                key: item.get(key, defaults[key].default if key in defaults else None)
                for key in schema.list_keys
                if key in item or key in defaults
            }
            for item in value
            if isinstance(item, dict)
        ]
        _check_unique(keys, keys, path, errors)
    if schema.items is None:
        return
    keyed = schema.list_type == "map"  # only there an item is known to be one of before
    before = _by_key(old, schema) if keyed and isinstance(old, list) else {}
    for index, item in enumerate(value):
        if keyed and not isinstance(item, dict):
            why = "must be an object for an array of list-type map"
            errors.append(FieldError("FieldValueInvalid", f"{path}[{index}]", item, why))
        _check(item, schema.items, f"{path}[{index}]", errors, before.get(_key(item, schema, index)), updating)


def _check_unique(values: list[Any], shown: list[Any], path: str, errors: list[FieldError]) -> None:
    seen: set[str] = set()
    for index, value in enumerate(values):
        text = json.dumps(value, sort_keys=True, default=str)
        if text in seen:
            errors.append(FieldError("FieldValueDuplicate", f"{path}[{index}]", shown[index]))
        seen.add(text)


def _key(item: Any, schema: Schema, index: int) -> str:
    if schema.list_type == "map" and isinstance(item, dict):
        return json.dumps([item.get(key) for key in schema.list_keys])
    return str(index) if schema.list_type != "set" else json.dumps(item, sort_keys=True)


def _by_key(items: list[Any], schema: Schema) -> dict[str, Any]:
    return {_key(item, schema, index): item for index, item in enumerate(items)}
