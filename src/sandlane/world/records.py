"""Kubernetes objects as frozen records, decoded straight from bytes and holding only what Sandlane reads.

Deployments and Services also keep their whole object as compact bytes (`raw`, without `managedFields`), because a fork
copies a Deployment whole, and drift of an owned object can be in any field.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import msgspec

from sandlane.api.types import (
    LocalWorkloadSpec,
    LocalWorkloadStatus,
    RouteGroupSpec,
    RouteGroupStatus,
    SandboxSpec,
    SandboxStatus,
)
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Object


class Struct(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Common options of all records."""


class _Whole(Struct, frozen=True, gc=False):
    """A record that keeps its whole object as bytes."""

    metadata: ObjectMeta

    def object(self) -> Object:
        """The whole object, decoded afresh: the caller may change it."""
        whole: Object = msgspec.json.decode(self.raw)  # type: ignore[attr-defined]
        return whole


W = TypeVar("W", bound=_Whole)


def _whole(cls: type[W], decoder: msgspec.json.Decoder[W], data: bytes) -> W:
    if b'"managedFields"' in data:
        whole = msgspec.json.decode(data)
        whole.get("metadata", {}).pop("managedFields", None)
        data = msgspec.json.encode(whole)
    record = decoder.decode(data)
    msgspec.structs.force_setattr(record, "raw", bytes(data))
    return record


# -- our own ------------------------------------------------------------------------------------------------


class Sandbox(Struct, frozen=True, gc=False):
    """A Sandbox."""

    metadata: ObjectMeta
    spec: SandboxSpec = SandboxSpec()
    status: SandboxStatus = SandboxStatus()


class RouteGroup(Struct, frozen=True, gc=False):
    """A RouteGroup."""

    metadata: ObjectMeta
    spec: RouteGroupSpec
    status: RouteGroupStatus = RouteGroupStatus()


class LocalWorkload(Struct, frozen=True, gc=False):
    """A LocalWorkload."""

    metadata: ObjectMeta
    spec: LocalWorkloadSpec
    status: LocalWorkloadStatus = LocalWorkloadStatus()


# -- Services and their endpoints ---------------------------------------------------------------------------


class ServicePort(Struct, frozen=True, gc=False, omit_defaults=True):
    """A port of a Service. `target_port` is a container port's number or name; None means the same as `port`."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: int | str | None = None
    node_port: int = 0

    @property
    def target(self) -> int | str:
        """The container port's number or name."""
        return self.port if self.target_port in (None, 0, "") else self.target_port


class ServiceSpec(Struct, frozen=True, gc=False):
    """What of a Service's spec matters for routing."""

    selector: dict[str, str] | None = None
    ports: tuple[ServicePort, ...] = ()
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    external_name: str = ""
    session_affinity: str = "None"
    session_affinity_config: dict[str, Any] | None = None
    external_traffic_policy: str = ""
    internal_traffic_policy: str = "Cluster"
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""


class Service(_Whole, frozen=True, gc=False):
    """A Service as it is now: while it is turned, `World.original` gives what its owner wrote."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    raw: bytes = b""

    @classmethod
    def from_bytes(cls, data: bytes) -> Service:
        """Decode from JSON."""
        return _whole(cls, _service, data)

    @property
    def headless(self) -> bool:
        """Whether it has no cluster IP by intention."""
        return self.spec.cluster_ip == "None"


class EndpointConditions(Struct, frozen=True, gc=False):
    """None means unknown, which counts as ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ObjectReference(Struct, frozen=True, gc=False):
    """Which object is meant."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""


class Endpoint(Struct, frozen=True, gc=False):
    """One Pod behind a Service."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectReference | None = None
    node_name: str = ""
    zone: str = ""


class EndpointPort(Struct, frozen=True, gc=False):
    """A port of all endpoints of a slice; `port` None means any."""

    name: str | None = None
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSlice(Struct, frozen=True, gc=False):
    """Some of a Service's endpoints; the label `kubernetes.io/service-name` says whose."""

    SERVICE_NAME: ClassVar[str] = "kubernetes.io/service-name"

    metadata: ObjectMeta
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None

    @property
    def service(self) -> str:
        """The Service's name, empty when it belongs to none."""
        return self.metadata.labels.get(self.SERVICE_NAME, "")


