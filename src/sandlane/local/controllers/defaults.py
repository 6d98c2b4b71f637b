"""What every namespace holds from the start: the ServiceAccount `default` and the authority's ConfigMap
`kube-root-ca.crt`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sandlane.kube.errors import AlreadyExists, Forbidden, NotFound
from sandlane.kube.resource import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS, Key, Object, Resource
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access, terminating
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result

ACCOUNT = "default"
AUTHORITY = "kube-root-ca.crt"


class NamespaceDefaultsController:
    """Puts back what every namespace must have."""

    def __init__(self, authority: str) -> None:
        self._authority = authority

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        (
            Controller.managed_by(manager)
            .for_(NAMESPACES, Unstructured)
            .watches(SERVICE_ACCOUNTS, to_requests=_if_named(ACCOUNT))
            .watches(CONFIG_MAPS, to_requests=_if_named(AUTHORITY))
            .named("namespace-defaults")
            .complete(self)
        )

    async def reconcile(self, request: Request) -> Result:
        """Create what one namespace lacks."""
        namespace = self._access.get(NAMESPACES, request)
        if namespace is None or "deletionTimestamp" in namespace["metadata"]:
            return Result.done()
        name = request.name
        if self._access.store(SERVICE_ACCOUNTS).get(Key(name, ACCOUNT)) is None:
            await self._create(SERVICE_ACCOUNTS, {"metadata": {"name": ACCOUNT, "namespace": name}})
        wanted = {"metadata": {"name": AUTHORITY, "namespace": name}, "data": {"ca.crt": self._authority}}
        found = self._access.get(CONFIG_MAPS, Key(name, AUTHORITY))
        if found is None:
            await self._create(CONFIG_MAPS, wanted)
        elif found.get("data") != wanted["data"]:
            await self._access.patch(CONFIG_MAPS, found, {"data": wanted["data"]})
        return Result.done()

    async def _create(self, resource: Resource, obj: Object) -> None:
        try:
            await self._access.create(resource, {"apiVersion": resource.api_version, "kind": resource.kind} | obj)
        except (AlreadyExists, NotFound):
            return
        except Forbidden as error:
            if not terminating(error):
                raise


def _if_named(name: str) -> Callable[[Unstructured], Iterable[Key]]:
    def keys(record: Unstructured) -> Iterable[Key]:
        return [Key("", record.metadata.namespace)] if record.metadata.name == name else []

    return keys
