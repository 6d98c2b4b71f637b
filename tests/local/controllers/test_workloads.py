"""The built-in controllers together, on the API server itself with Pods that only pretend to run."""

from __future__ import annotations

from typing import Any

from sandlane.kube.client import PatchType
from sandlane.kube.resource import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    RESOURCE_QUOTAS,
    SERVICE_ACCOUNTS,
    Resource,
)
from support.workloads import Workloads, deployment, service, workloads

JOBS = Resource("batch", "v1", "jobs", "Job")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")


async def images(on: Workloads) -> list[str]:
    """The images of all Pods that are not going."""
    pods = (await on.client.list(PODS, "rides")).items
    return sorted(p["spec"]["containers"][0]["image"] for p in pods if "deletionTimestamp" not in p["metadata"])


async def complete(on: Workloads, image: str, replicas: int) -> dict[str, Any]:
    """Wait until the Deployment runs this image, all replicas available, and nothing else."""

    async def check() -> dict[str, Any] | None:
        found = await on.client.get(DEPLOYMENTS, "app", "rides")
        status = found.get("status") or {}
        counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")]
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        return found if current and counts == [replicas] * 3 and await images(on) == [image] * replicas else None

    found: dict[str, Any] = await on.until(check, f"{replicas} of {image}")
    return found


async def set_image(on: Workloads, image: str) -> None:
    """Give the Deployment's container another image."""
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]
    await on.client.patch(DEPLOYMENTS, "app", patch, namespace="rides", patch_type=PatchType.JSON)


async def test_deployment_runs_rolls_scales_and_rests() -> None:
    """A Deployment gets its Pods, follows a new image and a new size, and then writes nothing more."""
    async with workloads(deployment(), service()) as on:
        await complete(on, "app:1", 2)
        await set_image(on, "app:2")
        await complete(on, "app:2", 2)
        await on.client.patch(DEPLOYMENTS, "app", {"spec": {"replicas": 5}}, namespace="rides")
        done = await complete(on, "app:2", 5)
        assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
        await on.quiet()
        before = len(on.cluster.writes)
        await on.quiet()
        assert len(on.cluster.writes) == before


async def test_a_deleted_pod_is_replaced() -> None:
    """Killing a Pod brings another one."""
    async with workloads(deployment()) as on:
        await complete(on, "app:1", 2)
        victim = (await on.client.list(PODS, "rides")).items[0]["metadata"]["name"]
        await on.client.delete(PODS, victim, "rides")
        await on.gone(PODS, victim, "rides")
        await complete(on, "app:1", 2)


async def test_broken_image_leaves_the_old_pods() -> None:
    """While the new Pods are not ready the old ones stay, and the condition says that it is progressing."""
    async with workloads(deployment()) as on:
        await complete(on, "app:1", 2)
        await set_image(on, "broken:1")

        async def check() -> bool:
            return await images(on) == ["app:1", "app:1", "broken:1"]

        await on.until(check, "one broken Pod beside the old ones")
        await set_image(on, "app:1")
        await complete(on, "app:1", 2)


async def test_endpoints_follow_pods() -> None:
    """A Service's slice holds the addresses of the ready Pods; a broken Pod is in it, but not ready."""
    async with workloads(deployment(), service()) as on:
        await complete(on, "app:1", 2)

        async def ready() -> list[str]:
            slices = (await on.client.list(ENDPOINT_SLICES, "rides")).items
            return sorted(
                e["addresses"][0] for s in slices for e in s.get("endpoints") or () if e["conditions"]["ready"]
            )

        async def check(count: int) -> bool:
            addresses = {p["status"]["podIP"] for p in (await on.client.list(PODS, "rides")).items}
            found = await ready()
            return len(found) == count and set(found) <= addresses

        await on.until(lambda: check(2), "two endpoints")
        await on.client.patch(DEPLOYMENTS, "app", {"spec": {"replicas": 0}}, namespace="rides")
        await on.until(lambda: check(0), "no endpoints")


async def test_deleting_a_deployment_takes_everything() -> None:
    """In the background, and in the foreground where the Deployment goes last."""
    for propagation in ("Background", "Foreground"):
        async with workloads(deployment()) as on:
            await complete(on, "app:1", 2)
            await on.client.delete(DEPLOYMENTS, "app", "rides", propagation=propagation)
            await on.gone(DEPLOYMENTS, "app", "rides")
            if propagation == "Foreground":
                assert (await on.client.list(PODS, "rides")).items == []

            async def nothing_left(on: Workloads = on) -> bool:
                left = [*(await on.client.list(REPLICA_SETS)).items, *(await on.client.list(PODS)).items]
                return not left

            await on.until(nothing_left, "no ReplicaSets and Pods")


