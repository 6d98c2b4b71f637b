"""How containers live and end: restarts with back-off, exit codes, grace, init and sidecar containers."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from sandlane.kube.errors import NotFound
from sandlane.kube.resource import PODS

from .conftest import RunningNode, container_state

Object = dict[str, Any]


def statuses(status: Object) -> Object:
    """The first container's status."""
    found = status.get("containerStatuses") or [{}]
    return dict(found[0])


async def gone(node: RunningNode, name: str = "web") -> None:
    """Wait until a Pod does not exist."""

    async def check() -> bool:
        try:
            await node.pod(name)
        except NotFound:
            return True
        return False

    await node.until(check, f"{name} is gone")


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")],
)
async def test_ends_for_good(node: RunningNode, policy: str, code: int, phase: str) -> None:
    """A container that its policy does not start again leaves its exit code and its Pod a final phase."""
    await node.run(f"echo bye; exit {code}", spec={"restartPolicy": policy})
    state = container_state(await node.phase(phase))["terminated"]
    assert (state["exitCode"], state["reason"]) == (code, "Error" if code else "Completed")
    assert state.get("message", "") == ("bye" if code else "")


async def test_crash_loop(node: RunningNode) -> None:
    """A container that ends again and again waits ever longer, keeps its last end, and its log so far."""
    await node.run("echo run; exit 7", spec={"restartPolicy": "Always"})
    said = await node.waiting("CrashLoopBackOff", text="back-off 20s")
    assert said["message"] == "back-off 20s restarting failed container=app; it ended with 7: run"
    status = statuses(await node.state("web", lambda s: statuses(s).get("restartCount", 0) >= 3, "three restarts"))
    assert status["lastState"]["terminated"]["exitCode"] == 7


async def test_success_is_no_failure_for_on_failure(node: RunningNode, tmp_path: Any) -> None:
    """With OnFailure a container runs until it succeeds once."""
    marker = tmp_path / "marker"
    await node.run(f"test -e {marker} && exit 0; touch {marker}; exit 1", spec={"restartPolicy": "OnFailure"})
    assert statuses(await node.phase("Succeeded"))["restartCount"] == 1


async def test_a_signal_is_an_exit_code(node: RunningNode) -> None:
    """A container killed by a signal ends with 128 and its number."""
    await node.run("kill -SEGV $$$$")
    assert container_state(await node.phase("Failed"))["terminated"]["exitCode"] == 139


async def test_a_program_that_does_not_exist(node: RunningNode) -> None:
    """A program that cannot be started ends the container with 128 and says so."""
    await node.run(command=["/no/such/program"])
    state = container_state(await node.phase("Failed"))["terminated"]
    assert (state["exitCode"], state["reason"]) == (128, "StartError")
    assert state["message"] == "cannot start /no/such/program: No such file or directory"


async def test_an_unknown_working_directory(node: RunningNode) -> None:
    """A working directory that does not exist is named."""
    await node.run("true", workingDir="/no/such/folder")
    state = container_state(await node.phase("Failed"))["terminated"]
    assert state["message"] == "cannot use the working directory /no/such/folder: No such file or directory"


async def test_images(node: RunningNode) -> None:
    """The image map gives a program; an image that is not in it keeps the container waiting, with what to do."""
    await node.run(image="mapped")
    await node.logged("from the map")
    await node.run(image="unknown", name="lost")
    await node.waiting("ImageNotMapped", "lost", "no program is known for image 'unknown'")


async def test_environment_that_is_missing(node: RunningNode) -> None:
    """A ConfigMap that a variable needs is waited for."""
    await node.run("echo got $A", env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}])
    await node.waiting("CreateContainerConfigError", text='configmap "late" not found')
    metadata = {"name": "late", "namespace": "rides"}
    await node.cluster.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "it"}})
    await node.logged("got it")


async def test_termination_is_graceful(node: RunningNode, tmp_path: Any) -> None:
    """A deleted Pod's container gets its preStop hook and SIGTERM, and what it does then counts; the Pod goes after it."""
    out = tmp_path / "out"
    script = f"trap 'echo term >>{out}; exit 0' TERM; echo up; while :; do sleep 0.02; done"
    hook = {"preStop": {"exec": {"command": ["/bin/sh", "-c", f"echo hook >>{out}"]}}}
    await node.run(script, spec={"terminationGracePeriodSeconds": 30}, lifecycle=hook)
    await node.logged("up")
    await node.client.delete(PODS, "web", "rides")
    await gone(node)
    assert out.read_text().split() == ["hook", "term"]


async def test_grace_ends(node: RunningNode) -> None:
    """A container that ignores SIGTERM is killed when the grace is over."""
    await node.run("trap '' TERM; echo up; while :; do sleep 0.02; done", spec={"terminationGracePeriodSeconds": 1})
    await node.logged("up")
    await node.client.delete(PODS, "web", "rides")
    await gone(node)


