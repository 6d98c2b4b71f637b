"""A sandbox forks workloads, says how they are, puts right what others break, and leaves nothing behind."""

from __future__ import annotations

from sandlane.kube.client import PatchType
from sandlane.kube.resource import DEPLOYMENTS, SANDBOXES, SERVICES, Key
from sandlane.testing.events import captured_events
from support.sandboxes import NAMESPACE, Report, deployment, fork, running, sandbox, service


def status_of(obj: dict) -> dict:
    """The only fork's status."""
    return obj["status"]["forks"][0]


def fork_of(obj: dict) -> str:
    """The only fork's Deployment."""
    return status_of(obj)["workload"]


async def test_a_sandbox_becomes_ready_within_eight_writes() -> None:
    """From apply to Ready a sandbox with one fork costs at most eight writes, Events and status included."""
    async with running(deployment(), service()) as cluster:
        await cluster.rest()
        cluster.cluster.writes.clear()
        await cluster.client.create(SANDBOXES, sandbox())
        ready = await cluster.ready()
        await cluster.rest()
        ours = [w for w in cluster.cluster.writes[1:] if "deployments" not in w.path or "status" not in w.path]
        assert len(ours) <= 8, [f"{w.method} {w.path}" for w in ours]
        assert ready["status"]["phase"] == "Ready"
        assert [c["type"] for c in ready["status"]["conditions"]] == [
            "Accepted",
            "WithinLimits",
            "ForksReady",
            "LocalReady",
            "RoutesProgrammed",
            "Ready",
        ]
        assert status_of(ready)["everReady"]
        assert await captured_events(cluster.client, NAMESPACE) == [
            "Sandbox/new-eta: Created",
            "Sandbox/new-eta: SandboxReady",
        ]


async def test_a_deleted_sandbox_waits_for_its_routes_and_leaves_nothing() -> None:
    """Deleting keeps the forks while a router still leads there, says so, and then removes everything."""
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        name = fork_of(await cluster.ready())
        key = Key(NAMESPACE, "new-eta")
        cluster.routes.say("Sandbox", key, Report(served=True, message="router a is late"))
        await cluster.client.delete(SANDBOXES, "new-eta", NAMESPACE)
        waiting = await cluster.condition("RoutesProgrammed", "False", "RoutesDraining")
        assert waiting["status"]["phase"] == "Terminating"
        await cluster.client.get(DEPLOYMENTS, name, NAMESPACE)
        cluster.routes.say("Sandbox", key, Report())
        await cluster.gone(SANDBOXES, "new-eta")
        await cluster.gone(DEPLOYMENTS, name)
        left = (await cluster.client.list(SERVICES, NAMESPACE)).items
        assert [each["metadata"]["name"] for each in left] == ["route"]


async def test_drift_is_put_back_and_said() -> None:
    """An owned object that somebody edits or deletes is put back, with an Event; the Service too."""
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        ready = await cluster.ready()
        name, own = fork_of(ready), status_of(ready)["services"][0]["to"]
        image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil:1"}]
        await cluster.client.patch(DEPLOYMENTS, name, image, namespace=NAMESPACE, patch_type=PatchType.JSON)

        async def put_back() -> bool:
            live = await cluster.client.get(DEPLOYMENTS, name, NAMESPACE)
            return live["spec"]["template"]["spec"]["containers"][0]["image"] == "rides/route:1"

        await cluster.until(put_back, "the image is put back")
        await cluster.client.delete(SERVICES, own, NAMESPACE)
        await cluster.until(lambda: cluster.client.get(SERVICES, own, NAMESPACE), "the Service is back")
        await cluster.patch(SERVICES, own, {"metadata": {"labels": {"stranger": "x"}}})

        async def cleaned() -> bool:
            return "stranger" not in (await cluster.client.get(SERVICES, own, NAMESPACE))["metadata"]["labels"]

        await cluster.until(cleaned, "the stranger's label is removed")
        await cluster.ready()
        await cluster.rest()
        events = await captured_events(cluster.client, NAMESPACE)
        told = [each for each in events if "DriftCorrected" in each]
        assert told == ["Sandbox/new-eta: DriftCorrected", "Sandbox/new-eta: DriftCorrected x2"]


