"""The Helm chart gives what the manifests give, and its settings reach the manager; with the real helm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

import sandlane
from sandlane.api.places import NAMESPACE
from sandlane.cli.manager import Options
from sandlane.install.objects import everything
from sandlane.runtime.options import load_options
from support.conformance.cluster import running

HELM = str(Path(sys.executable).with_name("helm"))
CHART = str(Path(__file__).resolve().parents[2] / "deploy" / "chart" / "sandlane")


def helm(home: Path, *arguments: str) -> str:
    """The output of helm, which must succeed."""
    environment = os.environ | {f"HELM_{name}_HOME": str(home) for name in ("CACHE", "CONFIG", "DATA")}
    done = subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=90, env=environment, check=False)
    assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def rendered(home: Path, *settings: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The chart's objects by kind and name."""
    options = [part for setting in settings for part in ("--set", setting)]
    text = helm(home, "template", "sandlane", CHART, "--namespace", NAMESPACE, "--include-crds", *options)
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in yaml.safe_load_all(text) if obj}


def test_it_gives_what_the_manifests_give(tmp_path: Path) -> None:
    """Without settings the objects are the same but for the namespace, and what settings could add."""
    helm(tmp_path, "lint", "--strict", CHART)
    made = rendered(tmp_path)
    for wanted in everything(version=sandlane.__version__):
        if wanted["kind"] == "Namespace":
            continue
        got = made.pop((wanted["kind"], wanted["metadata"]["name"]))
        if wanted["kind"] == "CustomResourceDefinition":
            assert got["spec"] == wanted["spec"]
        elif wanted["kind"] == "ConfigMap":
            assert yaml.safe_load(got["data"]["manager.yaml"]) == yaml.safe_load(wanted["data"]["manager.yaml"])
        elif wanted["kind"] == "Deployment":
            _same_deployment(got["spec"], wanted["spec"])
        else:
            assert got["metadata"].pop("annotations", {}) == {}
            assert got == wanted
    assert made == {}


def _same_deployment(got: Any, wanted: Any) -> None:
    pod, container = got["template"]["spec"], got["template"]["spec"]["containers"][0]
    assert pod["volumes"].pop()["secret"]["optional"]
    container["volumeMounts"].pop()
    assert container.pop("imagePullPolicy") == "IfNotPresent"
    assert len(got["template"]["metadata"].pop("annotations")["checksum/config"]) == 64
    for name in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity"):
        assert not pod.pop(name)
    assert got == wanted


def test_settings_reach_the_manager(tmp_path: Path) -> None:
    """`config` wins over what the chart sets, cert-manager's certificate is used, one replica has no budget."""
    made = rendered(
        tmp_path,
        "certManager.enabled=true",
        "replicas=1",
        "image.tag=next",
        "config.kubeApiBurst=1000000",
        "config.settings.limits.forksPerSandbox=3",
    )
    file = tmp_path / "manager.yaml"
    file.write_text(made["ConfigMap", "sandlane-manager"]["data"]["manager.yaml"])
    options = load_options(file, Options())
    assert isinstance(options, Options)
    assert (options.kube_api_burst, options.settings.limits.forks_per_sandbox) == (1_000_000, 3)
    pod = made["Deployment", "sandlane-manager"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "sandlane/manager:next"
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secret = volumes[mounts[options.webhook_cert_dir]]["secret"]["secretName"]
    certificate = made["Certificate", "sandlane-webhook"]
    assert certificate["spec"]["secretName"] == secret
    assert certificate["spec"]["issuerRef"]["name"] == made["Issuer", "sandlane-webhook"]["metadata"]["name"]
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        source = made[kind, "sandlane-webhook"]["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
        assert source == f"{NAMESPACE}/sandlane-webhook"
    assert ("PodDisruptionBudget", "sandlane-manager") not in made
    other = rendered(tmp_path, "certManager.enabled=true", "certManager.issuerRef.name=ours")
    assert other["Certificate", "sandlane-webhook"]["spec"]["issuerRef"] == {"name": "ours"}
    assert ("Issuer", "sandlane-webhook") not in other


def test_helm_installs_and_removes_it(tmp_path: Path) -> None:
    """An API server takes every object of the chart, an upgrade too; uninstalling leaves the kinds."""
    with running(tmp_path / "data", controllers=False) as cluster:
        where = ("--kubeconfig", str(cluster.kubeconfig), "--namespace", NAMESPACE)
        helm(tmp_path, "install", "sandlane", CHART, "--create-namespace", *where)
        helm(tmp_path, "upgrade", "sandlane", CHART, "--set", "replicas=3", *where)
        assert "deployed" in helm(tmp_path, "list", *where)
        helm(tmp_path, "uninstall", "sandlane", *where)
        options = ["--kubeconfig", str(cluster.kubeconfig), "get", "crd,deploy,clusterrole", "-A", "-o", "name"]
        kubectl = str(Path(HELM).with_name("kubectl"))
        left = subprocess.run(
            [kubectl, *options], capture_output=True, text=True, timeout=60, check=True
        ).stdout.split()
        assert "customresourcedefinition.apiextensions.k8s.io/sandboxes.sandlane.dev" in left
        assert not [name for name in left if "/sandlane" in name]
