"""Probes of real containers: http, tcp and exec, what they decide, and an address in use."""

from __future__ import annotations

import socket
from typing import Any

from .conftest import PYTHON, RunningNode, container_state

Object = dict[str, Any]
SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.path != '/flag' or os.path.exists(sys.argv[1])
        self.send_response(200 if good else 503)
        self.end_headers()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer((os.environ['IP'], 8080), Handler).serve_forever()
"""
ENV = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
PORTS = [{"name": "web", "containerPort": 8080}]


async def serve(node: RunningNode, flag: object, name: str = "web", **more: Any) -> None:
    """Run a server whose /flag is well while a file exists."""
    command = [PYTHON, "-S", "-c", SERVER, str(flag)]
    await node.run(name=name, command=command, env=ENV, ports=PORTS, **more)


async def ready(node: RunningNode, wanted: bool, name: str = "web") -> Object:
    """Wait until the Pod is ready, or runs without being so; its status."""

    def check(status: Object) -> bool:
        conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
        return status.get("phase") == "Running" and conditions.get("Ready") == str(wanted)

    return await node.state(name, check, f"{name} ready: {wanted}")


async def test_http_readiness(node: RunningNode, tmp_path: Any) -> None:
    """A Pod is ready when its http probe succeeds, by the port's name, and no longer when it fails often enough."""
    flag = tmp_path / "flag"
    probe = {
        "httpGet": {"path": "/flag", "port": "web"},
        "periodSeconds": 1,
        "failureThreshold": 2,
        "timeoutSeconds": 5,
    }
    await serve(node, flag, readinessProbe=probe)
    await ready(node, False)
    flag.touch()
    await ready(node, True)
    flag.unlink()
    status = await ready(node, False)
    condition = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (condition["reason"], condition["message"]) == (
        "ContainersNotReady",
        "containers with unready status: [app]",
    )


async def test_tcp_readiness(node: RunningNode, tmp_path: Any) -> None:
    """A tcp probe succeeds as soon as the port accepts connections."""
    await serve(node, tmp_path / "flag", readinessProbe={"tcpSocket": {"port": 8080}})
    await ready(node, True)


async def test_exec_readiness_sees_what_the_container_sees(viewing: RunningNode) -> None:
    """An exec probe runs in the container's view, with its environment and working directory."""
    spec = {"volumes": [{"name": "v", "emptyDir": {}}]}
    command = ["/bin/sh", "-c", 'test "$(pwd) $A" = "/sandlane-test b" && test -e here']
    await viewing.run(
        "touch here; exec sleep 100",
        spec=spec,
        volumeMounts=[{"name": "v", "mountPath": "/sandlane-test"}],
        workingDir="/sandlane-test",
        env=[{"name": "A", "value": "b"}],
        readinessProbe={"exec": {"command": command}, "timeoutSeconds": 5},
    )
    await ready(viewing, True)


async def test_a_failed_liveness_probe_restarts(node: RunningNode, tmp_path: Any) -> None:
    """A container whose liveness probe fails is ended, by force if need be, started again, and says why."""
    flag = tmp_path / "flag"
    flag.touch()
    probe = {
        "exec": {"command": ["/bin/sh", "-c", f"test -e {flag} || {{ echo lost; exit 1; }}"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "timeoutSeconds": 5,
    }
    script = "trap '' TERM; while :; do sleep 0.02; done"
    await node.run(script, spec={"restartPolicy": "Always"}, livenessProbe=probe)
    await ready(node, True)
    flag.unlink()
    status = await node.state("web", lambda s: s["containerStatuses"][0]["restartCount"] > 0, "a restart")
    last = status["containerStatuses"][0]["lastState"]["terminated"]
    assert last["message"] == "liveness probe failed: lost"


async def test_a_startup_probe_goes_first(node: RunningNode, tmp_path: Any) -> None:
    """Nothing else is probed before the startup probe has succeeded; a container is not started until then."""
    flag = tmp_path / "flag"
    startup = {
        "httpGet": {"path": "/flag", "port": 8080},
        "periodSeconds": 1,
        "failureThreshold": 1000,
        "timeoutSeconds": 5,
    }
    liveness = {"exec": {"command": ["test", "-e", str(flag)]}, "periodSeconds": 1, "failureThreshold": 1}
    await serve(node, flag, startupProbe=startup, livenessProbe=liveness)
    status = await ready(node, False)
    assert status["containerStatuses"][0]["started"] is False
    flag.touch()
    status = await ready(node, True)
    assert (status["containerStatuses"][0]["started"], status["containerStatuses"][0]["restartCount"]) == (True, 0)


async def test_a_startup_probe_can_fail_for_good(node: RunningNode) -> None:
    """A container that does not start in time is ended, with the probe's words."""
    probe = {
        "exec": {"command": ["/bin/sh", "-c", "echo not yet; exit 1"]},
        "periodSeconds": 1,
        "failureThreshold": 2,
        "timeoutSeconds": 5,
    }
    await node.run("exec sleep 100", startupProbe=probe)
    state = container_state(await node.phase("Failed"))["terminated"]
    assert state["message"] == "startup probe failed: not yet"


async def test_same_port_side_by_side(node: RunningNode, tmp_path: Any) -> None:
    """Two Pods that bind their own addresses use the same port."""
    probe = {"tcpSocket": {"port": "web"}}
    await serve(node, tmp_path, readinessProbe=probe)
    await serve(node, tmp_path, name="fork", readinessProbe=probe)
    first, second = await ready(node, True), await ready(node, True, "fork")
    assert first["podIP"] != second["podIP"]


async def test_an_address_in_use_is_explained(node: RunningNode) -> None:
    """A container that cannot bind because the address is taken is told what to bind instead."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        script = f"import socket; socket.create_server(('0.0.0.0', {port}))"
        await node.run(command=[PYTHON, "-S", "-c", script], ports=[{"containerPort": port}])
        status = await node.phase("Failed")
    said = container_state(status)["terminated"]["message"]
    assert f"address in use: containers share the host's network, so bind status.podIP ({status['podIP']})" in said
    assert f"for {port}" in said