async def test_a_restart_of_a_fork_is_no_drift() -> None:
    """`kubectl rollout restart` of a fork stays, and is not called a drift."""
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        name = fork_of(await cluster.ready())
        mark = {"kubectl.kubernetes.io/restartedAt": "2026-02-01T00:00:00Z"}
        await cluster.patch(DEPLOYMENTS, name, {"spec": {"template": {"metadata": {"annotations": mark}}}})
        await cluster.rest()
        live = await cluster.client.get(DEPLOYMENTS, name, NAMESPACE)
        assert live["spec"]["template"]["metadata"]["annotations"] == mark
        assert not [each for each in await captured_events(cluster.client, NAMESPACE) if "DriftCorrected" in each]


async def test_the_fork_follows_its_baseline() -> None:
    """A new generation of the baseline is copied; a deleted one keeps the last fork; one made again is noticed."""
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        name = fork_of(await cluster.ready())
        args = [{"op": "add", "path": "/spec/template/spec/containers/0/args", "value": ["--new"]}]
        await cluster.client.patch(DEPLOYMENTS, "route", args, namespace=NAMESPACE, patch_type=PatchType.JSON)

        async def followed() -> bool:
            live = await cluster.client.get(DEPLOYMENTS, name, NAMESPACE)
            return live["spec"]["template"]["spec"]["containers"][0].get("args") == ["--new"]

        await cluster.until(followed, "the fork follows")
        await cluster.client.delete(DEPLOYMENTS, "route", NAMESPACE)
        gone = await cluster.condition("Accepted", "False", "BaselineNotFound")
        assert status_of(gone)["services"][0]["from"] == "route"
        await cluster.client.get(DEPLOYMENTS, name, NAMESPACE)
        made = await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.condition("Accepted", "True")
        again = await cluster.ready()
        assert status_of(again)["baseline"]["uid"] == made["metadata"]["uid"]


async def test_a_removed_fork_goes_after_its_routes() -> None:
    """A fork that is taken out of the spec is kept until no router leads there, then deleted."""
    async with running(deployment(), service(), deployment("driver"), service("driver")) as cluster:
        await cluster.client.create(SANDBOXES, sandbox("new-eta", fork(), fork("driver")))
        ready = await cluster.ready()
        name = next(f["workload"] for f in ready["status"]["forks"] if f["baseline"]["name"] == "driver")
        key = Key(NAMESPACE, "new-eta")
        cluster.routes.say("Sandbox", key, Report(programmed=False, reason="Progressing", served=True))
        await cluster.patch(SANDBOXES, "new-eta", {"spec": {"forks": [fork()]}})
        await cluster.condition("RoutesProgrammed", "False", "Progressing")
        await cluster.rest()
        await cluster.client.get(DEPLOYMENTS, name, NAMESPACE)
        cluster.routes.say("Sandbox", key, Report(served=True))
        await cluster.gone(DEPLOYMENTS, name)
        await cluster.ready()


async def test_a_strangers_object_is_left_alone() -> None:
    """A name that somebody else's object has is NotOwned; that object is not touched."""
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        name = fork_of(await cluster.ready())
        orphan = [{"op": "remove", "path": "/metadata/ownerReferences"}]
        await cluster.client.patch(DEPLOYMENTS, name, orphan, namespace=NAMESPACE, patch_type=PatchType.JSON)
        refused = await cluster.condition("Accepted", "False", "NotOwned")
        assert name in next(c["message"] for c in refused["status"]["conditions"] if c["type"] == "Accepted")


async def test_suspending_takes_forks_to_zero() -> None:
    """A suspended sandbox keeps its objects with no replicas; resumed, it has to become ready before routes go in."""
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        name = fork_of(await cluster.ready())
        await cluster.patch(SANDBOXES, "new-eta", {"spec": {"suspended": True}})
        suspended = await cluster.condition("Ready", "False", "Suspended")
        assert not status_of(suspended).get("everReady")
        assert (await cluster.client.get(DEPLOYMENTS, name, NAMESPACE))["spec"]["replicas"] == 0
        await cluster.patch(SANDBOXES, "new-eta", {"spec": {"suspended": False}})
        await cluster.ready()


