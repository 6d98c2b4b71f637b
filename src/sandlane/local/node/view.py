"""What `launch.py` is told: how to start a program, and what it shall see."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Mount(TypedDict):
    """One bind mount; `source` is a path outside of the view."""

    source: str
    target: str
    read_only: bool


class View(TypedDict):
    """What makes a container's own view: a folder to build a new root in, its host name and its mounts."""

    root: str
    hostname: str
    mounts: list[Mount]


class Plan(TypedDict):
    """How to start a program: `view` gives it an own view, `join` that of a running process."""

    parent: int
    argv: list[str]
    env: dict[str, str]
    folder: str
    memory: NotRequired[int | None]
    cpu_group: NotRequired[str]
    view: NotRequired[View | None]
    join: NotRequired[int | None]
    tty: NotRequired[bool]
