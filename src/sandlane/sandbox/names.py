"""Every name and label that is derived for a sandbox: readable prefix, 8-character hash, at most 63 characters."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from sandlane.api.labels import FORK, FORK_OF, MANAGED_BY, MANAGER, SANDBOX
from sandlane.api.limits import MAX_NAME
from sandlane.kube.metadata import ObjectMeta

HASH = 8


@lru_cache(maxsize=10_000)
def derived(prefix: str, *identity: str) -> str:
    """A DNS label (RFC 1035: a letter first) from a readable prefix and a hash of what makes it unique."""
    digest = hashlib.sha256("/".join(identity).encode()).hexdigest()[:HASH]
    readable = re.sub(r"[^a-z0-9]+", "-", prefix.lower()).strip("-")
    if not readable[:1].isalpha():
        readable = f"s-{readable}".rstrip("-")
    return f"{readable[: MAX_NAME - HASH - 1].rstrip('-')}-{digest}"


def fork_name(sandbox: ObjectMeta, baseline: str) -> str:
    """The Deployment that forks the Deployment `baseline`."""
    return derived(f"{baseline}-{sandbox.name}", sandbox.uid, "Deployment", baseline)


def service_name(sandbox: ObjectMeta, service: str, baseline: str) -> str:
    """The Service that stands in for `service` before the fork of `baseline`; a Service may select two baselines."""
    return derived(f"{service}-{sandbox.name}", sandbox.uid, "Service", service, baseline)


def label_value(name: str) -> str:
    """A name as a label's value; long ones are shortened with a hash."""
    return name if len(name) <= MAX_NAME else derived(name, name)


def object_labels(sandbox: ObjectMeta, baseline: str) -> dict[str, str]:
    """Labels of everything that is made for a sandbox's fork (or laptop) of `baseline`."""
    return {MANAGED_BY: MANAGER, SANDBOX: label_value(sandbox.name), FORK_OF: label_value(baseline)}


def pod_selector(fork: str) -> dict[str, str]:
    """What selects the Pods of the fork with this name, and nothing else."""
    return {FORK: fork}
