"""Whatever goes wrong on the way, Services are turned, repaired and given back as if nothing had."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandlane.api.crd import definitions
from sandlane.api.labels import ORIGINAL
from sandlane.kube.client import Client, PatchType
from sandlane.kube.resource import DEPLOYMENTS, NAMESPACES, NETWORK_POLICIES, PODS, SANDBOXES, SERVICES, Key, Object
from sandlane.routing.names import ROUTER, shadow_name
from sandlane.routing.resources import ROUTER_SELECTOR
from sandlane.testing.faults import Schedule
from sandlane.testing.harness import Harness, Step, World
from support.routed import sandbox
from support.routers import NAMESPACE, PretendRouters, build, service


def routing(mode: str | None) -> Step:
    """The owner says how the Service shall be routed."""
    body = {"metadata": {"annotations": {"sandlane.dev/routing": mode}}}
    return lambda client: client.patch(SERVICES, "eta", body, namespace=NAMESPACE)


async def apply_by_kubectl(client: Client) -> None:
    """`kubectl apply` of the unchanged manifest, with no webhook: a union of selectors, and the owner's ports."""
    manifest = service()["spec"]
    body = {"spec": {"selector": manifest["selector"], "ports": manifest["ports"]}}
    await client.patch(SERVICES, "eta", body, namespace=NAMESPACE, patch_type=PatchType.STRATEGIC)


async def apply_by_force(client: Client) -> None:
    """`kubectl apply --server-side --force-conflicts`."""
    await client.apply(SERVICES, service(), field_manager="gitops")


async def replace(client: Client) -> None:
    """`kubectl replace`: everything of ours is gone, the annotation, too."""
    await client.replace(SERVICES, service())


async def add_a_port(client: Client) -> None:
    """The owner wants another selector and one more port."""
    ports = [*service()["spec"]["ports"], {"name": "more", "port": 81, "targetPort": 8081, "protocol": "TCP"}]
    body = service(ports=ports)
    body["spec"]["selector"] = {"app": "eta", "track": "stable"}
    await client.apply(SERVICES, body, field_manager="owner")


async def delete_router(client: Client) -> None:
    """A stranger deletes the router."""
    await client.delete(DEPLOYMENTS, ROUTER, NAMESPACE)


async def delete_service(client: Client) -> None:
    """The owner deletes the Service."""
    await client.delete(SERVICES, "eta", NAMESPACE)