# -- workloads ----------------------------------------------------------------------------------------------


class ContainerPort(Struct, frozen=True, gc=False):
    """A port that a container declares."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Container(Struct, frozen=True, gc=False):
    """A container of a Pod or of a template."""

    name: str
    image: str = ""
    ports: tuple[ContainerPort, ...] | None = None
    restart_policy: str = ""


class TemplateMeta(Struct, frozen=True, gc=False):
    """Labels and annotations of a Pod template."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class PodSpec(Struct, frozen=True, gc=False):
    """What of a Pod's spec matters."""

    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] | None = None
    node_name: str = ""
    host_network: bool = False

    def ports(self) -> list[ContainerPort]:
        """All ports that its running containers declare; those of sidecar init containers come last."""
        sidecars = [c for c in self.init_containers or () if c.restart_policy == "Always"]
        return [port for container in (*self.containers, *sidecars) for port in container.ports or ()]


class PodTemplate(Struct, frozen=True, gc=False):
    """The template of a workload's Pods."""

    metadata: TemplateMeta = TemplateMeta()
    spec: PodSpec = PodSpec()


class LabelSelector(Struct, frozen=True, gc=False):
    """`metav1.LabelSelector`."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[dict[str, Any], ...] | None = None


class WorkloadCondition(Struct, frozen=True, gc=False):
    """A condition of a workload or a Pod."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""


class DeploymentSpec(Struct, frozen=True, gc=False):
    """What of a Deployment's spec matters; the rest is in `raw`."""

    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    paused: bool = False


class DeploymentStatus(Struct, frozen=True, gc=False):
    """How a Deployment is."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    conditions: tuple[WorkloadCondition, ...] | None = None


class Deployment(_Whole, frozen=True, gc=False):
    """A Deployment."""

    metadata: ObjectMeta
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()
    raw: bytes = b""

    @classmethod
    def from_bytes(cls, data: bytes) -> Deployment:
        """Decode from JSON."""
        return _whole(cls, _deployment, data)

    @property
    def pod_labels(self) -> dict[str, str]:
        """The labels of its Pods."""
        return self.spec.template.metadata.labels or {}


class ReplicaSetSpec(Struct, frozen=True, gc=False):
    """What of a ReplicaSet's spec matters."""

    replicas: int = 1


class ReplicaSetStatus(Struct, frozen=True, gc=False):
    """How a ReplicaSet is."""

    replicas: int = 0
    ready_replicas: int = 0
    conditions: tuple[WorkloadCondition, ...] | None = None


class ReplicaSet(Struct, frozen=True, gc=False):
    """A ReplicaSet."""

    metadata: ObjectMeta
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()


class ContainerWaiting(Struct, frozen=True, gc=False):
    """Why a container has not started."""

    reason: str = ""
    message: str = ""


class ContainerTerminated(Struct, frozen=True, gc=False):
    """How a container ended. `message` is the end of its log when it asked for that."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    signal: int = 0


class ContainerRunning(Struct, frozen=True, gc=False):
    """Since when a container runs."""

    started_at: str = ""


class ContainerState(Struct, frozen=True, gc=False):
    """At most one of them."""

    waiting: ContainerWaiting | None = None
    running: ContainerRunning | None = None
    terminated: ContainerTerminated | None = None


class ContainerStatus(Struct, frozen=True, gc=False):
    """How a container is."""

    name: str
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(Struct, frozen=True, gc=False):
    """How a Pod is."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    conditions: tuple[WorkloadCondition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None


class Pod(Struct, frozen=True, gc=False):
    """A Pod. The world holds only Pods that Sandlane made (label `app.kubernetes.io/managed-by: sandlane`)."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ready(self) -> bool:
        """Whether it takes traffic."""
        return any(each.type == "Ready" and each.status == "True" for each in self.status.conditions or ())


# -- where they live --------------------------------------------------------------------------------------------


class NamespaceStatus(Struct, frozen=True, gc=False):
    """Active or Terminating."""

    phase: str = "Active"


class Namespace(Struct, frozen=True, gc=False):
    """A Namespace."""

    metadata: ObjectMeta
    status: NamespaceStatus = NamespaceStatus()


_service = msgspec.json.Decoder(Service)
_deployment = msgspec.json.Decoder(Deployment)
