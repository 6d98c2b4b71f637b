"""What a copy of a workload must not take along, and what must point at the copy instead. Pure.

Labels go but those that are kept on purpose, annotations by which other tools would act on the copy go, rules about
one's own Pods (affinity, spread) are about the copy's Pods from now on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sandlane.kube.resource import Object
from sandlane.kube.selectors import SelectorError, matches, selector_of

MESH_LABELS = frozenset(
    {
        "sidecar.istio.io/inject",
        "istio.io/rev",
        "istio.io/dataplane-mode",
        "kuma.io/mesh",
        "kuma.io/sidecar-injection",
        "linkerd.io/inject",
    }
)
"""Labels by which a mesh takes Pods in; no Service selects by them."""
FOREIGN_ANNOTATIONS = re.compile(
    r"(?:kubectl\.kubernetes\.io/last-applied-configuration$"
    r"|deployment\.kubernetes\.io/|meta\.helm\.sh/|helm\.sh/"
    r"|(?:[-a-z0-9]+\.)*(?:argoproj\.io|fluxcd\.io|cattle\.io|stakater\.com|k14s\.io|carvel\.dev)/"
    r"|config\.(?:kubernetes|k8s)\.io/|configmanagement\.gke\.io/|configsync\.gke\.io/"
    r"|keel\.sh/|werf\.io/|skaffold\.dev/|flagger\.app/)"
)
"""Annotations by which GitOps tools, updaters and reloaders would take the copy for theirs."""


def kept_labels(labels: Mapping[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    """The labels of the baseline's Pods that the fork's Pods keep."""
    compiled = [re.compile(pattern, re.ASCII) for pattern in patterns]
    return {
        key: value
        for key, value in labels.items()
        if key in MESH_LABELS or any(pattern.search(key) for pattern in compiled)
    }


def kept_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """The annotations of the baseline's Pods that the fork's Pods keep."""
    return {key: value for key, value in annotations.items() if not FOREIGN_ANNOTATIONS.match(key)}


def repoint(spec: Object, old_labels: Mapping[str, str], selector: Mapping[str, str], namespace: str) -> None:
    """Let affinity and spread rules of a Pod spec that are about its own Pods select the fork's Pods (in place)."""
    for term in _affinity_terms(spec.get("affinity") or {}):
        if _is_about(term, namespace) and _selects(term.get("labelSelector"), old_labels):
            term["labelSelector"] = {"matchLabels": dict(selector)}
    for constraint in spec.get("topologySpreadConstraints") or ():
        if _selects(constraint.get("labelSelector"), old_labels):
            constraint["labelSelector"] = {"matchLabels": dict(selector)}


def _is_about(term: Object, namespace: str) -> bool:
    """Whether an affinity term is about a namespace's Pods. Of its labels only the name is known here."""
    names, selector = term.get("namespaces") or (), term.get("namespaceSelector")
    if selector is None:
        return not names or namespace in names
    return selector == {} or namespace in names or _selects(selector, {"kubernetes.io/metadata.name": namespace})


def _affinity_terms(affinity: Object) -> Iterator[Object]:
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        yield from rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for weighted in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            if weighted.get("podAffinityTerm"):
                yield weighted["podAffinityTerm"]


def _selects(selector: Any, labels: Mapping[str, str]) -> bool:
    try:
        parsed = selector_of(selector)
    except (SelectorError, KeyError):
        return False
    return bool(parsed) and matches(parsed or (), labels)


def drop_host_ports(spec: Object) -> None:
    """Host ports are the baseline's: a second Pod could not have them (in place). The host's network is kept."""
    if spec.get("hostNetwork"):
        return
    for container in containers(spec):
        for port in container.get("ports") or ():
            port.pop("hostPort", None)
            port.pop("hostIP", None)


def make_unique(spec: Object) -> None:
    """Lists that server-side apply tells apart by keys may have no doubles, plain Kubernetes takes them (in place).

    Of variables of one name the last one counts for the kubelet, so that one stays.
    """
    for container in containers(spec):
        if env := container.get("env"):
            container["env"] = list({each.get("name"): each for each in env}.values())
        if ports := container.get("ports"):
            by_number = {(each.get("containerPort"), each.get("protocol", "TCP")): each for each in reversed(ports)}
            container["ports"] = list(reversed(by_number.values()))
    if secrets := spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = list({each.get("name"): each for each in secrets}.values())
    if aliases := spec.get("hostAliases"):
        names: dict[str, list[str]] = {}
        for alias in aliases:
            names.setdefault(alias["ip"], []).extend(alias.get("hostnames") or ())
        spec["hostAliases"] = [{"ip": ip, "hostnames": hostnames} for ip, hostnames in names.items()]


def containers(spec: Object, *, init: bool = True) -> list[Object]:
    """The containers of a Pod spec, the init containers first."""
    found: list[Object] = list(spec.get("initContainers") or ()) if init else []
    return found + list(spec.get("containers") or ())
