"""A sandbox tells why it is as it is: Pods that fail, limits, policies, time, route groups."""

from __future__ import annotations

from datetime import timedelta

from sandlane.api.limits import Limits, Settings
from sandlane.kube.resource import (
    DEPLOYMENTS,
    NETWORK_POLICIES,
    PODS,
    SANDBOXES,
    Key,
    Object,
)
from sandlane.testing.clock import ManualClock
from sandlane.testing.events import captured_events
from support.sandboxes import NAMESPACE, Report, deployment, fork, running, sandbox, service


def message(obj: Object, kind: str) -> str:
    """The message of a condition."""
    return str(next(each["message"] for each in obj["status"]["conditions"] if each["type"] == kind))


async def test_a_crash_loop_is_told_in_words() -> None:
    """The cause that a Pod gives is in the condition and in the fork's status, with the container's last words."""
    async with running(deployment(), service()) as cluster:
        made = await cluster.client.create(SANDBOXES, sandbox())
        name = (await cluster.ready())["status"]["forks"][0]["workload"]
        cluster.deployments.held.add(name)
        status = {"status": {"readyReplicas": 0, "availableReplicas": 0}}
        await cluster.patch(DEPLOYMENTS, name, status, subresource="status")
        live = await cluster.client.get(DEPLOYMENTS, name, NAMESPACE)
        ended = {"exitCode": 3, "message": "starting\nno database", "finishedAt": "2026-01-01T00:00:00Z"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "crashing",
                "namespace": NAMESPACE,
                "labels": live["spec"]["template"]["metadata"]["labels"],
            },
            "spec": live["spec"]["template"]["spec"],
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "name": "route",
                        "image": "x",
                        "imageID": "",
                        "ready": False,
                        "restartCount": 4,
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                        "lastState": {"terminated": ended},
                    }
                ],
            },
        }
        await cluster.cluster.add(pod)
        failed = await cluster.condition("ForksReady", "False", "CrashLoop")
        assert failed["status"]["phase"] == "Failed"
        assert "exit code 3: no database" in message(failed, "ForksReady")
        assert failed["status"]["forks"][0]["everReady"], "its routes stay"
        assert made["metadata"]["uid"]
        await cluster.client.delete(PODS, "crashing", NAMESPACE, grace_seconds=0)
        cluster.deployments.held.clear()
        cluster.deployments.controller.enqueue(Key(NAMESPACE, name))
        await cluster.ready()
        await cluster.rest()
        events = await captured_events(cluster.client, NAMESPACE)
        assert events.count("Sandbox/new-eta: SandboxNotReady") == 1


async def test_an_exhausted_quota_becomes_a_condition() -> None:
    """A refusal by ResourceQuota that the Deployment reports is WithinLimits=False, with the figure."""
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        name = (await cluster.ready())["status"]["forks"][0]["workload"]
        cluster.deployments.held.add(name)
        text = 'pods "x" is forbidden: exceeded quota: q, requested: memory=1Gi, used: memory=1Gi, limited: memory=1Gi'
        failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": text}
        status = {"status": {"readyReplicas": 0, "availableReplicas": 0, "conditions": [failure]}}
        await cluster.patch(DEPLOYMENTS, name, status, subresource="status")
        over = await cluster.condition("WithinLimits", "False", "QuotaExceeded")
        assert "memory=1Gi" in message(over, "WithinLimits")


async def test_over_a_limit_nothing_new_is_made() -> None:
    """A sandbox over a limit has a condition with the figure; what is there already stays."""
    settings = Settings(limits=Limits(forks_per_sandbox=1))
    async with running(deployment(), service(), deployment("driver"), settings=settings) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        name = (await cluster.ready())["status"]["forks"][0]["workload"]
        await cluster.patch(SANDBOXES, "new-eta", {"spec": {"forks": [fork(), fork("driver")]}})
        over = await cluster.condition("WithinLimits", "False", "LimitExceeded")
        assert "2 forks are more than 1" in message(over, "WithinLimits")
        await cluster.rest()
        names = {each["metadata"]["name"] for each in (await cluster.client.list(DEPLOYMENTS, NAMESPACE)).items}
        assert names == {"route", "driver", name}


async def test_a_policy_that_cuts_off_the_fork_is_reported() -> None:
    """Default deny, with a rule for the baseline only, would keep routers from the fork: said, and cleared later."""
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": NAMESPACE},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    async with running(deployment(), service(), policy) as cluster:
        await cluster.client.create(SANDBOXES, sandbox())
        blocked = await cluster.condition("RoutesProgrammed", "False", "PolicyBlocksTraffic")
        assert "NetworkPolicy deny" in message(blocked, "RoutesProgrammed")
        assert blocked["status"]["phase"] == "Failed"
        await cluster.patch(NETWORK_POLICIES, "deny", {"spec": {"ingress": [{"from": [{"podSelector": {}}]}]}})
        await cluster.ready()


async def test_what_the_router_says_is_passed_on() -> None:
    """RoutesProgrammed carries the routers' own reason, and Ready follows it."""
    async with running(deployment(), service()) as cluster:
        key = Key(NAMESPACE, "new-eta")
        cluster.routes.say("Sandbox", key, Report(False, "ServiceNotRoutable", "Service route is headless"))
        await cluster.client.create(SANDBOXES, sandbox())
        told = await cluster.condition("RoutesProgrammed", "False", "ServiceNotRoutable")
        assert "headless" in message(told, "Ready")
        cluster.routes.say("Sandbox", key, Report())
        await cluster.ready()


async def test_a_sandbox_expires_after_a_warning() -> None:
    """An Event comes before the end, extending the TTL helps, and the end deletes everything."""
    clock = ManualClock()
    async with running(deployment(), service(), clock=clock) as cluster:
        await cluster.client.create(SANDBOXES, sandbox(ttl={"duration": "1h", "from": "creation"}))
        await clock.advance(2)
        ready = await cluster.client.get(SANDBOXES, "new-eta", NAMESPACE)
        assert ready["status"]["phase"] == "Ready"
        assert ready["status"]["expiresAt"]
        await clock.advance(timedelta(minutes=52).total_seconds())
        assert "Sandbox/new-eta: Expiring" in await captured_events(cluster.client, NAMESPACE)
        await cluster.patch(SANDBOXES, "new-eta", {"spec": {"ttl": {"duration": "2h"}}})
        await clock.advance(timedelta(minutes=30).total_seconds())
        await cluster.client.get(SANDBOXES, "new-eta", NAMESPACE)
        await clock.advance(timedelta(minutes=45).total_seconds())
        names = [each["metadata"]["name"] for each in (await cluster.client.list(DEPLOYMENTS, NAMESPACE)).items]
        assert names == ["route"]
        assert (await cluster.client.list(SANDBOXES, NAMESPACE)).items == []


async def test_a_taken_routing_key_is_refused_until_it_is_free() -> None:
    """Of two sandboxes with one key the older has it; the younger gets it when the older is gone."""
    async with running(deployment(), service()) as cluster:
        await cluster.client.create(SANDBOXES, sandbox("a", routingKey="mine"))
        await cluster.ready("a")
        await cluster.client.create(SANDBOXES, sandbox("b", routingKey="mine"))
        await cluster.condition("Accepted", "False", "RoutingKeyTaken", "b")
        await cluster.client.delete(SANDBOXES, "a", NAMESPACE)
        await cluster.ready("b")
