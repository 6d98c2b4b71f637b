"""What a container sees: its own mounts, its hosts file and its host name, and that nothing of it reaches the host."""

from __future__ import annotations

import os
from typing import Any

from sandlane.kube.resource import SERVICES

from .conftest import RunningNode, config_map


def service(name: str, namespace: str = "rides") -> dict[str, Any]:
    """A Service with one port."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}


async def test_hosts_follow_services(viewing: RunningNode) -> None:
    """All names of a Service are in /etc/hosts, short ones for the own namespace only; changes come while it runs."""
    await viewing.cluster.add(service("route"))
    await viewing.cluster.add(service("far", "other"))
    script = "while ! grep -q late /etc/hosts; do sleep 0.05; done; hostname; cat /etc/hosts; exec sleep 100"
    await viewing.run(script)
    await viewing.phase("Running")
    late = await viewing.cluster.add(service("late"))
    log = await viewing.logged("late")
    found = {line.split()[0]: line.split()[1:] for line in log.splitlines() if line[:1].isdigit()}
    address = (await viewing.client.get(SERVICES, "route", "rides"))["spec"]["clusterIP"]
    far = (await viewing.client.get(SERVICES, "far", "other"))["spec"]["clusterIP"]
    assert found[address] == ["route", "route.rides", "route.rides.svc", "route.rides.svc.cluster.local"]
    assert found[far] == ["far.other", "far.other.svc", "far.other.svc.cluster.local"]
    assert late["spec"]["clusterIP"] in found
    assert log.splitlines()[0] == "web"
    assert found[(await viewing.pod())["status"]["podIP"]] == ["web"]


async def test_config_map_is_mounted_where_nothing_was(viewing: RunningNode) -> None:
    """A volume appears at a path that the host does not have, read-only, and the host does not get that path."""
    await viewing.cluster.add(config_map("settings", a="1", b="2"))
    at = "/sandlane-test-volume/deep"
    before = {folder: os.listdir(folder) for folder in ("/", "/etc", "/run", "/usr/share")}
    volumes = [{"name": "v", "configMap": {"name": "settings"}}]
    mounts = [{"name": "v", "mountPath": path} for path in (at, "/usr/share/sandlane-test/x", "/run/sandlane-test/y")]
    await viewing.run(
        f"cat {at}/a {at}/b; touch {at}/x 2>/dev/null || echo ro; ls /etc/passwd; cat /run/sandlane-test/y/a",
        spec={"volumes": volumes},
        volumeMounts=mounts,
    )
    await viewing.phase("Succeeded")
    assert viewing.log() == "12ro\n/etc/passwd\n1"
    assert {folder: os.listdir(folder) for folder in before} == before


async def test_account(viewing: RunningNode) -> None:
    """Token, authority and namespace are where in-cluster clients look; the token is the account's."""
    at = "/var/run/secrets/kubernetes.io/serviceaccount"
    await viewing.run(f"cat {at}/namespace; echo; cat {at}/ca.crt; echo; cat {at}/token; echo; echo end")
    namespace, authority, token, _ = (await viewing.logged("end")).splitlines()
    assert (namespace, authority) == ("rides", "the authority")
    assert token.count(".") == 2
