"""CPU limits become control groups, where the machine has some."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest

from sandlane.local.node.cpu_groups import Base, CpuGroups

from .conftest import RunningNode

UID = "0b5f3c1e-0000-4000-8000-00000000000a"


@pytest.mark.parametrize(
    ("unified", "cpus", "files"),
    [
        (True, Fraction(3, 2), {"cpu.max": "150000 100000"}),
        (True, Fraction(1, 1000), {"cpu.max": "1000 100000"}),
        (False, Fraction(1, 2), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}),
    ],
)
def test_what_the_kernel_is_told(tmp_path: Path, unified: bool, cpus: Fraction, files: dict[str, str]) -> None:
    """A quota of each tenth of a second, never less than the kernel takes."""
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory")
    groups = CpuGroups(tmp_path / "node", [Base(tmp_path, unified)])
    entry = Path(groups.make(UID, "app", cpus))
    assert entry.name == "cgroup.procs"
    assert {path.name: path.read_text() for path in entry.parent.iterdir()} == files


def test_a_machine_without_groups(tmp_path: Path) -> None:
    """Where none can be made, containers are not limited."""
    groups = CpuGroups(tmp_path / "node", [Base(tmp_path / "none", unified=True)])
    assert groups.make(UID, "app", Fraction(1)) == ""
    groups.remove(UID)
    groups.keep_only(())


async def test_a_container_runs_in_its_group(node: RunningNode) -> None:
    """A container with a CPU limit has a group of its own, which goes with its Pod."""
    limited = CpuGroups(node.folder / "probe").make(UID, "probe", Fraction(1))
    if not limited:
        pytest.skip("no control groups here")
    os.rmdir(Path(limited).parent)
    await node.run("cat /proc/self/cgroup; echo end; exec sleep 100", resources={"limits": {"cpu": "250m"}})
    log = await node.logged("end")
    (own,) = [line.rpartition("/")[2] for line in log.splitlines() if "/sandlane-" in line]
    group = Path(limited).parent.parent / own
    quota = group / ("cpu.max" if (group / "cpu.max").exists() else "cpu.cfs_quota_us")
    assert quota.read_text().split()[0] == "25000"
    await node.stop()
    assert not group.exists()
