"""YAML documents as JSON values: string keys, plain dates, bounded aliases."""

from __future__ import annotations

from typing import Any

import yaml

YamlError = yaml.YAMLError


def parse(body: bytes, duplicates: list[str] | None) -> Any:
    """The value of the one document in `body`; paths of repeated keys go into `duplicates`.

    Raises YamlError or one of Python's own errors about values.
    """
    loader = _Loader(body)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if duplicates is not None:
            _notice(node, "", duplicates, set())
        _Bound(node)
        return _plain(loader.construct_document(node))
    finally:
        loader.dispose()


def _notice(node: yaml.Node, path: str, duplicates: list[str], visited: set[int]) -> None:
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, each in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            inner = f"{path}.{name}" if path else name
            if name in names and name != "<<" and inner not in duplicates:
                duplicates.append(inner)
            names.add(name)
            _notice(each, inner, duplicates, visited)
    elif isinstance(node, yaml.SequenceNode):
        for index, each in enumerate(node.value):
            _notice(each, f"{path}[{index}]", duplicates, visited)


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

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """See above."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    return Loader


_Loader: Any = _without_timestamps()