async def test_grandchildren_end_with_the_container(viewing: RunningNode) -> None:
    """What a container has started ends with it, in a session of its own too, and does not hold up its end."""
    await viewing.run(
        "setsid sh -c 'echo $$$$; exec sleep 1000' & sleep 1000 & echo $!; while ! [ -e /proc/nothing ]; do wait; done"
    )
    await viewing.phase("Running")

    async def both() -> list[int]:
        found = [int(line) for line in viewing.log().split()]
        return found if len(found) == 2 else []

    pids = await viewing.until(both, "both pids")
    worker = next(iter(viewing.node.workers.values()))
    process = worker.main[0].process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    await viewing.phase("Failed")

    async def ended() -> bool:
        return not any(alive(pid) for pid in pids)

    await viewing.until(ended, "the grandchildren have ended")


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_memory_limit_is_kept(node: RunningNode) -> None:
    """A process that wants more memory than its limit does not get it."""
    from .conftest import PYTHON

    script = "import sys\ntry: x = bytearray(512 << 20)\nexcept MemoryError: sys.exit(5)"
    await node.run(command=[PYTHON, "-c", script], resources={"limits": {"memory": "256Mi"}})
    assert container_state(await node.phase("Failed"))["terminated"]["exitCode"] == 5


async def test_init_containers_go_first(node: RunningNode, tmp_path: Any) -> None:
    """Init containers run one after the other, are repeated when they fail, and the others start after them."""
    out, marker = tmp_path / "out", tmp_path / "marker"
    again = f"test -e {marker} && echo one >>{out} && exit 0; touch {marker}; exit 1"
    init = [
        {"name": "one", "image": "i", "command": ["/bin/sh", "-c", again]},
        {"name": "two", "image": "i", "command": ["/bin/sh", "-c", f"echo two >>{out}"]},
    ]
    await node.run(f"echo main >>{out}", spec={"initContainers": init, "restartPolicy": "OnFailure"})
    status = await node.phase("Succeeded")
    assert out.read_text().split() == ["one", "two", "main"]
    assert [each["restartCount"] for each in status["initContainerStatuses"]] == [1, 0]


async def test_a_failed_init_container_is_the_end(node: RunningNode) -> None:
    """With restartPolicy Never a failed init container fails the Pod, and the main container never starts."""
    init = [{"name": "one", "image": "i", "command": ["/bin/sh", "-c", "exit 4"]}]
    await node.run("echo main", spec={"initContainers": init})
    status = await node.phase("Failed")
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert node.log_files() == []


async def test_sidecars(node: RunningNode, tmp_path: Any) -> None:
    """A sidecar is up before the main container starts, runs beside it, and ends after it; the Pod succeeds without it."""
    out = tmp_path / "out"
    script = f"trap 'echo side ends >>{out}; exit 0' TERM; echo side >>{out}; while :; do sleep 0.02; done"
    probe = {"exec": {"command": ["/bin/sh", "-c", f"grep -q side {out}"]}, "periodSeconds": 1}
    side = {
        "name": "side",
        "image": "i",
        "command": ["/bin/sh", "-c", script],
        "restartPolicy": "Always",
        "startupProbe": probe,
    }
    await node.run(f"echo main >>{out}", spec={"initContainers": [side]})
    await node.phase("Succeeded")

    async def ended() -> bool:
        return out.read_text().splitlines() == ["side", "main", "side ends"]

    await node.until(ended, "the sidecar has ended")


async def test_nothing_outlives_the_node(node: RunningNode) -> None:
    """When the node ends, so do its containers."""
    await node.run("echo up; exec sleep 1000")
    await node.logged("up")
    worker = next(iter(node.node.workers.values()))
    process = worker.main[0].process
    assert process is not None
    await node.stop()
    assert not alive(process.pid)


async def test_a_new_node_takes_over(viewing: RunningNode) -> None:
    """After a restart of the node a Pod runs again: same address, one restart more, its emptyDir and last log still there."""
    spec = {"volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "Always"}
    mounts = [{"name": "v", "mountPath": "/sandlane-test"}]
    await viewing.run(
        "echo up >>/sandlane-test/x; cat /sandlane-test/x; exec sleep 100", spec=spec, volumeMounts=mounts
    )
    await viewing.logged("up")
    before = await viewing.phase("Running")
    await viewing.stop()
    leftover = viewing.folder / "pods" / "gone-uid"
    leftover.mkdir()
    viewing.again()
    status = await viewing.state(
        "web", lambda s: statuses(s).get("restartCount") == 1 and statuses(s)["ready"], "it is back"
    )
    assert status["podIP"] == before["podIP"]
    assert statuses(status)["lastState"]["terminated"]["exitCode"] == 137
    assert await viewing.logged("up\nup", run=1) == "up\nup\n"
    assert viewing.log(run=0) == "up\n"
    assert not leftover.exists()
