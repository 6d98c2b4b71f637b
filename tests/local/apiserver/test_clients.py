"""Other people's clients work against the API server: create, list, watch, patch, apply, delete, logs."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.conformance.cluster import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore:Kubernetes version:UserWarning",
        "ignore::PendingDeprecationWarning",
        "ignore::ResourceWarning",
        "ignore:Kubernetes version:UserWarning",
    ),
]


class Node(http.server.BaseHTTPRequestHandler):
    """A stand-in kubelet: three lines of log; who follows gets the second one when `more` is set, and then the end."""

    more = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if "follow=true" not in self.path:
            self.wfile.write(b"one\ntwo\nthree\n")
            return
        self.wfile.write(b"one\n")
        self.wfile.flush()
        assert self.more.wait(20)
        self.wfile.write(b"two\n")

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""


@pytest.fixture(autouse=True)
def _follow() -> None:
    """Nobody has seen the first line yet."""
    Node.more.clear()


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server with the Pod `web` on a node that has a log of it."""
    node = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Node)
    threading.Thread(target=node.serve_forever, daemon=True).start()
    with running(tmp_path_factory.mktemp("clients") / "data", controllers=False) as cluster:
        _prepare(cluster.kubeconfig, node.server_address[1])
        yield cluster.kubeconfig
    node.shutdown()
    node.server_close()


def _prepare(kubeconfig: Path, port: int) -> None:
    import base64
    import ssl

    config = json.loads(kubeconfig.read_text())
    cluster, token = config["clusters"][0]["cluster"], config["users"][0]["user"]["token"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())

    def send(method: str, path: str, body: Any, media: str = "application/json") -> None:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": media}
        request = urllib.request.Request(cluster["server"] + path, json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request, context=context) as answer:
            assert answer.status in (200, 201)

    send("POST", "/api/v1/nodes", {"metadata": {"name": "laptop"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    send("PATCH", "/api/v1/nodes/laptop/status", {"status": status}, "application/merge-patch+json")
    spec = {"nodeName": "laptop", "containers": [{"name": "app", "image": "i"}]}
    send("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "web"}, "spec": spec})


async def test_kubernetes_asyncio(kubeconfig: Path) -> None:
    """The asyncio client."""
    from kubernetes_asyncio import client, config, watch

    await config.load_kube_config(str(kubeconfig))
    async with client.ApiClient() as api:
        core = client.CoreV1Api(api)
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="ka"), data={"a": "1"})
        made = await core.create_namespaced_config_map("default", body)
        version = made.metadata.resource_version
        await core.patch_namespaced_config_map("ka", "default", {"data": {"b": "2"}})
        applied = await core.patch_namespaced_config_map(
            "ka",
            "default",
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ka"}, "data": {"c": "3"}},
            field_manager="tests",
            force=True,
            _content_type="application/apply-patch+yaml",
        )
        assert applied.data == {"a": "1", "b": "2", "c": "3"}
        found = await core.list_namespaced_config_map("default", field_selector="metadata.name=ka")
        assert found.items[0].data == applied.data
        await core.delete_namespaced_config_map("ka", "default")
        seen = []
        async with watch.Watch() as stream:
            listed = stream.stream(
                core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=1
            )
            async for event in listed:
                if event["object"].metadata.name == "ka":
                    seen.append(event["type"])
        assert seen == ["MODIFIED", "MODIFIED", "DELETED"]
        followed = await core.read_namespaced_pod_log("web", "default", follow=True, _preload_content=False)
        async with asyncio.timeout(20):
            assert await followed.content.readline() == b"one\n"
            Node.more.set()
            assert await followed.content.read() == b"two\n"
        assert await core.read_namespaced_pod_log("web", "default") == "one\ntwo\nthree\n"


def test_kubernetes_dynamic(kubeconfig: Path) -> None:
    """The official client's dynamic client, with server-side apply."""
    from kubernetes import client, config, dynamic, watch

    api = config.new_client_from_config(str(kubeconfig))
    try:
        deployments = dynamic.DynamicClient(api).resources.get(api_version="apps/v1", kind="Deployment")
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "dyn", "namespace": "default"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "dyn"}},
                "template": {
                    "metadata": {"labels": {"app": "dyn"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]},
                },
            },
        }
        first = body | {"metadata": {"name": "first"}}
        assert deployments.create(body=first, namespace="default").metadata.uid
        deployments.delete(name="first", namespace="default")
        made = deployments.server_side_apply(body=body, name="dyn", namespace="default", field_manager="test")
        assert made.spec.strategy.type == "RollingUpdate"
        patched = deployments.patch(
            body={"spec": {"replicas": 2}}, name="dyn", namespace="default", content_type="application/merge-patch+json"
        )
        assert patched.spec.replicas == 2
        watched = deployments.watch(namespace="default", name="dyn", timeout=1)
        assert next(iter(watched))["object"].metadata.name == "dyn"
        assert [item.metadata.name for item in deployments.get(namespace="default").items] == ["dyn"]
        deployments.delete(name="dyn", namespace="default")
        assert deployments.get(namespace="default").items == []
        core = client.CoreV1Api(api)
        assert core.read_namespaced_pod_log("web", "default") == "one\ntwo\nthree\n"
        lines = watch.Watch().stream(core.read_namespaced_pod_log, "web", "default", follow=True)
        assert next(lines) == "one"
        Node.more.set()
        assert list(lines) == ["two"]
    finally:
        api.close() if hasattr(api, "close") else None


