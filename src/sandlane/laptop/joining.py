"""Finding or making the LocalWorkloads that a `sandlane connect` means, and removing what it has made."""

from __future__ import annotations

from collections.abc import Sequence

from sandlane.api.labels import UNTIL_DISCONNECT
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import AlreadyExists, NotFound
from sandlane.kube.resource import LOCAL_WORKLOADS, SANDBOXES, Key, Object, Resource
from sandlane.laptop.checks import baseline_problems, forbidden, rights
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.inbound import LocalTarget
from sandlane.laptop.plan import KINDS, Joined, chosen, joined, new_local_workload

PATIENCE = 30.0


class Joining:
    """What is to be held, and what was made for that (`made`, in the order of making). With `keep` it is to stay."""

    def __init__(self, client: Client, clock: Clock, *, keep: bool = False) -> None:
        self.made: list[tuple[Resource, Key]] = []
        self._left: list[tuple[Resource, Key]] = []  # what another client made, and did not remove
        self._keep = keep
        self._client = client
        self._clock = clock

    async def sandbox(
        self, namespace: str, sandbox: str, workload: str, targets: Sequence[LocalTarget], on_disconnect: str
    ) -> list[Joined]:
        """The LocalWorkloads of a sandbox that are there, or a new one. Raises `ConnectError` and `KubeError`."""
        await self._sandbox_is_there(namespace, sandbox)
        known = chosen((await self._client.list(LOCAL_WORKLOADS, namespace)).items, sandbox, workload)
        if targets and len(known) > 1:
            names = ", ".join(obj["spec"]["from"]["name"] for obj in known)
            raise ConnectError(
                f"sandbox {sandbox} has several local workloads ({names}): say whose ports with --workload"
            )
        if known:
            for obj in known:
                self._is_there(LOCAL_WORKLOADS, obj)
            held = [joined(obj, targets) for obj in known]
            await self._allowed(namespace, [each.name for each in held], make=False)
            return held
        obj = new_local_workload(namespace, sandbox, workload, targets, on_disconnect)
        await self._allowed(namespace, [obj["metadata"]["name"]], make=True)
        await self._fits(obj)
        return [joined(await self._create(obj))]

    async def documents(self, documents: Sequence[Object]) -> list[Joined]:
        """The LocalWorkloads of a file: its own, and those of its Sandboxes. Raises `ConnectError` and `KubeError`."""
        held = []
        for obj in documents:
            namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
            if obj["kind"] == "LocalWorkload":
                await self._allowed(namespace, [name], make=True)
                await self._fits(obj)
                held.append(joined(await self._create(obj)))
                continue
            for local in obj["spec"]["local"]:
                await self._fits({**obj, "spec": local})
            made = await self._create(obj)
            held += await self._of_sandbox(made)
        await self._allowed(held[0].namespace, [each.name for each in held], make=False)
        return held

    def adopt(self, joined: Joined) -> None:
        """Remove this one, which we hold now, if it was made by another client that would have removed it."""
        self.made += [each for each in _needed(joined) if each in self._left and each not in self.made]

    def spare(self, joined: Joined) -> None:
        """Do not remove this one: another client holds it."""
        self.made = [each for each in self.made if each not in _needed(joined)]

    def _is_there(self, resource: Resource, obj: Object) -> None:
        metadata = obj["metadata"]
        if UNTIL_DISCONNECT in (metadata.get("annotations") or {}):
            self._left.append((resource, Key(metadata["namespace"], metadata["name"])))

    async def leave(self) -> list[str]:
        """Remove what was made, last first; the names of what was removed."""
        removed = []
        while self.made:
            resource, key = self.made.pop()
            try:
                await self._client.delete(resource, key.name, key.namespace)
                removed.append(f"{resource.kind} {key}")
            except NotFound:
                pass
        return removed

    async def _sandbox_is_there(self, namespace: str, sandbox: str) -> None:
        try:
            await self._client.get(SANDBOXES, sandbox, namespace)
        except NotFound:
            known = sorted(obj["metadata"]["name"] for obj in (await self._client.list(SANDBOXES, namespace)).items)
            others = f"it has {', '.join(known)}" if known else "it has none"
            raise ConnectError(f"there is no Sandbox {sandbox} in namespace {namespace}; {others}") from None

    async def _allowed(self, namespace: str, names: Sequence[str], *, make: bool) -> None:
        problems = await forbidden(self._client, rights(namespace, names, make=make))
        if problems:
            raise ConnectError("\n".join(problems))

    async def _fits(self, obj: Object) -> None:
        """Raises `ConnectError` when a baseline is not there or has not the ports."""
        spec, namespace = obj["spec"], obj["metadata"]["namespace"]
        targets = [LocalTarget(mapping["port"], "", 0) for mapping in spec.get("mappings") or ()]
        problems = await baseline_problems(self._client, namespace, spec["from"]["name"], targets)
        if problems:
            raise ConnectError("\n".join(problems))

    async def _create(self, obj: Object) -> Object:
        """Make an object, or take the one that is there if it says the same. Raises `ConnectError`."""
        resource, key = KINDS[obj["kind"]], Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
        if not self._keep:
            annotations = {**(obj["metadata"].get("annotations") or {}), UNTIL_DISCONNECT: "true"}
            obj = {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}
        try:
            made = await self._client.create(resource, obj)
        except AlreadyExists:
            there = await self._client.get(resource, key.name, key.namespace)
            different = [field for field, value in obj["spec"].items() if not covers(there["spec"].get(field), value)]
            if different:
                raise ConnectError(
                    f"{obj['kind']} {key} is there already with another spec.{different[0]}: apply yours with kubectl first"
                ) from None
            self._is_there(resource, there)
            return there
        self.made.append((resource, key))
        return made

    async def _of_sandbox(self, sandbox: Object) -> list[Joined]:
        """The LocalWorkloads that the controller makes of a Sandbox's `spec.local`."""
        namespace, name = sandbox["metadata"]["namespace"], sandbox["metadata"]["name"]
        wanted = {local["from"]["name"] for local in sandbox["spec"]["local"]}
        end = self._clock.monotonic() + PATIENCE
        while self._clock.monotonic() < end:
            known = chosen((await self._client.list(LOCAL_WORKLOADS, namespace)).items, name, "")
            found = [joined(obj) for obj in known if obj["spec"]["from"]["name"] in wanted]
            if {each.workload for each in found} == wanted:
                return found
            await self._clock.sleep(0.1)
        raise ConnectError(
            f"the LocalWorkloads of Sandbox {namespace}/{name} were not made within {PATIENCE:.0f} s: see its conditions "
            f"(kubectl describe sbx {name} -n {namespace})"
        )


def _needed(joined: Joined) -> list[tuple[Resource, Key]]:
    """What there has to be for a LocalWorkload, first made first."""
    return [
        (SANDBOXES, Key(joined.namespace, joined.sandbox)),
        (LOCAL_WORKLOADS, Key(joined.namespace, joined.name)),
    ]


def covers(there: object, wanted: object) -> bool:
    """Whether an object says what was wanted; defaults that the server has filled in do not count."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        return all(covers(there.get(key), value) for key, value in wanted.items())
    if isinstance(there, list) and isinstance(wanted, list):
        return len(there) == len(wanted) and all(covers(*pair) for pair in zip(there, wanted, strict=True))
    return there == wanted
