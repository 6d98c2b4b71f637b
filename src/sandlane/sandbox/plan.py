"""What a sandbox needs: `make_plan(world, sandbox)` gives the objects to have, those to keep, and what is in the way.

Pure: the same world and sandbox give the same plan. What it refuses it refuses with a reason, the object and the field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

import msgspec

from sandlane.api import reasons
from sandlane.api.keys import routing_key
from sandlane.api.labels import FORK_OF, PLAN, ROUTER, SANDBOX
from sandlane.api.limits import Limits
from sandlane.api.types import Fork, ForkValue, WorkloadReference
from sandlane.api.validation import check_sandbox
from sandlane.kube.quantity import format_quantity
from sandlane.kube.resource import DEPLOYMENTS, LOCAL_WORKLOADS, SERVICES, Key, Object, Resource, key_of
from sandlane.kube.store import Record
from sandlane.sandbox import copying, customize, names
from sandlane.sandbox.errors import PlanError
from sandlane.sandbox.resources import Making, make_fork, make_local_workload
from sandlane.sandbox.services import Override, make_service, override
from sandlane.world.records import ContainerPort, Deployment, PodTemplate, Sandbox, ServicePort
from sandlane.world.world import World

RESTARTED = "kubectl.kubernetes.io/restartedAt"


class Problem(msgspec.Struct, frozen=True):
    """Something that is in the way, as a condition says it."""

    reason: str
    message: str


class PlannedFork(msgspec.Struct, frozen=True):
    """One fork: what it is made from and the objects to have for it. With a problem: what is there already is kept."""

    reference: WorkloadReference
    workload: str
    baseline: Deployment | None = None
    deployment: Object | None = None
    services: tuple[Object, ...] = ()
    overrides: tuple[Override, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    """What its containers declare."""
    problem: Problem | None = None


class Plan(msgspec.Struct, frozen=True):
    """All that a sandbox needs. `refused` and `exceeded` stop everything new; what is there already is kept."""

    routing_key: str
    forks: tuple[PlannedFork, ...] = ()
    local_workloads: tuple[Object, ...] = ()
    refused: Problem | None = None
    exceeded: Problem | None = None

    @property
    def objects(self) -> list[tuple[Resource, Object]]:
        """What to apply, in order: Services first, so that Pods get their variables and names."""
        if self.refused or self.exceeded:
            return []
        planned = [fork for fork in self.forks if fork.problem is None]
        found = [(SERVICES, service) for fork in planned for service in fork.services]
        found += [(DEPLOYMENTS, fork.deployment) for fork in planned if fork.deployment is not None]
        return found + [(LOCAL_WORKLOADS, local) for local in self.local_workloads]

    @property
    def contradictions(self) -> list[Problem]:
        """What its forks ask of each other and do not give: only another spec helps."""
        problems = [fork.problem for fork in self.forks if fork.problem is not None]
        return [problem for problem in problems if problem.reason == reasons.FORK_PORT_NOT_SERVED]

    def superfluous(self, world: World, sandbox: Sandbox) -> list[tuple[Resource, Key]]:
        """What the sandbox owns and does not ask for any more."""
        wanted = {(resource, key_of(obj)) for resource, obj in self.objects}
        kept = {fork.reference.name for fork in self.forks if fork.problem or self.refused or self.exceeded}
        kept_labels = {names.label_value(name) for name in kept}
        found: list[tuple[Resource, Key]] = []
        owned: dict[Resource, Sequence[Record]] = {
            DEPLOYMENTS: world.owned_deployments(sandbox.metadata),
            SERVICES: world.owned_services(sandbox.metadata),
            LOCAL_WORKLOADS: world.owned_local_workloads(sandbox.metadata),
        }
        if self.refused or self.exceeded:
            kept_labels |= {names.label_value(local.from_.name) for local in sandbox.spec.local}
        for resource, records in owned.items():
            for record in records:
                metadata = record.metadata
                unwanted = (resource, metadata.key) not in wanted
                if unwanted and metadata.labels.get(FORK_OF) not in kept_labels:
                    found.append((resource, metadata.key))
        return found


def make_plan(world: World, sandbox: Sandbox, limits: Limits | None = None) -> Plan:
    """Plan a sandbox that is not being deleted."""
    limits = limits or Limits()
    metadata, spec = sandbox.metadata, sandbox.spec
    key = routing_key(metadata.uid, spec.routing_key)
    findings = check_sandbox(metadata.name, metadata.namespace, spec)
    if findings.errors:
        return Plan(key, refused=Problem(reasons.INVALID_SPEC, findings.message), forks=_unplanned(sandbox))
    owner = world.with_key(key)[0] if world.with_key(key) else sandbox
    if owner.metadata.uid != metadata.uid:
        problem = f"spec.routingKey: {type(owner).__name__} {owner.metadata.key} has the key {key!r}"
        return Plan(key, refused=Problem(reasons.ROUTING_KEY_TAKEN, problem), forks=_unplanned(sandbox))
    making = Making(metadata, key, spec.suspended, limits)
    planner = _Planner(world, sandbox, making)
    planned = [planner.fork(index, fork) for index, fork in enumerate(spec.forks)]
    forks = tuple(
        _with_served_values(fork, each, index, planned)
        for index, (fork, each) in enumerate(zip(spec.forks, planned, strict=True))
    )
    local = tuple(stamped(make_local_workload(making, each)) for each in spec.local)
    selected = next((fork.problem for fork in forks if _blocks_all(fork.problem)), None)
    exceeded = next((fork.problem for fork in forks if _is_limit(fork.problem)), None)
    exceeded = exceeded or _limit_problem(world, sandbox, forks, limits)
    return Plan(key, forks, local, refused=selected, exceeded=exceeded)


def stamped(obj: Object) -> Object:
    """The object with a hash of itself, by which drift can be told from a new plan."""
    digest = hashlib.sha256(msgspec.json.encode(obj, order="deterministic")).hexdigest()[:16]
    annotations = (obj["metadata"].get("annotations") or {}) | {PLAN: digest}
    return obj | {"metadata": obj["metadata"] | {"annotations": annotations}}


def _unplanned(sandbox: Sandbox) -> tuple[PlannedFork, ...]:
    references = [fork.fork_of for fork in sandbox.spec.forks]
    return tuple(PlannedFork(each, names.fork_name(sandbox.metadata, each.name)) for each in references)


def _blocks_all(problem: Problem | None) -> bool:
    return problem is not None and problem.reason == reasons.FORK_SELECTED_BY_SERVICE


def _is_limit(problem: Problem | None) -> bool:
    return problem is not None and problem.reason == reasons.LIMIT_EXCEEDED


class _Planner:
    """The forks of one sandbox."""

    def __init__(self, world: World, sandbox: Sandbox, making: Making) -> None:
        self._world = world
        self._sandbox = sandbox
        self._making = making
        self._namespace = sandbox.metadata.namespace

    def fork(self, index: int, fork: Fork) -> PlannedFork:
        """Plan one fork."""
        reference = fork.fork_of
        name = names.fork_name(self._sandbox.metadata, reference.name)
        path = f"spec.forks[{index}]"
        baseline = self._world.baseline(self._namespace, reference)
        planned = PlannedFork(reference, name, baseline)
        if baseline is None or baseline.metadata.deleting:
            what = f"{path}.forkOf: {reference.kind} {self._namespace}/{reference.name} does not exist"
            return _with(planned, reasons.BASELINE_NOT_FOUND, what)
        if baseline.metadata.controller is not None and _is_fork(baseline):
            what = f"{path}.forkOf: {reference.name} is a fork itself; fork its baseline"
            return _with(planned, reasons.BASELINE_NOT_FOUND, what)
        if ROUTER in baseline.metadata.labels:
            return _with(planned, reasons.BASELINE_NOT_FOUND, f"{path}.forkOf: {reference.name} is Sandlane's router")
        try:
            deployment = make_fork(
                self._making,
                baseline,
                fork,
                path=path,
                resolve=self._resolve,
                recreate=_recreates(self._world, baseline),
            )
            self._keep_restart(deployment)
            template = _template(deployment, path)
            self._check_selection(deployment, baseline, fork, path)
            limits = self._making.limits
            customize.check_ceilings(deployment["spec"]["template"]["spec"], limits, path)
            _check_replicas(fork, limits, path)
        except PlanError as error:
            return _with(planned, error.reason, error.message)
        overrides = self._overrides(baseline, template)
        labels = names.object_labels(self._sandbox.metadata, reference.name)
        made = [
            make_service(each, namespace=self._namespace, fork=name, labels=labels, owner=self._making.owner)
            for each in overrides
        ]
        services = tuple(stamped(service) for service in made if service is not None)
        deployment = stamped(deployment)
        ports = tuple(template.spec.ports())
        return msgspec.structs.replace(
            planned, deployment=deployment, services=services, overrides=overrides, ports=ports
        )

    def _keep_restart(self, deployment: Object) -> None:
        """`kubectl rollout restart` of a fork is no drift: its mark on the live template stays (in place)."""
        live = self._world.deployments.get(key_of(deployment))
        controller = live.metadata.controller if live is not None else None
        if live is None or controller is None or controller.uid != self._sandbox.metadata.uid:
            return
        marked = (live.spec.template.metadata.annotations or {}).get(RESTARTED, "")
        metadata = deployment["spec"]["template"]["metadata"]
        if marked > (metadata.get("annotations") or {}).get(RESTARTED, ""):
            metadata["annotations"] = {**(metadata.get("annotations") or {}), RESTARTED: marked}

    def _overrides(self, baseline: Deployment, template: PodTemplate) -> tuple[Override, ...]:
        selecting = self._world.services_selecting(self._namespace, baseline.pod_labels)
        before, after = baseline.spec.template.spec.ports(), template.spec.ports()
        sandbox, name = self._sandbox.metadata, baseline.metadata.name
        return tuple(override(sandbox, service, name, before, after) for service in selecting)

    def _check_selection(self, deployment: Object, baseline: Deployment, fork: Fork, path: str) -> None:
        """No Service of anyone else may select the fork's Pods: because of labels that it keeps, or that a patch gives it."""
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        found = self._world.services_selecting(self._namespace, labels)
        if not found:
            return
        kept = copying.kept_labels(baseline.pod_labels, fork.preserved_labels)
        by_kept = (found[0].spec.selector or {}).items() <= kept.items()
        field = "preservedLabels" if by_kept else "customizations.patch"
        named = ", ".join(f"Service {each.metadata.name} ({_written(each.spec.selector)})" for each in found)
        what = f"{path}.{field}: {named} would select the fork's Pods"
        raise PlanError(reasons.FORK_SELECTED_BY_SERVICE, what)

    def _resolve(self, value: ForkValue, path: str) -> str:
        """Where another fork of this sandbox answers: its own Service, which has the ports of the baseline's."""
        baseline = self._world.baseline(self._namespace, value.fork_of)
        if baseline is None:
            problem = f"{path}.forkOf: Deployment {self._namespace}/{value.fork_of.name} does not exist"
            raise PlanError(reasons.BASELINE_NOT_FOUND, problem)
        services = self._world.services_selecting(self._namespace, baseline.pod_labels)
        called = ", ".join(service.metadata.name for service in services) or "none"
        chosen = [service for service in services if value.service in ("", service.metadata.name)]
        if len(chosen) != 1:
            problem = f"{path}.service: which Service of {value.fork_of.name} is not clear; there are: {called}"
            raise PlanError(reasons.FORK_VALUE_UNRESOLVED, problem)
        name = names.service_name(self._sandbox.metadata, chosen[0].metadata.name, value.fork_of.name)
        host = f"{name}.{self._namespace}.svc"
        ports = [port for port in chosen[0].spec.ports if _means(value, port)]
        if value.field == "host" and (ports or value.port == ""):
            return host
        if len(ports) != 1:
            there = _called(chosen[0].spec.ports)
            what = f"has no port {value.port}" if value.port != "" and not ports else "has several ports: name one"
            problem = f"{path}.port: Service {chosen[0].metadata.name} {what}; there are: {there}"
            raise PlanError(reasons.FORK_PORT_NOT_SERVED, problem)
        return str(ports[0].port) if value.field == "port" else f"{host}:{ports[0].port}"


