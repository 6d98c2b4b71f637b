"""What `kubectl get pods` shows of a Pod."""

from __future__ import annotations

from sandlane.kube.resource import Object


def status_text(pod: Object) -> str:
    """The STATUS of a Pod: its phase, or what its containers wait for or ended with."""
    status, spec = pod.get("status", {}), pod.get("spec", {})
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    initializing = False
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        state = container.get("state", {})
        terminated = state.get("terminated")
        if terminated and not terminated.get("exitCode"):
            continue
        if container["name"] in sidecars and container.get("started"):
            continue
        if terminated:
            reason = "Init:" + _ended(terminated)
        elif (waiting := state.get("waiting", {}).get("reason")) and waiting != "PodInitializing":
            reason = f"Init:{waiting}"
        else:
            reason = f"Init:{index}/{len(spec.get('initContainers') or ())}"
        initializing = True
        break
    if not initializing:
        running = False
        for container in reversed(status.get("containerStatuses") or ()):
            state = container.get("state", {})
            if waiting := state.get("waiting", {}).get("reason"):
                reason = waiting
            elif terminated := state.get("terminated"):
                reason = _ended(terminated)
            elif container.get("ready") and state.get("running"):
                running = True
        if reason == "Completed" and running:
            is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
            reason = "Running" if is_ready else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def _ended(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if signal := terminated.get("signal"):
        return f"Signal:{signal}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def ready(pod: Object) -> str:
    """READY: how many of its containers are."""
    sidecars = {c["name"] for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"}
    statuses = pod.get("status", {}).get("containerStatuses") or []
    statuses = statuses + [s for s in pod.get("status", {}).get("initContainerStatuses") or () if s["name"] in sidecars]
    total = len(pod["spec"].get("containers", ())) + len(sidecars)
    return f"{sum(1 for status in statuses if status.get('ready'))}/{total}"


def restarts(pod: Object) -> str:
    """RESTARTS, and when the last one was."""
    from sandlane.local.apiserver.tables import age

    statuses = pod.get("status", {}).get("containerStatuses") or ()
    count = sum(status.get("restartCount", 0) for status in statuses)
    last = [s.get("lastState", {}).get("terminated", {}).get("finishedAt") for s in statuses]
    when = max((stamp for stamp in last if stamp), default="")
    return f"{count} ({age(when)} ago)" if count and when else str(count)


def gates(pod: Object) -> str:
    """READINESS GATES: how many are open."""
    wanted = pod["spec"].get("readinessGates") or ()
    if not wanted:
        return "<none>"
    true = {c["type"] for c in pod.get("status", {}).get("conditions") or () if c["status"] == "True"}
    return f"{sum(gate['conditionType'] in true for gate in wanted)}/{len(wanted)}"