async def test_nothing_is_made_when_a_service_would_select_the_fork() -> None:
    """A preserved label by which a Service selects stops everything, and the condition names the Service."""
    async with running(deployment(), service()) as cluster:
        bad = fork() | {"preservedLabels": ["^app$"]}
        await cluster.client.create(SANDBOXES, sandbox("new-eta", bad))
        refused = await cluster.condition("Accepted", "False", "ForkSelectedByService")
        assert refused["status"]["phase"] == "Failed"
        assert len((await cluster.client.list(DEPLOYMENTS, NAMESPACE)).items) == 1
        await cluster.patch(SANDBOXES, "new-eta", {"spec": {"forks": [fork()]}})
        await cluster.ready()


async def test_two_sandboxes_on_one_baseline_never_meet() -> None:
    """Two sandboxes that fork the same workload have objects, selectors and keys of their own."""
    async with running(deployment(), service()) as cluster:
        for name in ("one", "two"):
            await cluster.client.create(SANDBOXES, sandbox(name))
        first, second = await cluster.ready("one"), await cluster.ready("two")
        assert fork_of(first) != fork_of(second)
        assert first["status"]["routingKey"] != second["status"]["routingKey"]
        selectors = [
            (await cluster.client.get(DEPLOYMENTS, fork_of(each), NAMESPACE))["spec"]["selector"]
            for each in (first, second)
        ]
        assert selectors[0] != selectors[1]


async def test_a_patch_that_is_no_deployment_any_more_is_told() -> None:
    """A misspelt field and a value that is none are refused in the server's words; a right patch helps."""
    wrong = [{"name": "route", "imagePullPolcy": "Always"}, {"name": "route", "resources": {"limits": {"cpu": "lots"}}}]
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        await cluster.ready()
        for container, words in zip(wrong, ("imagePullPolcy", "quantities"), strict=True):
            value = {"spec": {"template": {"spec": {"containers": [container]}}}}
            patch = {"type": "strategic", "value": value}
            await cluster.patch(SANDBOXES, "new-eta", {"spec": {"forks": [fork(patch=patch)]}})
            refused = await cluster.condition("Accepted", "False", "Refused")
            assert words in next(c["message"] for c in refused["status"]["conditions"] if c["type"] == "Accepted")
            await cluster.patch(SANDBOXES, "new-eta", {"spec": {"forks": [fork()]}})
            await cluster.ready()


async def test_a_fork_of_no_pods_says_why_it_is_not_ready() -> None:
    """`replicas: 0` is legal; what is waited for never comes, and the condition says because of which field."""
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox("new-eta", fork(replicas=0)))
        await cluster.condition("ForksReady", "True", "AllReady")
        waiting = await cluster.condition("RoutesProgrammed", "False", "Progressing")
        told = next(c["message"] for c in waiting["status"]["conditions"] if c["type"] == "Ready")
        assert "customizations.replicas 0" in told


async def test_what_could_not_be_made_before_is_no_drift() -> None:
    """A fork whose baseline comes later, or that was refused at first, is made: nobody has changed or deleted it."""
    patch = {"type": "merge", "value": {"spec": {"template": {"spec": {"dnsPolicy": "Magic"}}}}}
    async with running(deployment("driver")) as cluster:
        await cluster.client.create(SANDBOXES, sandbox("new-eta", fork(patch=patch)))
        await cluster.condition("Accepted", "False", "BaselineNotFound")
        for resource, obj in ((SERVICES, service()), (DEPLOYMENTS, deployment())):
            await cluster.client.create(resource, obj)
        await cluster.condition("Accepted", "False", "Refused")
        await cluster.patch(SANDBOXES, "new-eta", {"spec": {"forks": [fork()]}})
        await cluster.ready()
        told = await captured_events(cluster.client, NAMESPACE)
        assert "Sandbox/new-eta: Created" in told
        assert "Sandbox/new-eta: DriftCorrected" not in told
