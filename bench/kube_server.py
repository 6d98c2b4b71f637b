"""A stand-in API server for benchmarks of clients: ready-made Pods, as a list in pages and as a watch, from its own process.

`python -m bench.kube_server PODS EVENTS` prints its port. It answers with bytes made beforehand, so that what is measured
is the client. A watch sends EVENTS modifications of the Pods in turn and then stays open; streaming lists are refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from aiohttp import web

EVENTS_PER_CHUNK = 50


def pod(index: int, version: int) -> dict[str, Any]:
    """A Pod of about 11 KB: three containers, conditions, and managedFields as kubelets and schedulers leave them."""
    environment = [{"name": f"VARIABLE_{n}", "value": f"value-of-{n}-in-pod-{index}"} for n in range(16)]
    mounts = [{"name": "config", "mountPath": "/etc/config", "readOnly": True}, {"name": "data", "mountPath": "/data"}]
    containers = [
        {
            "name": f"container-{n}",
            "image": f"registry.example.com/team/service-{n}:1.{index % 50}",
            "env": environment,
            "ports": [{"name": "http", "containerPort": 8080 + n, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "volumeMounts": mounts,
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http", "scheme": "HTTP"}, "periodSeconds": 5},
            "terminationMessagePath": "/dev/termination-log",
            "imagePullPolicy": "IfNotPresent",
        }
        for n in range(3)
    ]
    statuses = [
        {
            "name": container["name"],
            "ready": True,
            "restartCount": 0,
            "image": container["image"],
            "imageID": f"sha256:{index:064x}",
            "containerID": f"containerd://{index:064x}",
            "started": True,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
        for container in containers
    ]
    fields = {
        "f:spec": {
            "f:containers": {
                f'k:{{"name":"container-{n}"}}': {
                    ".": {},
                    "f:image": {},
                    "f:name": {},
                    "f:env": {
                        ".": {},
                        **{f'k:{{"name":"VARIABLE_{m}"}}': {".": {}, "f:name": {}, "f:value": {}} for m in range(16)},
                    },
                    "f:resources": {".": {}, "f:limits": {".": {}, "f:memory": {}}, "f:requests": {"f:cpu": {}}},
                }
                for n in range(3)
            }
        }
    }
    name = f"service-{index:05d}-7d9c6b5f4-x2v{index % 97:02d}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": f"team-{index % 20}",
            "uid": f"00000000-0000-4000-8000-{index:012d}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": f"service-{index % 200}", "pod-template-hash": "7d9c6b5f4", "team": f"team-{index % 20}"},
            "annotations": {"prometheus.io/scrape": "true", "checksum/config": f"{index:064x}"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"service-{index:05d}-7d9c6b5f4",
                    "uid": f"10000000-0000-4000-8000-{index:012d}",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": [
                {
                    "manager": "kube-controller-manager",
                    "operation": "Update",
                    "apiVersion": "v1",
                    "time": "2026-01-01T00:00:00Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": fields,
                }
            ],
        },
        "spec": {
            "containers": containers,
            "volumes": [{"name": "config", "configMap": {"name": "config", "defaultMode": 420}}, {"name": "data"}],
            "nodeName": f"node-{index % 100}",
            "restartPolicy": "Always",
            "serviceAccountName": "default",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
        },
        "status": {
            "phase": "Running",
            "podIP": f"10.{index // 65536}.{index // 256 % 256}.{index % 256}",
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "lastProbeTime": None}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": statuses,
            "startTime": "2026-01-01T00:00:00Z",
        },
    }


class Server:
    """The Pods as bytes."""

    def __init__(self, pods: int, events: int) -> None:
        self._items = [json.dumps(pod(index, index + 1), separators=(",", ":")).encode() for index in range(pods)]
        self._pods, self._events = pods, events

    async def list_or_watch(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/pods`."""
        query = request.query
        if query.get("watch") in ("true", "1", "True"):
            if query.get("sendInitialEvents"):
                status = {"kind": "Status", "code": 422, "reason": "Invalid", "message": "sendInitialEvents: Forbidden"}
                return web.json_response(status, status=422)
            return await self._watch(request)
        start = int(query.get("continue") or 0)
        end = min(start + int(query.get("limit") or self._pods), self._pods) if self._pods else 0
        more = f',"continue":"{end}"' if end < self._pods else ""
        head = f'{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"{self._pods}"{more}}},"items":['
        body = head.encode() + b",".join(self._items[start:end]) + b"]}"
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        for start in range(0, self._events, EVENTS_PER_CHUNK):
            lines = bytearray()
            for n in range(start, min(start + EVENTS_PER_CHUNK, self._events)):
                index = n % self._pods
                old = f'"resourceVersion":"{index + 1}"'.encode()
                new = f'"resourceVersion":"{self._pods + n + 1}"'.encode()
                lines += b'{"type":"MODIFIED","object":' + self._items[index].replace(old, new, 1) + b"}\n"
            await response.write(bytes(lines))
        await asyncio.sleep(3600)
        return response


async def main(pods: int, events: int) -> None:
    """Serve until the process is ended."""
    server = Server(pods, events)
    app = web.Application()
    app.router.add_get("/api/v1/pods", server.list_or_watch)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