def _written(selector: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((selector or {}).items()))


def _means(value: ForkValue, port: ServicePort) -> bool:
    """Whether a value is about this port of the Service: by name or number, or because it names none."""
    return str(value.port) in ("", port.name, str(port.port))


def _called(ports: Iterable[ServicePort]) -> str:
    """Ports, as one may name them."""
    return ", ".join(f"{port.name} ({port.port})" if port.name else str(port.port) for port in ports) or "none"


def _with_served_values(fork: Fork, planned: PlannedFork, index: int, forks: Sequence[PlannedFork]) -> PlannedFork:
    """The planned fork, unless it is told a port that another fork, as it is customized, does not serve.

    A fork that has a problem of its own says so itself: what there is of it stays, with its ports.
    """
    if planned.problem is not None:
        return planned
    for position, variable in enumerate(fork.customizations.env):
        value = variable.value_from.fork if variable.value_from is not None else None
        other = next((each for each in forks if value is not None and each.reference.name == value.fork_of.name), None)
        if value is None or other is None or other.problem is not None:
            continue
        override = next(each for each in other.overrides if value.service in ("", each.service.metadata.name))
        served = [port for port, _ in override.ports]
        if not any(_means(value, port) for port in served):
            port = _called(port for port in override.missing if _means(value, port))
            path = f"spec.forks[{index}].customizations.env[{position}].valueFrom.fork.port"
            what = f"the fork of {other.reference.name} does not serve port {port} of Service {override.service.metadata.name}"
            unplanned = PlannedFork(planned.reference, planned.workload, planned.baseline)
            return _with(unplanned, reasons.FORK_PORT_NOT_SERVED, f"{path}: {what}; it serves: {_called(served)}")
    return planned


