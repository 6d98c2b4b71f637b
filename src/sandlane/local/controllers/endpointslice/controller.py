"""The EndpointSlice controller: woken by Services, Pods (of the Services that select them) and its own slices."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sandlane.kube.resource import ENDPOINT_SLICES, PODS, SERVICES, Key
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access
from sandlane.local.controllers.endpointslice.plan import SERVICE_NAME, is_ours, make_plan, selects_pods
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result


class _Selector(msgspec.Struct, frozen=True):
    selector: dict[str, str] | None = None


class _Selecting(msgspec.Struct, frozen=True):
    spec: _Selector = _Selector()


_selecting = msgspec.json.Decoder(_Selecting)


class EndpointSliceController:
    """Keeps the EndpointSlices of each Service that selects Pods."""

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        (
            Controller.managed_by(manager)
            .for_(SERVICES, Unstructured)
            .watches(PODS, to_requests=self._services_of)
            .watches(ENDPOINT_SLICES, to_requests=_service_of)
            .named("endpointslice")
            .complete(self)
        )

    def _services_of(self, pod: Unstructured) -> Iterable[Key]:
        for record in self._access.store(SERVICES).list(pod.metadata.namespace):
            selector = _selecting.decode(record.raw).spec.selector
            if selector and selector.items() <= pod.metadata.labels.items():
                yield record.metadata.key

    async def reconcile(self, request: Request) -> Result:
        """Bring the slices of one Service to what its Pods are."""
        service = self._access.get(SERVICES, request)
        if service is None or "deletionTimestamp" in service["metadata"]:
            return Result.done()  # its slices go with it, by their owner reference
        slices = self._access.all(ENDPOINT_SLICES, request.namespace)
        if not selects_pods(service):
            for slice_ in slices:
                if is_ours(slice_) and slice_["metadata"]["labels"].get(SERVICE_NAME) == request.name:
                    await self._access.delete(ENDPOINT_SLICES, slice_)
            return Result.done()
        plan = make_plan(service, self._access.all(PODS, request.namespace), slices)
        for slice_ in plan.create:
            await self._access.create(ENDPOINT_SLICES, slice_)
        for slice_ in plan.replace:
            await self._access.replace(ENDPOINT_SLICES, slice_)
        for slice_ in plan.delete:
            await self._access.delete(ENDPOINT_SLICES, slice_)
        return Result.done()


def _service_of(slice_: Unstructured) -> Iterable[Key]:
    if name := slice_.metadata.labels.get(SERVICE_NAME):
        yield Key(slice_.metadata.namespace, name)
