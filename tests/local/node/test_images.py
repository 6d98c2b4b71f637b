"""The image map: which program stands for which image."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandlane.local.node.images import ImageMap, ImageMapError
from sandlane.local.node.recipes import hidden


def write(path: Path, text: str) -> Path:
    file = path / "images.yaml"
    file.write_text(text)
    return file


def test_names_and_globs(tmp_path: Path) -> None:
    """The exact name wins over a glob, tags default to latest, the default registry may be left out."""
    text = "images:\n  a/b:1: {command: [exact]}\n  a/b:*: {command: [glob]}\n  c: {command: [c]}\n"
    images = ImageMap.load(write(tmp_path, text))
    found = {name: images.find(name) for name in ("a/b:1", "docker.io/a/b:1", "a/b:2", "c", "c:latest", "d")}
    assert {name: program.command[0] if program else None for name, program in found.items()} == {
        "a/b:1": "exact", "docker.io/a/b:1": "exact", "a/b:2": "glob", "c": "c", "c:latest": "c", "d": None,
    }  # fmt: skip


def test_words_are_filled_in(tmp_path: Path) -> None:
    """`${dir}` is the map's folder, `${python}` this Python."""
    text = 'images:\n  a: {command: ["${python}", "${dir}/x"], env: {P: "${dir}"}}\n'
    program = ImageMap.load(write(tmp_path, text)).find("a")
    assert program is not None
    assert program.command == (sys.executable, f"{tmp_path}/x")
    assert program.env == {"P": str(tmp_path)}


@pytest.mark.parametrize("text", ["images: [", "images: {a: {}}", "images: {a: {command: [x], typo: 1}}", "other: {}"])
def test_bad_maps_are_refused(tmp_path: Path, text: str) -> None:
    """A map that is no map is refused with the file's name."""
    with pytest.raises(ImageMapError, match=r"images\.yaml"):
        ImageMap.load(write(tmp_path, text))


def test_a_volume_that_hides_the_program(tmp_path: Path) -> None:
    """A program below a mount path cannot be seen by the container, unless the volume has it too."""
    program = tmp_path / "app" / "main.py"
    program.parent.mkdir()
    program.touch()
    empty, same = tmp_path / "volume", tmp_path / "app"
    empty.mkdir()

    def told(source: Path, target: Path) -> str:
        mount = {"source": str(source), "target": str(target), "read_only": False}
        return hidden(["/bin/sh", str(program), "--flag"], [mount])  # type: ignore[list-item]

    assert told(empty, tmp_path / "app") == f"the volume at {tmp_path}/app hides {program}"
    assert told(same, tmp_path / "app") == ""
    assert told(empty, tmp_path / "elsewhere") == ""
