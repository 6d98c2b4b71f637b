"""What differs between two versions of an object, field by field. Pure.

A field is added, removed or modified by the rules of structured-merge-diff: maps and keyed lists are looked into, and count as added
or removed themselves when one side lacks them; everything else is one value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sandlane.kube.patch.values import equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.managed_fields.fieldset import (
    STRIPPED,
    FieldSet,
    Path,
    child_schema,
    is_granular_map,
    item_element,
    list_kind,
)
from sandlane.local.apiserver.schema import Schema

_ABSENT: Any = object()
_METADATA = "f:metadata"


@dataclass(frozen=True)
class Comparison:
    """Paths that came, that have another value, and that went."""

    added: FieldSet
    modified: FieldSet
    removed: FieldSet

    @property
    def changed(self) -> FieldSet:
        """What came or changed."""
        return self.added | self.modified


def compare(old: Any, new: Any, schema: Schema | None) -> Comparison:
    """What differs. A new object of a built-in kind is compared with a blank one, whose structs are always there."""
    walker = _Walker()
    walker.compare(old, new, schema, ())
    return Comparison(frozenset(walker.added), frozenset(walker.modified), frozenset(walker.removed))


def fields_of_new(obj: Object, schema: Schema | None, blank: Object, *, status: bool) -> Object:
    """The `FieldsV1` of what a new object brings: what comparing it with a blank one finds. `status`: whether that counts."""
    made: Object = {}
    for name in sorted(obj):
        if name == "metadata":
            below = {key: value for key, value in obj[name].items() if (_METADATA, f"f:{key}") not in STRIPPED}
            found = _new_map(below, child_schema(schema, name), blank.get(name) or {})
            if found:
                made[_METADATA] = found
        elif name not in ("apiVersion", "kind") and (status or name != "status"):
            made |= _new_map({name: obj[name]}, schema, blank)
    return made


def _new_fields(value: Any, schema: Schema | None, blank: Any) -> Object:
    """What is below one path that is new; with `.` where the path is a member itself."""
    if not value:
        return {}
    if isinstance(value, dict):
        if not is_granular_map(value, schema):
            return {}
        made = _new_map(value, schema, _of(dict, blank))
    elif isinstance(value, list) and list_kind(schema) in ("set", "map"):
        items = schema.items if schema is not None and list_kind(schema) == "map" else None
        elements = {item_element(item, schema): item for item in value}
        made = {element: _new_fields(elements[element], items, _ABSENT) for element in sorted(elements)}
        if len(elements) != len(value):
            made |= {key: {} for key in _repeated(value, schema)}
    else:
        return {}
    return {".": {}, **made} if blank is _ABSENT else made


def _new_map(value: dict[str, Any], schema: Schema | None, blank: dict[str, Any]) -> Object:
    made: Object = {}
    for name in sorted(value):
        before = blank.get(name, _ABSENT)
        if before is _ABSENT or not equal_json(value[name], before):
            made[f"f:{name}"] = _new_fields(value[name], child_schema(schema, name), before)
    return made


class _Walker:
    def __init__(self) -> None:
        self.added: set[Path] = set()
        self.modified: set[Path] = set()
        self.removed: set[Path] = set()

    def compare(self, old: Any, new: Any, schema: Schema | None, at: Path) -> None:
        """Compare what is at one path; `_ABSENT` for nothing."""
        if type(old) is type(new) and old == new:
            return
        if not isinstance(old, (dict, list)) and not isinstance(new, (dict, list)):
            self._leaf(old, new, at)
            return
        maps = _both(dict, old, new) and is_granular_map(new if new is not _ABSENT else old, schema)
        lists = _both(list, old, new) and list_kind(schema) in ("set", "map")
        if not (maps or lists) or not (_items(old) or _items(new)):
            self._leaf(old, new, at)
            return
        if maps:
            self._maps(_of(dict, old), _of(dict, new), schema, at)
        else:
            self._lists(_of(list, old), _of(list, new), schema, at)
        if old is _ABSENT:
            self.added.add(at)
        elif new is _ABSENT:
            self.removed.add(at)

    def _maps(self, old: dict[str, Any], new: dict[str, Any], schema: Schema | None, at: Path) -> None:
        for name in old.keys() | new.keys():
            below = child_schema(schema, name)
            self.compare(old.get(name, _ABSENT), new.get(name, _ABSENT), below, (*at, f"f:{name}"))

    def _lists(self, old: list[Any], new: list[Any], schema: Schema | None, at: Path) -> None:
        items = schema.items if schema is not None and list_kind(schema) == "map" else None
        before = {item_element(item, schema): item for item in old}
        after = {item_element(item, schema): item for item in new}
        repeated = _repeated(new, schema) if len(after) != len(new) else set()
        for element in repeated:
            if element not in before:
                self.added.add((*at, element))
            elif not equal_json(old, new):
                self.modified.add((*at, element))
        for element in (before.keys() | after.keys()) - repeated:
            self.compare(before.get(element, _ABSENT), after.get(element, _ABSENT), items, (*at, element))

    def _leaf(self, old: Any, new: Any, at: Path) -> None:
        if old is _ABSENT:
            self.added.add(at)
        elif new is _ABSENT:
            self.removed.add(at)
        elif not equal_json(old, new):
            self.modified.add(at)


def _repeated(items: list[Any], schema: Schema | None) -> set[str]:
    """The elements of items that are there more than once: they are managed as one, whatever is in them."""
    counts = Counter(item_element(item, schema) for item in items)
    return {element for element, count in counts.items() if count > 1}


def _both(kind: type, old: Any, new: Any) -> bool:
    """Whether both sides are of a kind, as far as they are there; null will do for either."""
    left = old is _ABSENT or old is None
    right = new is _ABSENT or new is None
    return (left or isinstance(old, kind)) and (right or isinstance(new, kind)) and not (left and right)


def _items(value: Any) -> bool:
    return value is not _ABSENT and bool(value)


def _of(kind: Any, value: Any) -> Any:
    return value if isinstance(value, kind) else kind()
