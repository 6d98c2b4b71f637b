"""What is installed: complete, consistent with the program, and accepted by an API server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

import sandlane
from sandlane.cli.manager import Options
from sandlane.install.objects import everything, manager_options
from sandlane.runtime.options import load_options

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
    options = load_options(file, Options)
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
    """Nobody gets more than is named, and the manager writes no Secret but its own and no role at all."""
    for kind in ("ClusterRole", "Role"):
        for role in of(kind):
            for rule in role["rules"]:
                assert "*" not in rule["verbs"] + rule["apiGroups"] + rule["resources"]
                assert "rbac.authorization.k8s.io" not in rule["apiGroups"]
                if kind == "ClusterRole" and "secrets" in rule["resources"]:
                    raise AssertionError(f"{role['metadata']['name']} reads Secrets everywhere")


def test_kustomize_takes_the_folder() -> None:
    """`kubectl kustomize deploy` gives the same objects; an image can be replaced as usual."""
    done = subprocess.run(
        [str(BIN / "kubectl"), "kustomize", str(DEPLOY)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    made = {(obj["kind"], obj["metadata"]["name"]) for obj in yaml.safe_load_all(done.stdout)}
    assert made == {(obj["kind"], obj["metadata"]["name"]) for obj in everything(version=sandlane.__version__)}