def _with(planned: PlannedFork, reason: str, message: str) -> PlannedFork:
    return msgspec.structs.replace(planned, problem=Problem(reason, message))


def _is_fork(deployment: Deployment) -> bool:
    return SANDBOX in deployment.metadata.labels


def _template(deployment: Object, path: str) -> PodTemplate:
    try:
        return msgspec.convert(deployment["spec"]["template"], PodTemplate)
    except msgspec.ValidationError as error:
        raise PlanError(reasons.PATCH_FAILED, f"{path}.customizations.patch: {error}") from error


def _recreates(world: World, baseline: Deployment) -> bool:
    """Whether no two Pods of the fork may be there at once: as its baseline says, or for a volume of one node."""
    if b'"Recreate"' not in baseline.raw and b'"persistentVolumeClaim"' not in baseline.raw:
        return False  # without reading the whole object once more
    spec = baseline.object()["spec"]
    if (spec.get("strategy") or {}).get("type") == "Recreate":
        return True
    for volume in (spec["template"].get("spec") or {}).get("volumes") or ():
        if source := volume.get("persistentVolumeClaim"):
            claim = world.claims.get(Key(baseline.metadata.namespace, source.get("claimName", "")))
            if claim is None or not claim.shared:
                return True
    return False


def _check_replicas(fork: Fork, limits: Limits, path: str) -> None:
    replicas = fork.customizations.replicas
    if limits.replicas_per_fork and replicas > limits.replicas_per_fork:
        what = f"{path}.customizations.replicas: {replicas} is more than {limits.replicas_per_fork}"
        raise PlanError(reasons.LIMIT_EXCEEDED, what)


