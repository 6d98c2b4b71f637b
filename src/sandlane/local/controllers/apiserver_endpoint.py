"""The endpoint of the Service `kubernetes`: the API server itself, so that Pods reach it as they would in a cluster."""

from __future__ import annotations

from sandlane.kube.resource import ENDPOINT_SLICES, SERVICES, Key
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result

SERVICE = Key("default", "kubernetes")


class ApiServerEndpointController:
    """Keeps the EndpointSlice of the Service `kubernetes`."""

    def __init__(self, host: str, port: int) -> None:
        self._content = {
            "addressType": "IPv4",
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "protocol": "TCP", "port": port}],
        }

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        (
            Controller.managed_by(manager)
            .for_(SERVICES, Unstructured, when=lambda change: change.key == SERVICE)
            .watches(ENDPOINT_SLICES, to_requests=lambda record: [SERVICE] if record.metadata.key == SERVICE else [])
            .named("apiserver-endpoint")
            .complete(self)
        )

    async def reconcile(self, request: Request) -> Result:
        """Create the slice, or put it right."""
        if self._access.store(SERVICES).get(SERVICE) is None:
            return Result.done()
        found = self._access.get(ENDPOINT_SLICES, SERVICE)
        if found is None:
            metadata = {
                "name": SERVICE.name,
                "namespace": SERVICE.namespace,
                "labels": {"kubernetes.io/service-name": SERVICE.name},
            }
            slice_ = {"apiVersion": ENDPOINT_SLICES.api_version, "kind": ENDPOINT_SLICES.kind, "metadata": metadata}
            await self._access.create(ENDPOINT_SLICES, {**slice_, **self._content})
        elif any(found.get(key) != value for key, value in self._content.items()):
            await self._access.replace(ENDPOINT_SLICES, {**found, **self._content})
        return Result.done()
