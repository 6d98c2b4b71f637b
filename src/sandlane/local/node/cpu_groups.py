"""CPU limits: a control group (version 1 or 2) for each container that has one, where this machine lets us make them.

Rules: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/scheduler/sched-bwc.html
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import structlog

log = structlog.get_logger(__name__)

PERIOD = 100_000
"""Microseconds, as the kubelet's."""
LEAST = 1_000
"""The smallest quota that the kernel takes, microseconds a period."""


class Base(NamedTuple):
    """A group in which we may make others."""

    folder: Path
    unified: bool
    """Version 2."""

    def limit(self, group: Path, cpus: Fraction) -> None:
        """Bound a group's CPU time. Raises `OSError`."""
        quota = max(LEAST, round(cpus * PERIOD))
        if self.unified:
            (group / "cpu.max").write_text(f"{quota} {PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))


class CpuGroups:
    """The groups of one node's containers, named after the node's folder and the Pod's uid."""

    def __init__(self, folder: Path, bases: Iterable[Base] | None = None) -> None:
        self._prefix = f"sandlane-{zlib.crc32(str(folder.absolute()).encode()):08x}-"
        candidates = _bases() if bases is None else bases
        self._base = next((base for base in candidates if self._works(base)), None)
        if self._base is None:
            log.info("no_cpu_limits", reason="no control group in which this user may make others")

    def make(self, uid: str, container: str, cpus: Fraction) -> str:
        """The file by which a process enters the container's group, limited to `cpus`; empty where that cannot be."""
        if self._base is None:
            return ""
        group = self._base.folder / f"{self._prefix}{uid}-{container}"
        try:
            group.mkdir(exist_ok=True)
            self._base.limit(group, cpus)
        except OSError as error:
            log.warning("cpu_not_limited", group=group.name, error=str(error))
            return ""
        return str(group / "cgroup.procs")

    def remove(self, uid: str) -> None:
        """The groups of one Pod, whose processes have ended."""
        if self._base is not None:
            for group in self._base.folder.glob(f"{self._prefix}{uid}-*"):
                _remove(group)

    def keep_only(self, uids: Container[str]) -> None:
        """Remove what Pods that are gone have left."""
        if self._base is not None:
            for group in self._base.folder.glob(f"{self._prefix}*"):
                if group.name.removeprefix(self._prefix)[:36] not in uids:
                    _remove(group)

    def _works(self, base: Base) -> bool:
        probe = base.folder / f"{self._prefix}probe"
        try:
            if base.unified and "cpu" not in (base.folder / "cgroup.subtree_control").read_text().split():
                (base.folder / "cgroup.subtree_control").write_text("+cpu")
            probe.mkdir(exist_ok=True)
            base.limit(probe, Fraction(1))
        except OSError:
            return False
        finally:
            _remove(probe)
        return True


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:  # a process of it still ends: the next node removes it
        log.info("cpu_group_left", group=group.name, error=str(error))


def _bases() -> Iterable[Base]:
    """Groups that may do: this process's own; of version 2 its parent, too, because a group with processes has no children."""
    try:
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in own:
        for mount in mounts:
            kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
            if kind == "cgroup" and "cpu" in controllers.split(",") and "cpu" in options:
                yield Base(_inside(mount, path), unified=False)
            elif kind == "cgroup2" and not controllers:
                folder = _inside(mount, path)
                yield from (Base(each, unified=True) for each in (folder, folder.parent))


def _inside(mount: list[str], path: str) -> Path:
    """A group's folder, given the mount that shows it: (.., .., .., root, mount point, ...)."""
    root, point = mount[3], Path(mount[4])
    return point / path.removeprefix("" if root == "/" else root).strip("/")