def _limit_problem(world: World, sandbox: Sandbox, forks: tuple[PlannedFork, ...], limits: Limits) -> Problem | None:
    """The limit that is exceeded, if any. Older sandboxes go first, so that a new one never takes what they have."""
    count = len(sandbox.spec.forks)
    if limits.forks_per_sandbox and count > limits.forks_per_sandbox:
        return Problem(reasons.LIMIT_EXCEEDED, f"spec.forks: {count} forks are more than {limits.forks_per_sandbox}")
    namespace = sandbox.metadata.namespace
    if limits.sandboxes_per_namespace:
        older = sum(_before(other, sandbox) for other in world.sandboxes.namespace(namespace))
        if older >= limits.sandboxes_per_namespace:
            what = f"metadata.namespace: {namespace} has {older} older sandboxes; {limits.sandboxes_per_namespace} are allowed"
            return Problem(reasons.LIMIT_EXCEEDED, what)
    if limits.requests_per_namespace:
        return _requests_problem(world, sandbox, forks, limits)
    return None


def _before(other: Sandbox, sandbox: Sandbox) -> bool:
    """Whether another one is older; one that is still to be created is the youngest."""
    if not sandbox.metadata.creation_timestamp:
        return other.metadata.name != sandbox.metadata.name
    return (other.metadata.creation_timestamp, other.metadata.name) < (
        sandbox.metadata.creation_timestamp,
        sandbox.metadata.name,
    )


def _requests_problem(world: World, sandbox: Sandbox, forks: tuple[PlannedFork, ...], limits: Limits) -> Problem | None:
    """Whether all forks of the namespace together would request too much."""
    total: dict[str, Fraction] = {}
    own = [msgspec.json.encode(fork.deployment) for fork in forks if fork.deployment]
    others = [
        deployment.raw
        for other in world.sandboxes.namespace(sandbox.metadata.namespace)
        if other.metadata.uid != sandbox.metadata.uid
        for deployment in world.owned_deployments(other.metadata)
    ]
    for raw in own + others:
        for name, amount in _requested(raw).items():
            total[name] = total.get(name, Fraction()) + amount
    for name, ceiling in sorted(limits.requests_per_namespace.items()):
        if total.get(name, Fraction()) > customize.quantity(ceiling):
            asked = format_quantity(total[name], "binary" if name == "memory" else "decimal")
            what = f"spec.forks: all forks of namespace {sandbox.metadata.namespace} would request {name} {asked}"
            return Problem(reasons.LIMIT_EXCEEDED, f"{what}; {ceiling} are allowed")
    return None


@lru_cache(maxsize=10_000)
def _requested(deployment: bytes) -> dict[str, Fraction]:
    """What a Deployment's Pods request together; the same Deployments are asked about for every sandbox."""
    spec = msgspec.json.decode(deployment)["spec"]
    return customize.requests_of(spec["template"]["spec"], spec.get("replicas", 1))
