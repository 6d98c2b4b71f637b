"""The image map: which program stands for which image on this node. Images are never pulled.

    images:
      rides/eta:2:
        command: ["${python}", "-m", "rides.eta2"]
        env: {PYTHONPATH: "${dir}"}

A name may be a glob (`envoyproxy/envoy:*`); the most exact entry wins. `${dir}` is the map's folder, `${python}` the Python that runs
this node, `${envoy}` its Envoy.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sandlane.routing.envoy.binary import EnvoyMissing, envoy_binary


class ImageMapError(ValueError):
    """An image map that cannot be used; the message names file and field."""


class Program(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What an image would bring along: its entrypoint, default arguments, environment and working directory."""

    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    working_dir: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    images: dict[str, Program]


def _envoy() -> dict[str, Program]:
    try:
        program = Program((str(envoy_binary()),))
    except EnvoyMissing:
        return {}
    return {"envoyproxy/envoy:*": program}


class ImageMap:
    """Finds the program for an image."""

    def __init__(self, entries: Mapping[str, Program] | None = None) -> None:
        self._entries = _envoy() | dict(entries or {})

    @classmethod
    def load(cls, path: Path) -> ImageMap:
        """Read a file. Raises `ImageMapError`."""
        try:
            content = yaml.safe_load(path.read_text())
        except OSError as error:
            raise ImageMapError(f"cannot read the image map: {error}") from error
        except yaml.YAMLError as error:
            raise ImageMapError(f"the image map {path} is not YAML: {error}") from error
        return cls(parse(content, path.resolve().parent, str(path)))

    def with_entries(self, entries: Mapping[str, Program]) -> ImageMap:
        """This map with more entries, which win."""
        made = ImageMap()
        made._entries = self._entries | dict(entries)
        return made

    def find(self, image: str) -> Program | None:
        """The program for an image, or None."""
        names = _spellings(image)
        for name in names:
            if name in self._entries:
                return self._entries[name]
        globs = [(len(pattern), pattern) for pattern in self._entries if any(c in pattern for c in "*?[")]
        for _, pattern in sorted(globs, reverse=True):
            if any(fnmatchcase(name, pattern) for name in names):
                return self._entries[pattern]
        return None


def parse(content: Any, folder: Path, source: str) -> dict[str, Program]:
    """Entries from decoded YAML. Raises `ImageMapError`."""
    try:
        file = msgspec.convert(content, _File)
    except msgspec.ValidationError as error:
        raise ImageMapError(f"the image map {source}: {error}") from error
    words = {"${dir}": str(folder), "${python}": sys.executable}
    if any("${envoy}" in word for program in file.images.values() for word in program.command):
        words["${envoy}"] = str(envoy_binary())

    def fill(text: str) -> str:
        for word, value in words.items():
            text = text.replace(word, value)
        return text

    return {
        image: Program(
            tuple(map(fill, program.command)),
            tuple(map(fill, program.args)),
            {name: fill(value) for name, value in program.env.items()},
            fill(program.working_dir),
        )
        for image, program in file.images.items()
    }


def _spellings(image: str) -> list[str]:
    """An image's name as written, with the default tag, and without the default registry."""
    base = image.partition("@")[0]
    if ":" not in base.rpartition("/")[2]:
        base += ":latest"
    short = base.removeprefix("docker.io/").removeprefix("library/")
    return list(dict.fromkeys([image, base, short, short.rpartition(":")[0]]))