async def bar(client: Client) -> None:
    """A NetworkPolicy lets callers reach the baseline, and no router."""
    spec = {
        "podSelector": {"matchLabels": {"app": "eta"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
    }
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": NAMESPACE},
    }
    await client.create(NETWORK_POLICIES, body | {"spec": spec})


async def unbar(client: Client) -> None:
    """It is deleted."""
    await client.delete(NETWORK_POLICIES, "p", NAMESPACE)


def routers(ready: str) -> Step:
    """Every router becomes ready, or stops being it."""

    async def step(client: Client) -> None:
        conditions = [{"type": "Ready", "status": ready}]
        for number in range(2):
            body = {"status": {"conditions": conditions}}
            await client.patch(PODS, f"{ROUTER}-{number}", body, namespace=NAMESPACE, subresource="status")

    return step


async def delete_namespace(client: Client) -> None:
    """The namespace is deleted, and what is in it, one after the other."""
    await client.delete(NAMESPACES, NAMESPACE)
    for resource, name in ((DEPLOYMENTS, ROUTER), (SERVICES, shadow_name("eta")), (SERVICES, "eta")):
        await client.delete(resource, name, NAMESPACE)


async def replace_workload(client: Client) -> None:
    """A sandbox whose fork of the workload is ready."""
    (made, fork, endpoints) = sandbox("a")
    for obj in (made, fork, endpoints):
        obj["metadata"] = {"name": obj["metadata"]["name"], "namespace": NAMESPACE}
    await client.create(SERVICES, fork)
    await client.create(SANDBOXES, made)
    await client.patch_status(SANDBOXES, Key(NAMESPACE, "a"), {"status": made["status"]})


async def delete_sandbox(client: Client) -> None:
    """It is deleted."""
    await client.delete(SANDBOXES, "a", NAMESPACE)


ROWS: dict[str, list[Step]] = {
    "sandbox-comes-and-goes": [replace_workload, delete_sandbox],
    "turned": [],
    "never": [routing("never"), routing("always"), routing("never")],
    "applied-by-kubectl": [apply_by_kubectl],
    "applied-by-force": [apply_by_force],
    "replaced": [replace],
    "changed-by-its-owner": [add_a_port],
    "router-deleted": [delete_router],
    "deleted": [delete_service],
    "no-router-ready": [routers("False")],
    "no-router-ready-for-a-while": [routers("False"), routers("True")],
    "namespace-deleted": [delete_namespace],
    "barred": [bar],
    "barred-from-the-start": [routing("never"), bar, routing("always")],
    "barred-for-a-while": [bar, unbar],
}


def normalise(obj: Object) -> Object | None:
    """Certificates are made anew; Pods are the environment's."""
    if obj["kind"] == "Secret":
        return {**obj, "data": sorted(obj["data"])}
    return None if obj["kind"] == "Pod" else obj


def harness(row: str) -> Harness:
    """A row."""
    namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    objects = [*definitions(), namespace, service(routing="when needed" if "sandbox" in row else "always")]
    return Harness(build, objects=objects, steps=ROWS[row], environment=PretendRouters, normalise=normalise, limit=8)


async def undisturbed(row: str) -> World:
    """The world in which a row ends; starting again must write nothing."""
    run = await harness(row)._run(Schedule())
    assert run.second_writes == [], run.log
    return run.world


def plain(world: World) -> dict[str, Any]:
    """What the owner can see of the Service."""
    spec = world[f"Service {NAMESPACE}/eta"]["spec"]
    ports = [{name: value for name, value in port.items() if name != "nodePort"} for port in spec["ports"]]
    return {"selector": spec["selector"], "ports": ports, "type": spec["type"], "affinity": spec["sessionAffinity"]}


@pytest.mark.slow
@pytest.mark.parametrize("row", ["changed-by-its-owner", "router-deleted", "sandbox-comes-and-goes"])
async def test_ends_in_the_same_world(row: str) -> None:
    """Crashes after every write, failing calls, broken watches and stale restarts change nothing in the end."""
    report = await harness(row).check()
    assert report.writes
    if row == "sandbox-comes-and-goes":
        assert plain(report.world)["selector"] == service()["spec"]["selector"]
        assert not {"Deployment", "PodDisruptionBudget", "Secret"} & {name.split()[0] for name in report.world}


async def test_turned_and_given_back_is_as_its_owner_wrote_it() -> None:
    """Every port turned, UDP too; given back with every field as before, and nothing of ours left."""
    turned = await undisturbed("turned")
    assert plain(turned)["selector"] == ROUTER_SELECTOR
    assert all(20_000 <= port["targetPort"] < 30_000 for port in plain(turned)["ports"])
    assert plain(turned)["affinity"] == "ClientIP"
    assert {"Deployment", "PodDisruptionBudget", "Secret"} <= {name.split()[0] for name in turned}
    back = await undisturbed("never")
    spec = service()["spec"]
    assert plain(back) == {
        "selector": spec["selector"], "ports": spec["ports"], "type": "NodePort", "affinity": "ClientIP",
    }  # fmt: skip
    assert ORIGINAL not in back[f"Service {NAMESPACE}/eta"]["metadata"]["annotations"]
    assert not {"Deployment", "PodDisruptionBudget", "Secret"} & {name.split()[0] for name in back}


@pytest.mark.slow
@pytest.mark.parametrize("row", ["applied-by-kubectl", "applied-by-force", "replaced", "changed-by-its-owner"])
async def test_a_written_service_is_turned_again(row: str) -> None:
    """Whoever writes it, it ends turned, with their wish saved."""
    world = await undisturbed(row)
    metadata = world[f"Service {NAMESPACE}/eta"]["metadata"]
    assert plain(world)["selector"] == ROUTER_SELECTOR
    assert all(20_000 <= port["targetPort"] < 30_000 for port in plain(world)["ports"])
    saved = json.loads(metadata["annotations"][ORIGINAL])
    changed = row == "changed-by-its-owner"
    assert saved["selector"] == {"app": "eta"} | ({"track": "stable"} if changed else {})
    assert [port["targetPort"] for port in saved["ports"]] == ["http", 9090, 5353] + ([8081] if changed else [])


async def test_nothing_is_left_of_a_deleted_service() -> None:
    """Its router goes with the last Service that needed it."""
    world = await undisturbed("deleted")
    assert not {"Deployment", "PodDisruptionBudget", "Secret"} & {name.split()[0] for name in world}


async def test_without_a_ready_router_requests_go_to_the_baseline() -> None:
    """The Service is given back until a router is ready again."""
    world = await undisturbed("no-router-ready")
    assert plain(world)["selector"] == service()["spec"]["selector"]
    assert plain(world)["ports"] == service()["spec"]["ports"]
    assert plain(await undisturbed("no-router-ready-for-a-while"))["selector"] == ROUTER_SELECTOR


async def test_nothing_is_made_in_a_namespace_that_ends() -> None:
    """A turned Service goes with its namespace: nobody gives it back, and no router comes again."""
    world = await undisturbed("namespace-deleted")
    assert not [name for name in world if name.startswith((f"Deployment {NAMESPACE}/", f"Service {NAMESPACE}/"))]


async def test_a_service_is_not_turned_while_a_policy_is_in_the_way() -> None:
    """A turned one is given back at once, another one is left alone and gets no router; both are turned when they may be."""
    spec = service()["spec"]
    for row in ("barred", "barred-from-the-start"):
        world = await undisturbed(row)
        assert plain(world)["selector"] == spec["selector"], row
        assert plain(world)["ports"] == spec["ports"], row
    assert "Deployment" not in {name.split()[0] for name in world}
    assert plain(await undisturbed("barred-for-a-while"))["selector"] == ROUTER_SELECTOR
