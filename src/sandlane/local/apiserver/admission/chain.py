"""All of admission in its order: mutating webhooks; checks of our own; policies; validating webhooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sandlane.kube.resource import Object
from sandlane.local.apiserver.admission.attributes import Attributes, Matcher
from sandlane.local.apiserver.admission.policies import Policies
from sandlane.local.apiserver.admission.webhooks import Webhooks
from sandlane.local.apiserver.auth.rbac import Rbac
from sandlane.local.apiserver.metadata import Randomness
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.local.apiserver.webhook_calls import Caller
from sandlane.local.apiserver.writer import Write

Check = Callable[[Write, Object | None, Object | None], None]
"""Is given a write, the new object and the old one. Raises `StatusError`."""


class AdmissionChain:
    """Admission of one server. Writes of the server itself (without a user) are not asked about."""

    def __init__(
        self,
        store: ObjectStore,
        registry: Registry,
        caller: Caller,
        rng: Randomness,
        checks: Iterable[Check],
        rbac: Rbac,
    ) -> None:
        matcher = Matcher(store, registry)
        self._webhooks = Webhooks(store, matcher, caller, rng, rbac)
        self._policies = Policies(store, registry, matcher, rbac)
        self._checks = tuple(checks)

    async def mutate(self, write: Write, operation: str, new: Object | None, old: Object | None) -> Object | None:
        """The object as mutating webhooks leave it. Raises `StatusError`."""
        if write.user is None or not self._webhooks.any_mutating():
            return new
        if write.seen is None or write.seen.show is None or new is None or old is None:
            return await self._webhooks.mutate(Attributes(write, operation, new, old))
        shown = write.seen.show(new)
        made = await self._webhooks.mutate(Attributes(write, operation, shown, write.seen.show(old)))
        if made is not None and made is not shown and write.seen.take is not None:
            write.seen.take(made, new)
        return new

    async def validate(self, write: Write, operation: str, new: Object | None, old: Object | None) -> None:
        """Raises `StatusError` when somebody refuses."""
        if write.user is None:
            return
        for check in self._checks:
            check(write, new, old)
        if not (self._policies.any() or self._webhooks.any_validating()):
            return
        if write.seen is not None and write.seen.show is not None:
            new, old = (each and write.seen.show(each) for each in (new, old))
        attributes = Attributes(write, operation, new, old)
        await self._policies.validate(attributes)
        await self._webhooks.validate(attributes)
