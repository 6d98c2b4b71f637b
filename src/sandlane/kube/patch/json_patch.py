"""JSON patch (RFC 6902) with JSON pointers (RFC 6901), within the limits that kube-apiserver sets.

Beyond the RFC, and as Kubernetes does: a negative index counts from the end of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from sandlane.kube.patch.errors import MalformedPatchError, PatchError, PatchTooLargeError
from sandlane.kube.patch.values import copy_json, equal_json

MAX_OPERATIONS = 10_000
MAX_COPIED_BYTES = 3 * 1024 * 1024
"""How much JSON all `copy` operations of one patch may add up to."""

Operation: TypeAlias = Mapping[str, Any]


def json_patch(document: Any, operations: Any) -> Any:
    """`document` after all operations, in order.

    Raises PatchError (nothing is applied then): MalformedPatchError when `operations` is not a list of objects,
    PatchTooLargeError above 10,000 operations, else when an operation does not fit or a `test` fails.
    """
    if not isinstance(operations, list) or not all(isinstance(each, dict) for each in operations):
        raise MalformedPatchError("a JSON patch is a list of operations, each an object")
    if len(operations) > MAX_OPERATIONS:
        raise PatchTooLargeError(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        )
    root = [copy_json(document)]  # in a list, so that the whole document has a parent, too
    copied = 0
    for operation in operations:
        name = operation.get("op")
        apply = _OPERATIONS.get(name) if isinstance(name, str) else None
        if apply is None:
            raise PatchError(f"Unexpected kind: {name}")
        copied += apply(root, operation)
        if copied > MAX_COPIED_BYTES:
            raise PatchError(
                f"Unable to complete the copy, the accumulated size increase of copy is {copied}, "
                f"exceeding the limit {MAX_COPIED_BYTES}"
            )
    return root[0]


def _tokens(operation: Operation, field: str) -> list[str]:
    pointer = operation.get(field)
    if not isinstance(pointer, str):
        raise PatchError(f"{operation['op']} operation has no {field}")
    if not pointer:
        return []
    if not pointer.startswith("/"):
        raise PatchError(f'{operation["op"]} operation has a {field} that is not a JSON pointer: "{pointer}"')
    return [each.replace("~1", "/").replace("~0", "~") for each in pointer[1:].split("/")]


def _value(operation: Operation) -> Any:
    if "value" not in operation:
        raise PatchError(f"{operation['op']} operation has no value")
    return copy_json(operation["value"])


def _index(token: str, length: int, *, of: str) -> int:
    """The place of an existing item."""
    if not token.lstrip("-").isascii() or not token.removeprefix("-").isdecimal() or len(token) > 10:
        raise PatchError(f'"{token}" is not an index of the list in path "{of}"')
    index = int(token)
    if not -length <= index < length:
        raise PatchError(f'index {index} is outside of the list of {length} items in path "{of}"')
    return index


def _parent(root: list[Any], tokens: list[str], operation: str) -> tuple[dict[str, Any] | list[Any], str]:
    """The container that the last token looks into. The whole document is item 0 of `root`."""
    if not tokens:
        return root, "0"
    node: Any = root[0]
    for token in tokens[:-1]:
        node = _get(node, token, f"/{'/'.join(tokens)}", operation)
    if not isinstance(node, (dict, list)):
        raise PatchError(
            f'{operation} operation does not apply: doc is missing path: "/{"/".join(tokens)}": missing value'
        )
    return node, tokens[-1]


def _get(node: Any, token: str, path: str, operation: str) -> Any:
    if isinstance(node, list):
        return node[_index(token, len(node), of=path)]
    if not isinstance(node, dict) or token not in node:
        raise PatchError(f'{operation} operation does not apply: doc is missing path: "{path}": missing value')
    return node[token]


def _insert(root: list[Any], tokens: list[str], value: Any, operation: str) -> None:
    node, token = _parent(root, tokens, operation)
    if isinstance(node, dict) or node is root:
        node[token if isinstance(node, dict) else 0] = value  # type: ignore[index]
    elif token == "-":
        node.append(value)
    else:
        path = f"/{'/'.join(tokens)}"
        place = _index(token, len(node) + 1, of=path)
        node.insert(place if place >= 0 else len(node) + 1 + place, value)


def _find(root: list[Any], tokens: list[str], operation: str) -> Any:
    node, token = _parent(root, tokens, operation)
    return _get(node, token, f"/{'/'.join(tokens)}", operation)


def _delete(root: list[Any], tokens: list[str], operation: str) -> Any:
    value = _find(root, tokens, operation)
    node, token = _parent(root, tokens, operation)
    if node is root:
        root[0] = None
    elif isinstance(node, list):
        del node[_index(token, len(node), of="/".join(tokens))]
    else:
        del node[token]
    return value


def _add(root: list[Any], operation: Operation) -> int:
    _insert(root, _tokens(operation, "path"), _value(operation), "add")
    return 0


def _remove(root: list[Any], operation: Operation) -> int:
    _delete(root, _tokens(operation, "path"), "remove")
    return 0


def _replace(root: list[Any], operation: Operation) -> int:
    tokens = _tokens(operation, "path")
    value = _value(operation)
    _find(root, tokens, "replace")
    node, token = _parent(root, tokens, "replace")
    if isinstance(node, list):
        node[_index(token, len(node), of="/".join(tokens))] = value
    else:
        node[token] = value
    return 0


def _move(root: list[Any], operation: Operation) -> int:
    source, target = _tokens(operation, "from"), _tokens(operation, "path")
    if len(target) > len(source) and target[: len(source)] == source:
        raise PatchError("move operation does not apply: a value cannot be moved into itself")
    _insert(root, target, _delete(root, source, "move"), "move")
    return 0


def _copy(root: list[Any], operation: Operation) -> int:
    value = copy_json(_find(root, _tokens(operation, "from"), "copy"))
    _insert(root, _tokens(operation, "path"), value, "copy")
    return len(msgspec.json.encode(value))


def _test(root: list[Any], operation: Operation) -> int:
    tokens = _tokens(operation, "path")
    wanted = operation.get("value")
    node, token = _parent(root, tokens, "test")
    missing = isinstance(node, dict) and token not in node
    found = None if missing else _get(node, token, operation["path"], "test")
    if not equal_json(found, wanted) or (missing and "value" not in operation):
        raise PatchError(f"testing value {operation['path']} failed")
    return 0


_OPERATIONS: dict[str, Callable[[list[Any], Operation], int]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
