"""Strategic merge patch: a merge patch that knows which lists are merged by key, with directives.

The rules are those of https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md:
`$patch: replace | delete` on a map or a list item, `$retainKeys`, `$deleteFromPrimitiveList/<list>` and
`$setElementOrder/<list>`. A list is merged where the schema says strategy `merge`, by its merge key if it holds maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sandlane.kube.patch.errors import MalformedPatchError, PatchDirectiveError, PatchError
from sandlane.kube.patch.values import copy_json, equal_json, go_text

_PATCH = "$patch"
_RETAIN_KEYS = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


class PatchSchema(Protocol):
    """What a strategic merge asks of a schema node."""

    @property
    def properties(self) -> Mapping[str, PatchSchema]:
        """Named fields."""

    @property
    def items(self) -> PatchSchema | None:
        """What each item of a list is."""

    @property
    def additional(self) -> PatchSchema | None:
        """What each value of a map is."""

    @property
    def merge_key(self) -> str:
        """The field that identifies an item of a list that is merged, or empty."""

    @property
    def merge_strategy(self) -> frozenset[str]:
        """Any of `merge`, `replace`, `retainKeys`."""


def strategic_merge_patch(document: Any, patch: Any, schema: PatchSchema | None) -> Any:
    """`document` with `patch` merged into it as `schema` says. Raises PatchError when the patch does not fit."""
    if not isinstance(document, dict) or not isinstance(patch, dict):
        raise MalformedPatchError("a strategic merge patch is an object, and patches an object")
    return _merge_map(copy_json(document), copy_json(patch), schema)


def _child(schema: PatchSchema | None, key: str) -> PatchSchema | None:
    if schema is None:
        return None
    return schema.properties.get(key) or schema.additional


def _merge_map(original: dict[str, Any], patch: dict[str, Any], schema: PatchSchema | None) -> dict[str, Any]:
    """Merge `patch` into `original`; both are private copies and used up."""
    if _PATCH in patch:
        directive = patch.pop(_PATCH)
        if directive == "replace":
            replaced: dict[str, Any] = _drop_directives(patch)
            return replaced
        if directive == "delete":
            return {}
        raise PatchDirectiveError(f"unknown patch type: {directive} in map: {go_text({_PATCH: directive, **patch})}")
    _retain_keys(original, patch)
    _merge_ordered_lists(original, patch, schema)
    for patch_key, value in patch.items():
        deletes = patch_key.startswith(_DELETE_FROM)
        key = patch_key.removeprefix(_DELETE_FROM)
        if deletes and not isinstance(value, list):
            raise MalformedPatchError(f"{patch_key}: a list of the items to delete is wanted")
        if value is None:
            original.pop(key, None)
        elif key not in original or not _same_kind(original[key], value):
            if not deletes:
                original[key] = _drop_directives(value)
        elif isinstance(value, dict):
            inner = _child(schema, key)
            replace = inner is not None and "replace" in inner.merge_strategy
            original[key] = _drop_directives(value) if replace else _merge_map(original[key], value, inner)
        elif isinstance(value, list):
            original[key] = _merge_list_field(original[key], value, _child(schema, key), deletes=deletes)
        else:
            original[key] = value
    return original


def _same_kind(left: Any, right: Any) -> bool:
    return isinstance(left, dict) == isinstance(right, dict) and isinstance(left, list) == isinstance(right, list)


def _retain_keys(original: dict[str, Any], patch: dict[str, Any]) -> None:
    if _RETAIN_KEYS not in patch:
        return
    keys = patch.pop(_RETAIN_KEYS)
    if not isinstance(keys, list):
        raise MalformedPatchError(f"{_RETAIN_KEYS}: a list of keys is wanted")
    for key in patch:
        plain = key.removeprefix(_DELETE_FROM).removeprefix(_ORDER)
        if patch[key] is not None and plain not in keys:
            raise MalformedPatchError(f"{_RETAIN_KEYS}: the patch sets {plain}, which is not in the list")
    for key in [key for key in original if key not in keys]:
        del original[key]


def _merge_ordered_lists(original: dict[str, Any], patch: dict[str, Any], schema: PatchSchema | None) -> None:
    """Merge the lists that a `$setElementOrder` directive names, and take them out of the patch."""
    for directive in [key for key in patch if key.startswith(_ORDER)]:
        order = patch.pop(directive)
        key = directive.removeprefix(_ORDER)
        if not isinstance(order, list):
            raise MalformedPatchError(f"{directive}: a list is wanted")
        inner = _child(schema, key)
        merge_key = inner.merge_key if inner is not None else ""
        changes, current = patch.get(key), original.get(key)
        if not isinstance(changes, list) and not isinstance(current, list):
            continue
        current = current if isinstance(current, list) else []
        deletes = patch.pop(f"{_DELETE_FROM}{key}", None)
        if isinstance(deletes, list):
            current = _delete_scalars(current, deletes)
        if isinstance(changes, list):
            del patch[key]
            if not current:
                # Nothing to merge with: the items as they are, in the order asked for.
                merged = _drop_directives(changes)
            else:
                _check_order(changes, order, merge_key, directive)
                merged = _merge_list(current, changes, inner, deletes=False)
        else:
            merged = current
        original[key] = _arrange(merged, order, current, merge_key)


def _check_order(changes: list[Any], order: list[Any], merge_key: str, directive: str) -> None:
    """Items of the patch must all be in the order list, in the same relative order."""
    places = []
    for item in changes:
        if isinstance(item, dict) and _PATCH in item:
            continue
        place = _position(order, _identity(item, merge_key), merge_key)
        if place < 0:
            raise MalformedPatchError(f"{directive}: an item of the patch is missing from it")
        places.append(place)
    if places != sorted(places):
        raise MalformedPatchError(f"{directive}: the items of the patch come in another order")


def _merge_list_field(original: list[Any], patch: list[Any], schema: PatchSchema | None, *, deletes: bool) -> list[Any]:
    if schema is None or "merge" not in schema.merge_strategy:
        if deletes:
            return _delete_scalars(original, patch)
        replaced: list[Any] = _drop_directives(patch)
        return replaced
    return _merge_list(original, patch, schema, deletes=deletes)


def _merge_list(original: list[Any], patch: list[Any], schema: PatchSchema | None, *, deletes: bool) -> list[Any]:
    if not original and not patch:
        return original
    kinds = {
        ("map" if isinstance(each, dict) else "list" if isinstance(each, list) else "") for each in original + patch
    }
    if "list" in kinds:
        raise PatchError("lists of lists cannot be merged")
    if len(kinds) > 1:
        raise PatchError("a list of maps cannot be merged with one of other values")
    if kinds == {""}:
        if deletes:
            return _delete_scalars(original, patch)
        merged: list[Any] = []
        for each in original + patch:
            if not any(equal_json(each, other) for other in merged):
                merged.append(each)
        return _arrange(merged, patch, original, "")
    merge_key = schema.merge_key if schema is not None else ""
    if not merge_key:
        raise PatchDirectiveError("cannot merge lists without merge key")
    original, patch = _special_items(original, patch, merge_key)
    merged = list(original)
    for item in patch:
        if merge_key not in item:
            raise PatchDirectiveError(f"map: {go_text(item)} does not contain declared merge key: {merge_key}")
        place = _position(merged, item[merge_key], merge_key)
        if place < 0:
            merged.append(_drop_directives(item))
        else:
            merged[place] = _merge_map(merged[place], dict(item), schema.items if schema is not None else None)
    return _arrange(merged, patch, original, merge_key)


def _special_items(original: list[Any], patch: list[Any], merge_key: str) -> tuple[list[Any], list[Any]]:
    """Carry out `$patch` items; what is left of both lists."""
    plain: list[Any] = []
    replace = False
    for item in patch:
        directive = item.get(_PATCH)
        if directive is None:
            plain.append(item)
        elif directive == "delete":
            if merge_key not in item:
                raise PatchDirectiveError("delete patch type with no merge key defined")
            original = [each for each in original if not equal_json(each.get(merge_key), item[merge_key])]
        elif directive == "replace":
            replace = True
        else:
            raise PatchDirectiveError(f"unknown patch type found in list: {directive}")
    return (plain, []) if replace else (original, plain)


def _identity(item: Any, merge_key: str) -> Any:
    return item.get(merge_key) if isinstance(item, dict) else item


def _position(items: list[Any], identity: Any, merge_key: str) -> int:
    for place, item in enumerate(items):
        if equal_json(_identity(item, merge_key), identity):
            return place
    return -1


def _arrange(merged: list[Any], wanted: list[Any], original: list[Any], merge_key: str) -> list[Any]:
    """Items named by `wanted` come in its order; the others keep the order of `original` among and around them."""

    def place_in(items: list[Any], item: Any) -> int:
        return _position(items, _identity(item, merge_key), merge_key)

    ours = sorted((each for each in merged if place_in(wanted, each) >= 0), key=lambda each: place_in(wanted, each))
    others = sorted(
        (each for each in merged if place_in(wanted, each) < 0), key=lambda each: place_in(original, each) % (1 << 31)
    )
    result: list[Any] = []
    while ours and others:
        left, right = place_in(original, others[0]), place_in(original, ours[0])
        result.append(others.pop(0) if 0 <= left < right else ours.pop(0))
    return result + ours + others


def _delete_scalars(original: list[Any], deletes: list[Any]) -> list[Any]:
    return [each for each in original if not any(equal_json(each, other) for other in deletes)]


def _drop_directives(value: Any) -> Any:
    """A value of the patch that has no counterpart: without directives, nulls and items that only delete."""
    if isinstance(value, dict):
        return {
            key: _drop_directives(each)
            for key, each in value.items()
            if each is not None and key not in (_PATCH, _RETAIN_KEYS) and not key.startswith((_DELETE_FROM, _ORDER))
        }
    if isinstance(value, list):
        return [_drop_directives(each) for each in value if not (isinstance(each, dict) and _PATCH in each)]
    return value
