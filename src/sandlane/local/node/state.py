"""What a container is doing, and a Pod's status made of it, as a kubelet reports it. Pure but for the time given."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sandlane.kube.resource import Object


class ContainerState(msgspec.Struct):
    """One container: waiting, running or terminated, and its last end."""

    name: str
    image: str
    reason: str = "ContainerCreating"
    message: str = ""
    started_at: str = ""
    started: bool = False
    ready: bool = False
    exit_code: int | None = None
    finished_at: str = ""
    restarts: int = 0
    last: Object | None = None
    waiting: bool = True
    container_id: str = ""
    mapped: bool = True

    def status(self) -> Object:
        """`containerStatuses[]`."""
        made: Object = {
            "name": self.name,
            "image": self.image,
            "imageID": f"map://{self.image}" if self.mapped else "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self._state(),
            "lastState": {"terminated": self.last} if self.last else {},
        }
        if self.container_id:
            made["containerID"] = self.container_id
        return made

    def _state(self) -> Object:
        if self.waiting:
            waiting: Object = {"reason": self.reason}
            if self.message:
                waiting["message"] = self.message
            return {"waiting": waiting}
        if self.exit_code is not None:
            return {"terminated": self.terminated()}
        return {"running": {"startedAt": self.started_at}}

    def terminated(self) -> Object:
        """How it ended."""
        made: Object = {
            "exitCode": self.exit_code,
            "reason": self.reason,
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
        }
        if self.message:
            made["message"] = self.message
        if self.container_id:
            made["containerID"] = self.container_id
        return made

    @property
    def ended(self) -> bool:
        """Whether it has ended and will not run again by itself."""
        return not self.waiting and self.exit_code is not None


def pod_status(
    pod: Object,
    init: list[ContainerState],
    main: list[ContainerState],
    sidecars: set[str],
    now: str,
    addresses: tuple[str, str],
) -> Object:
    """The Pod's status; transition times of conditions that did not change are kept."""
    host, address = addresses
    old = pod.get("status") or {}
    initialized = all((s.exit_code == 0 and s.ended) or (s.name in sidecars and s.started) for s in init)
    containers_ready = initialized and all(state.ready for state in main)
    gates = pod["spec"].get("readinessGates") or ()
    known = {c["type"]: c for c in old.get("conditions") or ()}
    gated = all(known.get(gate["conditionType"], {}).get("status") == "True" for gate in gates)
    unready = sorted(state.name for state in main if not state.ready)
    why = f"containers with unready status: [{' '.join(unready)}]"
    finished = phase(pod, init, main, sidecars)
    completed = finished == "Succeeded"
    conditions = [
        ("PodReadyToStartContainers", True, "", ""),
        ("Initialized", initialized, "" if initialized else "ContainersNotInitialized", ""),
        ("Ready", containers_ready and gated and not completed, *_unready(containers_ready, completed, why)),
        ("ContainersReady", containers_ready and not completed, *_unready(containers_ready, completed, why)),
        ("PodScheduled", True, "", ""),
    ]
    made: Object = {
        key: value for key, value in old.items() if key in ("qosClass", "nominatedNodeName", "resourceClaimStatuses")
    }
    made["phase"] = finished
    made["conditions"] = [_condition(*condition, known, now) for condition in conditions]
    made["conditions"] += [c for kind, c in known.items() if kind not in {each[0] for each in conditions}]
    made |= {"hostIP": host, "hostIPs": [{"ip": host}], "podIP": address, "podIPs": [{"ip": address}]}
    made["startTime"] = old.get("startTime") or now
    if init:
        made["initContainerStatuses"] = [state.status() for state in init]
    made["containerStatuses"] = [state.status() for state in main]
    return made


def _unready(ready: bool, completed: bool, why: str) -> tuple[str, str]:
    if completed:
        return "PodCompleted", ""
    return ("", "") if ready else ("ContainersNotReady", why)


def _condition(kind: str, status: bool, reason: str, message: str, known: dict[str, Object], now: str) -> Object:
    text = str(status)
    before = known.get(kind)
    same = before is not None and before["status"] == text
    made: Object = {"type": kind, "status": text, "lastProbeTime": None}
    made["lastTransitionTime"] = before["lastTransitionTime"] if same and before is not None else now
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    return made


def phase(pod: Object, init: Iterable[ContainerState], main: list[ContainerState], sidecars: set[str]) -> str:
    """Pending, Running, Succeeded or Failed."""
    policy = pod["spec"].get("restartPolicy", "Always")
    plain = [state for state in init if state.name not in sidecars]
    if policy == "Never" and any(state.ended and state.exit_code for state in plain):
        return "Failed"
    if main and all(state.ended for state in main) and policy != "Always":
        return "Failed" if any(state.exit_code for state in main) else "Succeeded"
    if any(state.started_at for state in main):
        return "Running"
    return "Pending"
