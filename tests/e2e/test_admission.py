"""The webhooks of the local cluster, as users of the real kubectl meet them."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from support.laptop import Laptop, until

REQUESTER = "sandlane.dev/requested-by"
DEV = ("--as=dev", "--as-group=devs")


@pytest.fixture(scope="module", autouse=True)
def people(cluster: Laptop) -> None:
    """A namespace `town`, a workload `route`, and a user who may write our kinds only."""
    cluster.done("create", "namespace", "town")
    cluster.done("create", "deployment", "route", "--image=none", "--replicas=0", "-n", "town")
    verbs = "get,list,watch,create,update,patch,delete"
    kinds = "sandboxes.sandlane.dev,routegroups.sandlane.dev,localworkloads.sandlane.dev"
    cluster.done("create", "role", "ours", f"--verb={verbs}", f"--resource={kinds}", "-n", "town")
    cluster.done("create", "rolebinding", "ours", "--role=ours", "--group=devs", "--serviceaccount=town:bot", "-n=town")
    cluster.done("create", "serviceaccount", "bot", "-n", "town")


def ours(kind: str, name: str, spec: Any, **metadata: Any) -> dict[str, Any]:
    """One of our objects."""
    head = {"apiVersion": "sandlane.dev/v1alpha1", "kind": kind}
    return head | {"metadata": {"name": name, "namespace": "town"} | metadata, "spec": spec}


def sandbox(name: str, *, metadata: Any = None, customizations: Any = None, **spec: Any) -> dict[str, Any]:
    """A Sandbox with one fork."""
    fork = {"forkOf": {"kind": "Deployment", "name": "route"}, "customizations": customizations or {}}
    return ours("Sandbox", name, {"forks": [fork], **spec}, **(metadata or {}))


def test_all_errors_are_told_at_once_with_their_fields(cluster: Laptop) -> None:
    """What the schema can say and what only our rules know comes in one answer, per field."""
    cluster.done("apply", "-f", "-", stdin=sandbox("holder", routingKey="taken"))
    env = [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    bad = sandbox("bad", customizations={"replicas": -1, "env": env}, ttl={"duration": "x"}, routingKey="taken")
    bad["spec"]["forks"].append({"forkOf": {"name": "route"}, "preservedLabels": ["("]})
    said = cluster.refused("apply", "-f", "-", stdin=bad)
    assert 'The Sandbox "bad" is invalid' in said
    for field in (
        "spec.ttl.duration",
        "spec.routingKey",
        "spec.forks[0].customizations.replicas",
        "spec.forks[0].customizations.env[0]",
        "spec.forks[1].preservedLabels[0]",
    ):
        assert f"* {field}" in said
    assert "Sandbox town/holder has the key" in said


def test_wrong_types_and_unknown_fields_are_told(cluster: Laptop) -> None:
    """What is no Sandbox at all is refused by its schema; unknown fields are named."""
    said = cluster.refused("apply", "-f", "-", stdin=sandbox("bad", suspended="no", ttl=3))
    assert "spec.suspended" in said
    assert "spec.ttl" in said
    assert 'unknown field "spec.nothing"' in cluster.refused("apply", "-f", "-", stdin=sandbox("bad", nothing=1))


def test_suspicious_specs_are_taken_with_warnings(cluster: Laptop) -> None:
    """kubectl shows what is legal but hardly meant; a dry run tells the same and keeps nothing."""
    odd = sandbox("odd", customizations={"replicas": 0})
    odd["spec"]["forks"].append({"forkOf": {"name": "nobody"}})
    run = cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=odd)
    assert run.returncode == 0, run.stderr
    assert "Warning: spec.forks[0].customizations.replicas: 0" in run.stderr
    assert "Deployment town/nobody does not exist" in run.stderr
    assert "no Service selects route" in run.stderr
    assert "NotFound" in cluster.refused("get", "sbx", "odd", "-n", "town")


def test_nobody_forks_what_they_could_not_run(cluster: Laptop) -> None:
    """Without the right to create Deployments, or to read a Secret that the fork adds, a sandbox is refused in words."""
    env = [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "vault", "key": "k"}}}]
    wanted = sandbox("mine", customizations={"env": env})
    said = cluster.refused("apply", "-f", "-", *DEV, stdin=wanted)
    assert "spec.forks[0].forkOf: user 'dev' may not create deployments.apps in namespace 'town'" in said
    assert "spec.forks[0].customizations: user 'dev' may not get secrets 'vault'" in said
    bot = "system:serviceaccount:town:bot"
    assert f"user '{bot}' may not create" in cluster.refused("apply", "-f", "-", f"--as={bot}", stdin=wanted)

    cluster.done("create", "role", "run", "--verb=create", "--resource=deployments.apps", "-n", "town")
    cluster.done("create", "rolebinding", "run", "--role=run", "--group=devs", "-n", "town")
    said = cluster.refused("apply", "-f", "-", *DEV, stdin=wanted)
    assert "create deployments" not in said
    assert "may not get secrets 'vault'" in said
    read = ("--verb=get", "--resource=secrets", "--resource-name=vault", "-n", "town")
    cluster.done("create", "role", "read", *read)
    cluster.done("create", "rolebinding", "read", "--role=read", "--user=dev", "-n", "town")
    cluster.done("apply", "-f", "-", *DEV, stdin=wanted)
    env.append({"name": "U", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}})
    assert "may not get secrets 'other'" in cluster.refused("apply", "-f", "-", *DEV, stdin=wanted)


def test_the_requester_cannot_be_forged(cluster: Laptop) -> None:
    """Whatever is written there, the annotation names who last changed what runs."""

    def requester() -> str:
        return str(cluster.get("sbx", "whose", "-n", "town")["metadata"]["annotations"].get(REQUESTER))

    forged = sandbox("whose", metadata={"annotations": {REQUESTER: "root"}})
    cluster.done("create", "-f", "-", stdin=forged)
    assert requester() == "system:admin"
    cluster.done("annotate", "sbx", "whose", "-n", "town", "--overwrite", f"{REQUESTER}=root", *DEV)
    assert requester() == "system:admin"
    cluster.done("annotate", "sbx", "whose", "-n", "town", f"{REQUESTER}-", *DEV)
    assert requester() == "system:admin"
    cluster.done("patch", "sbx", "whose", "-n", "town", "--type=merge", "-p", '{"spec":{"description":"x"}}', *DEV)
    assert requester() == "system:admin"
    change = '[{"op": "add", "path": "/spec/forks/0/customizations/env", "value": [{"name": "A", "value": "1"}]}]'
    run = cluster.kubectl("patch", "sbx", "whose", "-n", "town", "--type=json", "-p", change, "--as=eve")
    assert "forbidden" in run.stderr.lower()
    cluster.done(
        "patch", "sbx", "whose", "-n", "town", "--type=json", "-p", change, "--as=boss", "--as-group=system:masters"
    )
    assert requester() == "boss"


def test_what_is_fixed_cannot_be_changed(cluster: Laptop) -> None:
    """routingKey, and the sandbox and baseline of a LocalWorkload, each named with its field."""
    cluster.done("apply", "-f", "-", stdin=sandbox("fixed", routingKey="one"))
    said = cluster.refused("apply", "-f", "-", stdin=sandbox("fixed", routingKey="two"))
    assert "spec.routingKey" in said
    spec = {"sandbox": "none", "from": {"name": "route"}, "mappings": [{"port": 1, "to": "localhost:1"}]}
    run = cluster.kubectl("apply", "-f", "-", stdin=ours("LocalWorkload", "fixed", spec))
    assert "Warning: spec.sandbox: Sandbox none does not exist yet" in run.stderr
    changed = spec | {"sandbox": "other", "from": {"name": "another"}}
    said = cluster.refused("apply", "-f", "-", stdin=ours("LocalWorkload", "fixed", changed))
    assert "spec.sandbox" in said
    assert "spec.from" in said


def test_without_a_manager_deleting_still_works(cluster: Laptop) -> None:
    """While nobody answers, new specs are refused, but labels, finalizers and deletion go through."""
    cluster.done("apply", "-f", "-", stdin=sandbox("stuck"))
    manager = cluster.pid("manager")
    os.kill(manager, signal.SIGSTOP)
    try:
        patience = "--request-timeout=20s"
        said = cluster.refused("apply", "-f", "-", patience, stdin=sandbox("new"))
        assert "failed calling webhook" in said
        cluster.done("label", "sbx", "stuck", "-n", "town", "a=b", patience)
        cluster.done("delete", "sbx", "stuck", "-n", "town", "--wait=false", patience)
        cluster.done(
            "patch", "sbx", "stuck", "-n", "town", "--type=merge", "-p", '{"metadata":{"finalizers":null}}', patience
        )
        assert "NotFound" in cluster.refused("get", "sbx", "stuck", "-n", "town", patience)
    finally:
        os.kill(manager, signal.SIGCONT)
    until(lambda: cluster.kubectl("apply", "-f", "-", stdin=sandbox("new")).returncode == 0, "it answers again")
