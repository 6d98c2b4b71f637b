"""Objects as YAML, the way a person would write it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from sandlane.kube.resource import Object


class _Dumper(yaml.SafeDumper):
    """Lists indented, no anchors, texts of several lines as blocks."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value and value.strip(" ") == value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def one(obj: Object, *, width: int = 120) -> str:
    """A document without a separator."""
    return yaml.dump(obj, Dumper=_Dumper, sort_keys=False, width=width, allow_unicode=True)


def many(objects: Iterable[Object]) -> str:
    """Documents."""
    return "---\n".join(one(obj) for obj in objects)
