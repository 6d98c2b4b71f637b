"""Writes the files of a volume so that programs see all of the old ones or all of the new ones, as the kubelet does:
files are in `..TIME/`, `..data` leads there, and each top-level name leads through `..data`; one rename changes all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sandlane.local.node.payload import Payload


def write_volume(folder: Path, files: Payload) -> bool:
    """Bring a volume's folder in line; whether anything had to be changed."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    data = folder / "..data"
    current = folder / os.readlink(data) if data.is_symlink() else None
    if current is not None and _holds(current, files):
        return False
    made = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    made.chmod(0o755)
    for path, file in files.items():
        place = made / path
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        place.write_bytes(file.content)
        place.chmod(file.mode & 0o777)
    swap = folder / "..data_tmp"
    swap.unlink(missing_ok=True)
    swap.symlink_to(made.name)
    swap.replace(data)
    wanted = {path.split("/", 1)[0] for path in files}
    for name in wanted:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    if current is not None:
        shutil.rmtree(current, ignore_errors=True)
    return True


def _holds(folder: Path, files: Payload) -> bool:
    """Whether a folder holds exactly these files."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found == set(files) and all(_same(folder / path, file.content, file.mode) for path, file in files.items())


def _same(path: Path, content: bytes, mode: int) -> bool:
    return path.stat().st_mode & 0o777 == mode & 0o777 and _read(path) == content


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except PermissionError:  # a mode that keeps even its owner out
        return None