async def test_orphaned_pods_live_and_are_adopted_again() -> None:
    """Deleting a Deployment with policy Orphan leaves its ReplicaSet and Pods; a new one takes them over."""
    async with workloads(deployment()) as on:
        await complete(on, "app:1", 2)
        pods = {p["metadata"]["uid"] for p in (await on.client.list(PODS, "rides")).items}
        await on.client.delete(DEPLOYMENTS, "app", "rides", propagation="Orphan")
        await on.gone(DEPLOYMENTS, "app", "rides")
        await on.cluster.add(deployment())
        await complete(on, "app:1", 2)
        assert {p["metadata"]["uid"] for p in (await on.client.list(PODS, "rides")).items} == pods


async def test_owned_by_something_that_never_existed() -> None:
    """An object whose owner does not exist is deleted, one of an existing owner is not."""

    def owned(name: str, owner: dict[str, Any]) -> dict[str, Any]:
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "rides", "ownerReferences": [reference]},
        }

    async with workloads() as on:
        parent = await on.cluster.add(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "parent", "namespace": "rides"}}
        )
        await on.cluster.add(owned("kept", parent["metadata"]))
        await on.cluster.add(owned("lost", {"name": "parent", "uid": "00000000-0000-0000-0000-000000000000"}))
        await on.gone(CONFIG_MAPS, "lost", "rides")
        await on.client.get(CONFIG_MAPS, "kept", "rides")


async def test_namespaces_start_with_their_account_and_end_empty() -> None:
    """A new namespace gets its ServiceAccount and authority; a deleted one takes all content along, Pods first."""
    async with workloads(deployment(), service()) as on:
        await complete(on, "app:1", 2)
        await on.until(lambda: on.client.get(SERVICE_ACCOUNTS, "default", "rides"), "the account")
        authority = await on.until(lambda: on.client.get(CONFIG_MAPS, "kube-root-ca.crt", "rides"), "the authority")
        assert authority["data"] == {"ca.crt": "the authority"}
        await on.client.delete(NAMESPACES, "rides")
        await on.gone(NAMESPACES, "rides")


async def test_a_namespace_says_what_holds_it() -> None:
    """A finalizer on content keeps the namespace, whose conditions name it; without the finalizer it goes."""
    held = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": "rides", "finalizers": ["example.com/hold"]},
    }
    async with workloads(held) as on:
        await on.client.delete(NAMESPACES, "rides")

        async def said() -> bool:
            status = (await on.client.get(NAMESPACES, "rides")).get("status") or {}
            return any("example.com/hold" in c["message"] for c in status.get("conditions") or ())

        await on.until(said, "the finalizer in a condition")
        await on.client.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, namespace="rides")
        await on.gone(NAMESPACES, "rides")


async def test_job_runs_to_completion() -> None:
    """A Job makes Pods until enough have succeeded."""
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job", "namespace": "rides"},
        "spec": {
            "completions": 2,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}},
        },
    }
    async with workloads(job) as on:

        async def finish_pods() -> bool:
            for pod in (await on.client.list(PODS, "rides")).items:
                if (pod.get("status") or {}).get("phase") == "Running":
                    name = pod["metadata"]["name"]
                    body = {"status": {"phase": "Succeeded"}}
                    await on.client.patch(PODS, name, body, namespace="rides", subresource="status")
            status = (await on.client.get(JOBS, "job", "rides")).get("status") or {}
            return any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions") or ())

        await on.until(finish_pods, "the Job is complete")
        assert (await on.client.get(JOBS, "job", "rides"))["status"]["succeeded"] == 2


async def test_stateful_set_is_ordered() -> None:
    """Pods come up by number, an update goes from the last to the first, and revisions are kept."""
    wanted = deployment(replicas=3) | {"kind": "StatefulSet"}
    wanted["spec"]["serviceName"] = "app"
    async with workloads(wanted) as on:

        async def settled(image: str) -> bool:
            status = (await on.client.get(STATEFUL_SETS, "app", "rides")).get("status") or {}
            done = status.get("currentRevision") == status.get("updateRevision")
            return done and status.get("readyReplicas") == 3 and await images(on) == [image] * 3

        await on.until(lambda: settled("app:1"), "three Pods")
        pods = (await on.client.list(PODS, "rides")).items
        assert {p["metadata"]["name"] for p in pods} == {"app-0", "app-1", "app-2"}
        created = [p["metadata"]["resourceVersion"] for p in sorted(pods, key=lambda p: p["metadata"]["name"])]
        assert created == sorted(created, key=int)
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "app:2"}]}}}}
        await on.client.patch(STATEFUL_SETS, "app", patch, namespace="rides")
        await on.until(lambda: settled("app:2"), "three updated Pods")
        revisions = (await on.client.list(CONTROLLER_REVISIONS, "rides")).items
        assert sorted(r["revision"] for r in revisions) == [1, 2]