async def test_lightkube(kubeconfig: Path) -> None:
    """lightkube's asynchronous client."""
    from lightkube import AsyncClient, KubeConfig
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import ConfigMap, Pod

    client = AsyncClient(KubeConfig.from_file(str(kubeconfig)), field_manager="lightkube")
    made = await client.create(ConfigMap(metadata=ObjectMeta(name="lk", namespace="default"), data={"a": "1"}))
    assert made.metadata is not None
    applied = await client.apply(
        ConfigMap(
            apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="lk", namespace="default"), data={"b": "2"}
        ),
        force=True,
    )
    assert applied.data == {"a": "1", "b": "2"}
    patched = await client.patch(ConfigMap, "lk", {"data": {"c": "3"}}, namespace="default")
    assert patched.data == {"a": "1", "b": "2", "c": "3"}
    assert [obj.metadata.name async for obj in client.list(ConfigMap, namespace="default")] == ["lk"]
    seen = []
    async with asyncio.timeout(20):
        version = made.metadata.resourceVersion
        async for change, obj in client.watch(ConfigMap, namespace="default", resource_version=version):
            seen.append((change, obj.data))
            if len(seen) == 2:
                break
    assert [change for change, _ in seen] == ["MODIFIED", "MODIFIED"]
    assert [line async for line in client.log("web", namespace="default")] == ["one\n", "two\n", "three\n"]
    async with asyncio.timeout(20):
        followed = aiter(client.log("web", namespace="default", follow=True))
        assert await anext(followed) == "one\n"
        Node.more.set()
        assert [line async for line in followed] == ["two\n"]
    await client.delete(ConfigMap, "lk", namespace="default")
    assert [obj async for obj in client.list(ConfigMap, namespace="default")] == []
    assert (await client.get(Pod, "web", namespace="default")).spec.nodeName == "laptop"
    await client.close()


async def test_kr8s(kubeconfig: Path) -> None:
    """kr8s's asynchronous API."""
    import kr8s.asyncio
    from kr8s.asyncio.objects import ConfigMap, Pod

    api = await kr8s.asyncio.api(kubeconfig=str(kubeconfig))
    made = await ConfigMap({"metadata": {"name": "k8", "namespace": "default"}, "data": {"a": "1"}}, api=api)
    await made.create()
    await made.patch({"data": {"b": "2"}})
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "k8"}, "data": {"c": "3"}}
    applied = {"content": json.dumps(body), "headers": {"Content-Type": "application/apply-patch+yaml"}}
    where: Any = {"namespace": "default", "url": "configmaps/k8", "params": {"fieldManager": "tests"}}
    async with api.call_api("PATCH", **where, **applied) as answer:
        assert answer.json()["data"] == {"a": "1", "b": "2", "c": "3"}
    found = [obj async for obj in api.get("configmaps", namespace="default", field_selector="metadata.name=k8")]
    assert found[0].raw["data"] == {"a": "1", "b": "2", "c": "3"}
    async with asyncio.timeout(20):
        async for kind, obj in api.watch("configmaps", namespace="default"):
            assert (kind, obj.name) == ("ADDED", "k8")
            break
    pod = await Pod.get("web", namespace="default", api=api)
    assert [line async for line in pod.logs()] == ["one", "two", "three"]
    async with asyncio.timeout(20):
        followed = aiter(pod.logs(follow=True))
        assert await anext(followed) == "one"
        Node.more.set()
        assert [line async for line in followed] == ["two"]
    await made.delete()
    async with asyncio.timeout(20):
        while await made.exists():
            await asyncio.sleep(0.05)
