"""Defaults of Pods that use the host's network."""

from sandlane.local.apiserver.kinds.pods import default_pod


def test_a_port_without_number_gets_no_host_port() -> None:
    """A host port is the container's, and there is none to take over where the container's is missing."""
    pod = {"spec": {"hostNetwork": True, "containers": [{"name": "a", "ports": [{"containerPort": 80}, {}]}]}}
    default_pod(pod)
    assert [port.get("hostPort") for port in pod["spec"]["containers"][0]["ports"]] == [80, None]
