"""Request bodies: JSON and YAML to Python values, and on demand the paths of keys that occur twice.

Bodies come from anybody: whatever they hold, the answer is a value or a BodyError.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import yaml

MAX_BODY_BYTES = 3 * 1024 * 1024
"""What kube-apiserver takes as one request body."""

JSON_TYPES = frozenset({"application/json", "", "*/*"})
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BodyError(ValueError):
    """A body that is not what its media type says."""


def parse_json(body: bytes, *, duplicates: list[str] | None = None) -> Any:
    """The JSON value. With `duplicates`, the paths of repeated keys are added to it; the last value counts."""
    try:
        if duplicates is None:
            return msgspec.json.decode(body)
        return _parse_noticing(body, duplicates)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BodyError(f"couldn't get version/kind; json parse error: {error}") from error


def parse_yaml(body: bytes, *, duplicates: list[str] | None = None) -> Any:
    """The value of one YAML document (JSON is YAML, too); keys become strings, as in JSON."""
    if body.lstrip()[:1] in (b"{", b"["):
        try:
            return parse_json(body, duplicates=duplicates)
        except BodyError:
            if duplicates is not None:
                duplicates.clear()
    try:
        loader = _Loader(body)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if duplicates is not None:
                _notice_yaml(node, "", duplicates, set())
            _Bound(node)
            value = loader.construct_document(node)
        finally:
            loader.dispose()
        return _plain(value)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError) as error:
        raise BodyError(f"error converting YAML to JSON: yaml: {error}") from error


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as written."""


def _parse_noticing(body: bytes, duplicates: list[str]) -> Any:
    seen = False

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal seen
        result = dict(pairs)
        seen = seen or len(result) != len(pairs)
        return result

    text = body.decode("utf-8")
    value = json.loads(text, object_pairs_hook=to_dict, parse_constant=_no_constant)
    if seen:
        _notice_json(json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant), "", duplicates)
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"invalid character '{name[0]}' looking for beginning of value")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _notice_json(value: Any, path: str, duplicates: list[str]) -> None:
    if isinstance(value, _Pairs):
        names: set[str] = set()
        for key, each in value:
            inner = _join(path, key)
            if key in names and inner not in duplicates:
                duplicates.append(inner)
            names.add(key)
            _notice_json(each, inner, duplicates)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _notice_json(each, f"{path}[{index}]", duplicates)


def _notice_yaml(node: yaml.Node, path: str, duplicates: list[str], visited: set[int]) -> None:
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, each in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            inner = _join(path, name)
            if name in names and name != "<<" and inner not in duplicates:
                duplicates.append(inner)
            names.add(name)
            _notice_yaml(each, inner, duplicates, visited)
    elif isinstance(node, yaml.SequenceNode):
        for index, each in enumerate(node.value):
            _notice_yaml(each, f"{path}[{index}]", duplicates, visited)


class _Bound:
    """Refuses documents whose aliases would blow up: the expanded size is counted before anything is built."""

    LIMIT = 500_000

    def __init__(self, node: yaml.Node) -> None:
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()
        self._size(node)

    def _size(self, node: yaml.Node) -> int:
        known = self._sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            raise ValueError("anchor value contains itself")
        self._open.add(id(node))
        total = 1
        if isinstance(node, yaml.MappingNode):
            total += sum(self._size(key) + self._size(each) for key, each in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(map(self._size, node.value))
        if total > self.LIMIT:
            raise ValueError("document contains excessive aliasing")
        self._open.discard(id(node))
        self._sizes[id(node)] = total
        return total


def _plain(value: Any) -> Any:
    """YAML values as JSON has them: string keys, no sets, dates as the text of a time."""
    if isinstance(value, dict):
        return {_key(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError("a number that JSON does not have")
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    raise ValueError(f"a value that JSON does not have: {type(value).__name__}")


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, (str, int, float)):
        return str(key)
    raise ValueError("a map key that is not a string")


def _without_timestamps() -> Any:
    """A loader like Kubernetes' own: a date stays the string that was written."""

    class Loader(_Loader):  # type: ignore[misc]
        """See above."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _Loader.yaml_implicit_resolvers.items()
    }
    return Loader


_Loader = _without_timestamps()
