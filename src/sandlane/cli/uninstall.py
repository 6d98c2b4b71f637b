"""`sandlane uninstall`: undoes what Sandlane did to a cluster, then the installation itself, and says what it left.

A running manager does most of it: deleted sandboxes take their routes out first, so that no request fails. Then it loses
the right to write, and what is still there (because no manager runs, or because a Service is always routed) is undone
here: finalizers, turned Services, routers. Each step can be repeated: what is gone already is not mentioned.
"""

from __future__ import annotations

import contextlib
import random  # noqa: TID251 - a composition root
from collections.abc import Awaitable, Callable
from pathlib import Path

from sandlane.api.crd import definitions
from sandlane.api.labels import MANAGED_SELECTOR
from sandlane.api.places import MANAGER_NAME, NAMESPACE
from sandlane.api.types import FINALIZER
from sandlane.install.objects import everything
from sandlane.install.rights import SECRETS as OUR_SECRETS
from sandlane.install.rights import rights
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock, SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import Conflict, NotFound
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    LEASES,
    LOCAL_WORKLOADS,
    MUTATING_WEBHOOK_CONFIGURATIONS,
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    ROUTE_GROUPS,
    SANDBOXES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
    Object,
    Resource,
)
from sandlane.routing.restore import restore

PATIENCE = 20.0
"""Seconds for a running manager to take its finalizers off."""
GRACE = 60.0
"""Seconds for it to end, and for its namespace to go."""
_PAUSE = 0.2
_OURS = (LOCAL_WORKLOADS, SANDBOXES, ROUTE_GROUPS)
_MADE = (DEPLOYMENTS, SERVICES, POD_DISRUPTION_BUDGETS, CONFIG_MAPS, SECRETS)
_LABEL = "sandlane.dev/"
_RBAC = ("rbac.authorization.k8s.io", "v1")
_INSTALLED = {
    resource.kind: resource
    for resource in (
        SERVICE_ACCOUNTS, CONFIG_MAPS, SERVICES, DEPLOYMENTS, POD_DISRUPTION_BUDGETS,
        MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS,
        Resource(*_RBAC, "clusterroles", "ClusterRole", namespaced=False),
        Resource(*_RBAC, "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
        Resource(*_RBAC, "roles", "Role"),
        Resource(*_RBAC, "rolebindings", "RoleBinding"),
    )
}  # fmt: skip
_STANDARD = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
"""What every namespace has."""

Say = Callable[[str], None]


async def uninstall(
    kubeconfig: Path | None,
    say: Say,
    *,
    namespace: str = NAMESPACE,
    keep_crds: bool = False,
    patience: float = PATIENCE,
) -> None:
    """Undo everything. Raises `ConfigError`, `KubeError` and `NotRestored`."""
    clock = SystemClock()
    client = Client(HttpTransport(load_config(kubeconfig)), clock=clock, rng=random.Random())
    done = 0

    def told(text: str) -> None:
        nonlocal done
        done += 1
        say(text)

    try:
        await Uninstaller(client, clock, told, namespace).run(keep_crds, patience)
        if not done:
            say("nothing of Sandlane is in this cluster")
        elif keep_crds:
            say(
                "left alone: the kinds (--keep-crds), and annotations that their owners wrote (sandlane.dev/routing ...)"
            )
        else:
            say("left alone: annotations that their owners wrote (sandlane.dev/routing and the like)")
    finally:
        await client.close()


class Uninstaller:
    """The steps, in the order in which no request fails."""

    def __init__(self, client: Client, clock: Clock, say: Say, namespace: str) -> None:
        self._client = client
        self._clock = clock
        self._say = say
        self._namespace = namespace

    async def run(self, keep_crds: bool, patience: float) -> None:
        """All of them."""
        await self._delete_ours(patience)
        await self._end_manager()
        async for done in restore(self._client):
            self._say(done)
        await self._delete_made()
        if not keep_crds:
            for definition in definitions():
                await self._delete(CUSTOM_RESOURCE_DEFINITIONS, definition["metadata"]["name"])
        await self._delete_installation()

    async def _delete_ours(self, patience: float) -> None:
        for resource in _OURS:
            for obj in await self._all(resource):
                if not obj["metadata"].get("deletionTimestamp"):
                    await self._delete(resource, obj["metadata"]["name"], obj["metadata"]["namespace"])
        await self._wait(lambda: self._any(_OURS), patience)
        for resource in _OURS:
            for obj in await self._all(resource):
                metadata = obj["metadata"]
                left = [name for name in metadata.get("finalizers") or () if name != FINALIZER]
                body = {"metadata": {"finalizers": left, "resourceVersion": metadata["resourceVersion"]}}
                try:
                    await self._client.patch(resource, metadata["name"], body, namespace=metadata["namespace"])
                except (NotFound, Conflict):  # a manager was faster
                    continue
                where = f"{metadata['namespace']}/{metadata['name']}"
                self._say(f"{resource.kind} {where}: no manager answered, finalizer removed")

    async def _end_manager(self) -> None:
        """Nobody is asked by the API server any more, and nobody turns Services again while we turn them back."""
        for obj in everything(self._namespace, version=""):
            if obj["kind"].endswith("WebhookConfiguration"):
                await self._delete_object(obj)
        await self._delete_object(next(obj for obj in rights(self._namespace) if obj["kind"] == "ClusterRoleBinding"))
        if await self._delete(DEPLOYMENTS, MANAGER_NAME, self._namespace, propagation="Foreground"):
            selector = "app.kubernetes.io/name=sandlane,app.kubernetes.io/component=manager"
            await self._wait(lambda: self._any((PODS,), selector))

    async def _delete_made(self) -> None:
        """What nobody owns any more, or what garbage collection has not taken yet."""
        for resource in _MADE:
            for obj in await self._all(resource, MANAGED_SELECTOR):
                metadata = obj["metadata"]
                if any(name.startswith(_LABEL) for name in metadata["labels"]):
                    await self._delete(resource, metadata["name"], metadata["namespace"])

    async def _delete_installation(self) -> None:
        """By name, not by namespace: what others keep there is theirs."""
        for name in OUR_SECRETS:
            await self._delete(SECRETS, name, self._namespace)
        await self._delete(LEASES, MANAGER_NAME, self._namespace)
        installed = everything(self._namespace, version="")
        for obj in installed:
            if obj["kind"] in _INSTALLED:
                await self._delete_object(obj)
        strangers = [
            f"{resource.kind} {obj['metadata']['name']}"
            for resource in (DEPLOYMENTS, PODS, SERVICES, CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS)
            for obj in await self._all(resource, namespace=self._namespace)
            if not obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("ownerReferences")
            if (resource.kind, obj["metadata"]["name"]) not in _STANDARD
        ]
        if strangers:
            self._say(f"Namespace {self._namespace} left alone, others keep there: {', '.join(strangers)}")
        else:
            await self._delete_namespace()

    async def _delete_namespace(self) -> None:
        async def there() -> bool:
            return any(obj["metadata"]["name"] == self._namespace for obj in await self._all(NAMESPACES))

        with contextlib.suppress(Conflict):  # it is being deleted already
            await self._delete(NAMESPACES, self._namespace)
        await self._wait(there)

    async def _delete_object(self, obj: Object) -> None:
        resource = _INSTALLED[obj["kind"]]
        await self._delete(resource, obj["metadata"]["name"], self._namespace if resource.namespaced else None)

    async def _delete(
        self, resource: Resource, name: str, namespace: str | None = None, *, propagation: str = "Background"
    ) -> bool:
        """Delete and say so; False if it is not there."""
        try:
            await self._client.delete(resource, name, namespace, propagation=propagation)
        except NotFound:
            return False
        self._say(f"{resource.kind} {f'{namespace}/' if namespace else ''}{name} deleted")
        return True

    async def _all(self, resource: Resource, label_selector: str = "", namespace: str | None = None) -> list[Object]:
        try:
            return (await self._client.list(resource, namespace, label_selector=label_selector)).items
        except NotFound:  # the kind is not served (any more)
            return []

    async def _any(self, resources: tuple[Resource, ...], label_selector: str = "") -> bool:
        return any([await self._all(resource, label_selector) for resource in resources])

    async def _wait(self, anything: Callable[[], Awaitable[bool]], patience: float = GRACE) -> None:
        """Wait for as long as there is anything, with patience."""
        end = self._clock.monotonic() + patience
        while await anything() and self._clock.monotonic() < end:
            await self._clock.sleep(_PAUSE)
