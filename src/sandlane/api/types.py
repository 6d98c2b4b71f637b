"""Sandbox, RouteGroup and LocalWorkload (`sandlane.dev/v1alpha1`) as frozen types, decoded straight from JSON.

Field names are Python's; on the wire they are camelCase. Defaults are those of the CRDs' schemas.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

GROUP = "sandlane.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = "sandlane.dev/finalizer"
FIELD_MANAGER = "sandlane"


class _Struct(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Common options of all API types."""


# -- shared -------------------------------------------------------------------------------------------------


class Condition(_Struct, frozen=True, gc=False, omit_defaults=False, rename="camel"):
    """`metav1.Condition`."""

    type: str
    status: str  # "True" | "False" | "Unknown"
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int = 0


class Endpoint(_Struct, frozen=True, gc=False):
    """A named preview endpoint: `target` is `http://SERVICE[.NAMESPACE]:PORT`."""

    name: str
    target: str


class EndpointStatus(_Struct, frozen=True, gc=False):
    """Where a preview endpoint can be reached; no `url`: `message` says why it is not served."""

    name: str
    url: str = ""
    message: str = ""


class Ttl(_Struct, frozen=True, gc=False):
    """Time to live: `duration` is `<n>m|h|d|w`."""

    duration: str
    from_: str = msgspec.field(name="from", default="creation")  # creation | lastUpdate | noMatchedSandboxes


class WorkloadReference(_Struct, frozen=True, gc=False):
    """A baseline workload; `namespace` may only name the object's own one."""

    name: str
    kind: str = "Deployment"
    api_group: str = "apps"
    namespace: str = ""


class PortMapping(_Struct, frozen=True, gc=False):
    """The baseline's container port, and the `host:port` on the laptop that stands in for it.

    Plain TCP carries no routing key: with `all_connections` everybody's connections go to the laptop.
    """

    port: int
    to: str
    all_connections: bool = False


class OnDisconnect(StrEnum):
    """What callers get while no laptop is connected."""

    FAIL = "Fail"
    BASELINE = "Baseline"
    HOLD = "Hold"


# -- Sandbox ------------------------------------------------------------------------------------------------


class ImageOverride(_Struct, frozen=True, gc=False):
    """A container's image; `container` may be left out when the workload has one container."""

    image: str
    container: str = ""


class ForkValue(_Struct, frozen=True, gc=False):
    """A value taken from another fork of the same sandbox: `field` is host | port | address."""

    fork_of: WorkloadReference
    service: str = ""
    port: str | int = ""
    field: str = "host"


class EnvSource(_Struct, frozen=True, gc=False):
    """Exactly one source of an environment variable's value."""

    secret_key_ref: dict[str, Any] | None = None
    config_map_key_ref: dict[str, Any] | None = None
    field_ref: dict[str, Any] | None = None
    fork: ForkValue | None = None


class EnvOverride(_Struct, frozen=True, gc=False):
    """An environment variable set or deleted in one container (or all, when `container` is empty)."""

    name: str
    value: str | None = None
    value_from: EnvSource | None = None
    container: str = ""
    operation: str = "upsert"  # upsert | delete


class Patch(_Struct, frozen=True, gc=False):
    """A patch of the fork's whole Deployment. `value` is an object, or a list for type json."""

    value: Any
    type: str = "strategic"  # strategic | merge | json


class Customizations(_Struct, frozen=True, gc=False):
    """How a fork differs from its baseline; applied in this order."""

    images: tuple[ImageOverride, ...] = ()
    env: tuple[EnvOverride, ...] = ()
    patch: Patch | None = None
    replicas: int = 1


class Fork(_Struct, frozen=True, gc=False):
    """One forked workload."""

    fork_of: WorkloadReference
    customizations: Customizations = Customizations()
    resources: dict[str, dict[str, str | int]] | None = None
    preserved_labels: tuple[str, ...] = ()


class Local(_Struct, frozen=True, gc=False):
    """A workload replaced by a process on a laptop; becomes a LocalWorkload owned by the sandbox."""

    name: str
    from_: WorkloadReference = msgspec.field(name="from")
    mappings: tuple[PortMapping, ...] = ()
    on_disconnect: OnDisconnect = OnDisconnect.FAIL
    hold_seconds: int = 10


class DefaultRouteGroup(_Struct, frozen=True, gc=False):
    """Endpoints under the sandbox's own key."""

    endpoints: tuple[Endpoint, ...] = ()