async def test_daemon_set_runs_on_each_node() -> None:
    """Each node that fits has one Pod; an update replaces them."""
    nodes = [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"disk": disk}}}
        for name, disk in (("a", "fast"), ("b", "fast"), ("c", "slow"))
    ]
    wanted = deployment() | {"kind": "DaemonSet"}
    del wanted["spec"]["replicas"]
    wanted["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "fast"}
    async with workloads(*nodes, wanted) as on:

        async def settled(image: str) -> bool:
            pods = (await on.client.list(PODS, "rides")).items
            placed = sorted((p["spec"]["nodeName"], p["spec"]["containers"][0]["image"]) for p in pods)
            status = (await on.client.get(DAEMON_SETS, "app", "rides")).get("status") or {}
            return placed == [("a", image), ("b", image)] and status.get("numberReady") == 2

        await on.until(lambda: settled("app:1"), "a Pod on each fast node")
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "app:2"}]
        await on.client.patch(DAEMON_SETS, "app", patch, namespace="rides", patch_type=PatchType.JSON)
        await on.until(lambda: settled("app:2"), "updated Pods")


WIDGETS = Resource("example.com", "v1", "widgets", "Widget")
WIDGET_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


async def test_custom_kinds_own_and_are_owned() -> None:
    """What a custom object owns goes with it, and with its kind; a namespace takes custom objects along."""
    async with workloads() as on:
        await on.client.create(CUSTOM_RESOURCE_DEFINITIONS, WIDGET_DEFINITION)
        await on.cluster.ensure_namespace("rides")

        async def make(name: str) -> None:
            widget = {
                "apiVersion": "example.com/v1",
                "kind": "Widget",
                "metadata": {"name": name, "namespace": "rides"},
            }
            made = await on.until(lambda: on.client.create(WIDGETS, widget), "the kind is served")
            owner = {"apiVersion": "example.com/v1", "kind": "Widget", "name": name, "uid": made["metadata"]["uid"]}
            metadata = {"name": name, "namespace": "rides", "ownerReferences": [owner]}
            await on.client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

        async def watched() -> bool:
            return any(kind.resource == WIDGETS for kind in on.inventory.kinds)

        for name in ("a", "b", "c"):
            await make(name)
        await on.until(watched, "the kind is known")
        await on.client.delete(WIDGETS, "a", "rides")
        await on.gone(CONFIG_MAPS, "a", "rides")
        await on.client.get(CONFIG_MAPS, "b", "rides")
        await on.client.delete(NAMESPACES, "rides")
        await on.gone(NAMESPACES, "rides")
        await on.cluster.ensure_namespace("rides")
        await make("d")
        await on.client.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.com")
        await on.gone(CONFIG_MAPS, "d", "rides")


async def test_an_owner_of_a_kind_that_comes_later() -> None:
    """An object is kept while the kind of its owner is not served, and goes when the kind is and the owner is not there."""
    reference = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "gone", "uid": "u"}
    metadata = {"name": "child", "namespace": "rides", "ownerReferences": [reference]}
    async with workloads({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}) as on:
        await on.quiet()
        await on.client.get(CONFIG_MAPS, "child", "rides")
        await on.client.create(CUSTOM_RESOURCE_DEFINITIONS, WIDGET_DEFINITION)
        await on.gone(CONFIG_MAPS, "child", "rides")


async def test_a_quota_is_said_in_the_status() -> None:
    """When Pods may not be created the ReplicaSet and the Deployment say why, and go on when they may."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": "rides"},
        "spec": {"hard": {"pods": "1"}},
    }
    async with workloads(quota) as on:

        async def counted() -> bool:
            return "used" in ((await on.client.get(RESOURCE_QUOTAS, "few", "rides")).get("status") or {})

        await on.until(counted, "the quota is counted")
        await on.cluster.add(deployment())

        async def failed() -> bool:
            status = (await on.client.get(DEPLOYMENTS, "app", "rides")).get("status") or {}
            return any(
                c["type"] == "ReplicaFailure" and "quota" in c["message"] for c in status.get("conditions") or ()
            )

        await on.until(failed, "ReplicaFailure")
        await on.client.delete(RESOURCE_QUOTAS, "few", "rides")
        await complete(on, "app:1", 2)
        assert not await failed()
