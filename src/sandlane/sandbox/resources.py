"""The objects of a sandbox as they should be: a fork's Deployment, and the LocalWorkloads. Pure makers."""

from __future__ import annotations

from typing import Any

import msgspec

from sandlane.api.limits import Limits
from sandlane.api.types import Fork, Local, OnDisconnect
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import LOCAL_WORKLOADS, SANDBOXES, Object
from sandlane.runtime.owners import controller_reference
from sandlane.sandbox import copying, customize, names
from sandlane.world.records import Deployment

ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
RECREATE = {"type": "Recreate"}
_COPIED = ("minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit")


class Making(msgspec.Struct, frozen=True):
    """What all makers of one sandbox's objects share."""

    sandbox: ObjectMeta
    routing_key: str
    suspended: bool
    limits: Limits

    @property
    def owner(self) -> Object:
        """The reference that makes the sandbox the controller of what it owns."""
        return controller_reference(SANDBOXES, self.sandbox)


def make_fork(
    making: Making,
    baseline: Deployment,
    fork: Fork,
    *,
    path: str,
    resolve: customize.Resolve,
    recreate: bool,
) -> Object:
    """The fork's Deployment. `path` is the fork's place in the spec; `recreate`: no two Pods at once.

    Raises `PlanError` when a customization does not fit the baseline.
    """
    name = names.fork_name(making.sandbox, baseline.metadata.name)
    custom = fork.customizations
    copy = _copy(baseline, name, making, recreate)
    where = f"{path}.customizations"
    spec = copy["spec"]["template"]["spec"]
    customize.check_containers(spec, custom, where)
    customize.set_images(spec, custom.images, where)
    customize.set_env(spec, custom.env, where, resolve)
    kept = copying.kept_labels(baseline.pod_labels, fork.preserved_labels)
    copy["spec"]["template"]["metadata"]["labels"] = kept
    if custom.patch is not None:
        copy = customize.apply_patch(copy, custom.patch, where)
    return _identified(copy, name, making, baseline, fork)


def _copy(baseline: Deployment, name: str, making: Making, recreate: bool) -> Object:
    """The baseline as a Deployment of ours, before customizations."""
    whole = baseline.object()["spec"]
    template: Object = whole["template"]
    metadata = template.get("metadata") or {}
    kept: Object = {"annotations": copying.kept_annotations(metadata.get("annotations") or {})}
    spec = template.get("spec") or {}
    copying.repoint(spec, baseline.pod_labels, names.pod_selector(name), baseline.metadata.namespace)
    copying.drop_host_ports(spec)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": making.sandbox.namespace, "labels": {}, "annotations": {}},
        "spec": {field: whole[field] for field in _COPIED if field in whole}
        | {
            "strategy": RECREATE if recreate else ROLLING,
            "template": {field: value for field, value in template.items() if field != "metadata"}
            | {"metadata": kept, "spec": spec},
        },
    }


def _identified(copy: Object, name: str, making: Making, baseline: Deployment, fork: Fork) -> Object:
    """The patched copy with everything that makes it this fork put (back) in place."""
    patched_metadata = copy.get("metadata") or {}
    labels = names.object_labels(making.sandbox, baseline.metadata.name)
    metadata: Object = {
        "name": name,
        "namespace": making.sandbox.namespace,
        "labels": (patched_metadata.get("labels") or {}) | labels,
        "ownerReferences": [making.owner],
    }
    if annotations := patched_metadata.get("annotations"):
        metadata["annotations"] = annotations
    template: Object = copy["spec"]["template"]
    pod_metadata: Object = template.get("metadata") or {}
    selector = names.pod_selector(name)
    pod: Object = {"labels": (pod_metadata.get("labels") or {}) | labels | selector}
    if annotations := pod_metadata.get("annotations"):
        pod["annotations"] = annotations
    spec = template["spec"]
    copying.make_unique(spec)
    customize.put_first(spec, injected(making, baseline))
    customize.fill_resources(spec, fork.resources or {}, making.limits.container_defaults)
    dropped = ("replicas", "selector", "template", "paused")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {field: value for field, value in copy["spec"].items() if field not in dropped}
        | {
            "replicas": 0 if making.suspended else fork.customizations.replicas,
            "selector": {"matchLabels": selector},
            "template": {"metadata": pod, "spec": spec},
        },
    }


def injected(making: Making, baseline: Deployment) -> dict[str, str]:
    """The variables that every container of a fork gets."""
    key = baseline.metadata.key
    return {
        "SANDLANE_SANDBOX": making.sandbox.name,
        "SANDLANE_ROUTING_KEY": making.routing_key,
        "SANDLANE_BASELINE": f"{key.namespace}/Deployment/{key.name}",
    }


def make_local_workload(making: Making, local: Local) -> Object:
    """The LocalWorkload of a `local` entry."""
    spec: dict[str, Any] = {
        "sandbox": making.sandbox.name,
        "from": {"apiGroup": local.from_.api_group, "kind": local.from_.kind, "name": local.from_.name},
        "mappings": [{"port": mapping.port, "to": mapping.to} for mapping in local.mappings],
        "onDisconnect": OnDisconnect(local.on_disconnect).value,
        "holdSeconds": local.hold_seconds,
    }
    return {
        "apiVersion": LOCAL_WORKLOADS.api_version,
        "kind": LOCAL_WORKLOADS.kind,
        "metadata": {
            "name": local.name,
            "namespace": making.sandbox.namespace,
            "labels": names.object_labels(making.sandbox, local.from_.name),
            "ownerReferences": [making.owner],
        },
        "spec": spec,
    }
