"""Request bodies: JSON and YAML to Python values, and on demand the paths of keys that occur twice.

Bodies come from anybody: whatever they hold, the answer is a value or a BodyError.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

MAX_BODY_BYTES = 3 * 1024 * 1024
"""What kube-apiserver takes as one request body."""

MAX_DEPTH = 200
"""How deep maps and lists may be nested; Python could not walk much deeper ones."""

JSON_TYPES = frozenset({"application/json", "", "*/*"})
_LOOSE = re.compile(rb'"[ \t\r\n]+:')
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})


class BodyError(ValueError):
    """A body that is not what its media type says."""


def parse_json(body: bytes, *, duplicates: list[str] | None = None) -> Any:
    """The JSON value. With `duplicates`, the paths of repeated keys are added to it; the last value counts."""
    try:
        value = msgspec.json.decode(body)
        if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
            _check_depth(value)
        if duplicates is not None and (body.count(b'":') != _keys(value) or _LOOSE.search(body) is not None):
            _notice_duplicates(body, duplicates)
        return value
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if str(error) == "Input data was truncated":
            error = ValueError("unexpected end of JSON input")
        raise BodyError(f"couldn't get version/kind; json parse error: {error}") from error


def parse_yaml(body: bytes, *, duplicates: list[str] | None = None) -> Any:
    """The value of one YAML document (JSON is YAML, too); keys become strings, as in JSON."""
    if body.lstrip()[:1] in (b"{", b"["):
        try:
            return parse_json(body, duplicates=duplicates)
        except BodyError:
            if duplicates is not None:
                duplicates.clear()
    from sandlane.local.apiserver.wire import yaml_documents  # takes 45 ms to import, and few clients send YAML

    try:
        value = yaml_documents.parse(body, duplicates)
        _check_depth(value)
        return value
    except (yaml_documents.YamlError, ValueError, RecursionError, TypeError, OverflowError) as error:
        raise BodyError(f"error converting YAML to JSON: yaml: {error}") from error


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as written."""


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [
            each
            for outer in level
            for each in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(each, (dict, list))
        ]
    raise ValueError("exceeded max depth")


def _keys(value: Any) -> int:
    """How many keys a value has in all. A body without space before its colons has more only where a key is repeated
    (or a text looks like a key): the rare case that is worth a second look."""
    if isinstance(value, dict):
        return len(value) + sum(_keys(each) for each in value.values() if isinstance(each, (dict, list)))
    return sum(_keys(each) for each in value if isinstance(each, (dict, list))) if isinstance(value, list) else 0


def _notice_duplicates(body: bytes, duplicates: list[str]) -> None:
    """Read JSON that is known to be good once more, looking at keys."""
    seen = False

    def notice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal seen
        result = dict(pairs)
        seen = seen or len(result) != len(pairs)
        return result

    text = body.decode("utf-8")
    json.loads(text, object_pairs_hook=notice)
    if seen:
        _notice_json(json.loads(text, object_pairs_hook=_Pairs), "", duplicates)


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