class SandboxSpec(_Struct, frozen=True, gc=False):
    """What a user asks for."""

    description: str = ""
    ttl: Ttl | None = None
    routing_key: str = ""
    suspended: bool = False
    forks: tuple[Fork, ...] = ()
    local: tuple[Local, ...] = ()
    default_route_group: DefaultRouteGroup | None = None


class BaselineStatus(_Struct, frozen=True, gc=False):
    """The baseline that a fork was planned from."""

    kind: str
    name: str
    uid: str
    generation: int


class ServicePortStatus(_Struct, frozen=True, gc=False):
    """A Service port that the fork serves: the port of the Service (both of the original and of the fork's)."""

    port: int
    name: str = ""
    protocol: str = "TCP"


class ServiceStatus(_Struct, frozen=True, gc=False):
    """A Service of the baseline (`from`) and the fork's own Service that stands in for it (`to`)."""

    from_: str = msgspec.field(name="from")
    to: str
    ports: tuple[ServicePortStatus, ...] = ()
    missing_ports: tuple[int, ...] = ()


class ForkStatus(_Struct, frozen=True, gc=False):
    """What is observed of one fork. `ever_ready` stays true: its routes are kept when it fails later."""

    baseline: BaselineStatus
    workload: str
    ready: int = 0
    desired: int = 0
    ever_ready: bool = False
    services: tuple[ServiceStatus, ...] = ()
    reason: str = ""
    message: str = ""


class SandboxStatus(_Struct, frozen=True, gc=False):
    """What is observed of a sandbox."""

    observed_generation: int = 0
    phase: str = ""  # Pending | Progressing | Ready | Failed | Terminating
    routing_key: str = ""
    route_groups: tuple[str, ...] = ()
    last_update_time: str = ""
    expires_at: str = ""
    forks: tuple[ForkStatus, ...] = ()
    endpoints: tuple[EndpointStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()


# -- RouteGroup ---------------------------------------------------------------------------------------------


class LabelMatch(_Struct, frozen=True, gc=False):
    """A label whose value matches a glob."""

    key: str
    value: str


class Match(_Struct, frozen=True, gc=False):
    """Exactly one of `any`, `all`, `label`; nests three levels deep."""

    any: tuple[Match, ...] | None = None
    all: tuple[Match, ...] | None = None
    label: LabelMatch | None = None


class RouteGroupSpec(_Struct, frozen=True, gc=False):
    """Which sandboxes share one key."""

    match: Match
    routing_key: str = ""
    namespaces: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    ttl: Ttl | None = None
    description: str = ""


class MatchedSandbox(_Struct, frozen=True, gc=False):
    """A sandbox that the group matches."""

    name: str
    ready: bool
    namespace: str = ""


class CompiledRoute(_Struct, frozen=True, gc=False):
    """One row of the group's table."""

    service: str
    port: int
    sandbox: str
    to: str
    namespace: str = ""


class RouteConflict(_Struct, frozen=True, gc=False):
    """Two matched sandboxes replace the same baseline; the winner's route counts."""

    baseline: WorkloadReference
    sandboxes: tuple[str, ...]
    winner: str


class RouteGroupStatus(_Struct, frozen=True, gc=False):
    """What is observed of a route group."""

    observed_generation: int = 0
    phase: str = ""
    routing_key: str = ""
    last_update_time: str = ""
    expires_at: str = ""
    unmatched_since: str = ""
    matched_sandboxes: tuple[MatchedSandbox, ...] = ()
    routes: tuple[CompiledRoute, ...] = ()
    route_count: int = 0
    conflicts: tuple[RouteConflict, ...] = ()
    endpoints: tuple[EndpointStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()


# -- LocalWorkload ------------------------------------------------------------------------------------------


class LocalWorkloadSpec(_Struct, frozen=True, gc=False):
    """A process on a laptop that stands in for a workload, for one sandbox's key."""

    sandbox: str
    from_: WorkloadReference = msgspec.field(name="from")
    mappings: tuple[PortMapping, ...] = ()
    on_disconnect: OnDisconnect = OnDisconnect.FAIL
    hold_seconds: int = 10


class ConnectionStatus(_Struct, frozen=True, gc=False):
    """The tunnel as the data plane reports it. `session` is the client (of the user `client`) that holds it."""

    client: str = ""
    session: str = ""
    connected_at: str = ""
    last_seen: str = ""
    tunnels: int = 0
    remote_address: str = ""


class LocalWorkloadStatus(_Struct, frozen=True, gc=False):
    """What is observed of a local workload."""

    observed_generation: int = 0
    phase: str = ""  # Pending | Connected | Disconnected | Failed | Terminating
    connection: ConnectionStatus | None = None
    conditions: tuple[Condition, ...] = ()
