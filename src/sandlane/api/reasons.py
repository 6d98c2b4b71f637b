"""Every reason that conditions, Events, webhooks and the command line give: one list, each with cause and next step."""

from __future__ import annotations

import msgspec


class Reason(msgspec.Struct, frozen=True):
    """A stable word; what it means; what to do about it (empty: nothing)."""

    name: str
    cause: str
    next_step: str = ""


def _all(*reasons: Reason) -> dict[str, Reason]:
    return {reason.name: reason for reason in reasons}


# -- going well ---------------------------------------------------------------------------------------------
ALL_READY = "AllReady"
ACCEPTED = "Accepted"
WITHIN_LIMITS = "WithinLimits"
NOTHING_TO_DO = "NothingToDo"
PROGRESSING = "Progressing"
PENDING = "Pending"
SUSPENDED = "Suspended"
TERMINATING = "Terminating"
NO_CONFLICT = "NoConflict"
PROGRAMMED = "Programmed"
# -- the request cannot be followed -------------------------------------------------------------------------
INVALID_SPEC = "InvalidSpec"
BASELINE_NOT_FOUND = "BaselineNotFound"
BASELINE_CHANGED = "BaselineChanged"
CONTAINER_NOT_FOUND = "ContainerNotFound"
PATCH_FAILED = "PatchFailed"
FORK_VALUE_UNRESOLVED = "ForkValueUnresolved"
FORK_PORT_NOT_SERVED = "ForkPortNotServed"
FORK_SELECTED_BY_SERVICE = "ForkSelectedByService"
ROUTING_KEY_TAKEN = "RoutingKeyTaken"
NOT_OWNED = "NotOwned"
REFUSED = "Refused"
LIMIT_EXCEEDED = "LimitExceeded"
QUOTA_EXCEEDED = "QuotaExceeded"
NAMESPACE_TERMINATING = "NamespaceTerminating"
SANDBOX_NOT_FOUND = "SandboxNotFound"
NAMESPACE_NOT_CONSENTED = "NamespaceNotConsented"
# -- forks --------------------------------------------------------------------------------------------------
IMAGE_PULL_FAILED = "ImagePullFailed"
CRASH_LOOP = "CrashLoop"
CONTAINER_FAILED = "ContainerFailed"
CONFIG_MISSING = "ConfigMissing"
UNSCHEDULABLE = "Unschedulable"
NOT_PASSING_PROBE = "NotPassingProbe"
PODS_NOT_READY = "PodsNotReady"
# -- routing ------------------------------------------------------------------------------------------------
SERVICE_NOT_ROUTABLE = "ServiceNotRoutable"
SERVICE_CONTESTED = "ServiceContested"
SERVICE_SHARED = "ServiceShared"
ROUTER_UNAVAILABLE = "RouterUnavailable"
ROUTES_REJECTED = "RoutesRejected"
POLICY_BLOCKS_TRAFFIC = "PolicyBlocksTraffic"
ROUTES_DRAINING = "RoutesDraining"
CONFLICTING_SANDBOXES = "ConflictingSandboxes"
NO_MATCHED_SANDBOXES = "NoMatchedSandboxes"
SANDBOXES_NOT_READY = "SandboxesNotReady"
# -- laptops ------------------------------------------------------------------------------------------------
CONNECTED = "Connected"
NOT_CONNECTED = "NotConnected"

TAKING_IN = "the routers are taking the routes in"
"""The message for routes under way, as long as nothing more needs to be said."""

REASONS = _all(
    Reason(ALL_READY, "Everything is there and serves."),
    Reason(ACCEPTED, "The spec can be followed."),
    Reason(WITHIN_LIMITS, "No limit and no quota is in the way."),
    Reason(NOTHING_TO_DO, "The spec asks for nothing of this sort."),
    Reason(PROGRESSING, "Work is under way; the message says on what."),
    Reason(PENDING, "Not known yet."),
    Reason(SUSPENDED, "`spec.suspended` is true.", "Set it to false to go on."),
    Reason(TERMINATING, "The object is being deleted."),
    Reason(NO_CONFLICT, "No two matched sandboxes replace the same workload."),
    Reason(PROGRAMMED, "Every ready router serves the routes."),
    Reason(INVALID_SPEC, "The spec breaks a rule.", "Correct the fields that the message names."),
    Reason(
        BASELINE_NOT_FOUND,
        "The workload to fork does not exist. A fork that runs already is kept.",
        "Deploy the baseline, or remove the fork from the spec.",
    ),
    Reason(BASELINE_CHANGED, "The baseline has changed; the fork is made anew from it."),
    Reason(
        CONTAINER_NOT_FOUND,
        "A customization names a container that the baseline does not have.",
        "Use one of the names that the message lists.",
    ),
    Reason(
        PATCH_FAILED,
        "The patch cannot be applied to the baseline, or gives an object that the API server refuses.",
        "Correct the patch; `kubectl get deploy NAME -o yaml` shows what it applies to.",
    ),
    Reason(
        FORK_VALUE_UNRESOLVED,
        "`valueFrom.fork` names a fork or Service that this sandbox does not have.",
        "Add that fork, or name one of the Services that the message lists.",
    ),
    Reason(
        FORK_PORT_NOT_SERVED,
        "`valueFrom.fork` names a port that the Service does not have, or that the other fork does not serve, because its"
        " patch takes the container's port away.",
        "Name one of the ports that the message lists, or leave the port in the other fork.",
    ),
    Reason(
        FORK_SELECTED_BY_SERVICE,
        "A Service of the baseline would select the fork's Pods, because of a preserved label. Nothing is applied.",
        "Take the label out of `preservedLabels`, or out of the patch.",
    ),
    Reason(
        ROUTING_KEY_TAKEN,
        "An older Sandbox or RouteGroup has the same routing key.",
        "Choose another `spec.routingKey`: make the object anew, since the field cannot be changed.",
    ),
    Reason(
        NOT_OWNED,
        "An object with the name that is needed belongs to somebody else. It is left alone.",
        "Rename or delete that object.",
    ),
    Reason(REFUSED, "The API server refused an object.", "The message is the server's."),
    Reason(
        LIMIT_EXCEEDED,
        "A limit of the manager's configuration is exceeded. Nothing new is made.",
        "Ask for less, or ask whoever runs Sandlane for more.",
    ),
    Reason(
        QUOTA_EXCEEDED,
        "A ResourceQuota or LimitRange of the namespace does not allow the fork's Pods.",
        "Set `resources` in the fork, or free or raise the quota.",
    ),
    Reason(NAMESPACE_TERMINATING, "The namespace is being deleted."),
    Reason(SANDBOX_NOT_FOUND, "The sandbox does not exist.", "Create it, or correct `spec.sandbox`."),
    Reason(
        NAMESPACE_NOT_CONSENTED,
        "The group looks for sandboxes in a namespace that has not consented.",
        "Annotate that Namespace with `sandlane.dev/allow-route-groups-from`.",
    ),
    Reason(IMAGE_PULL_FAILED, "A container's image cannot be had.", "Check the image's name and the pull secrets."),
    Reason(CRASH_LOOP, "A container starts and ends again and again.", "`kubectl logs --previous` of the Pod named."),
    Reason(CONTAINER_FAILED, "A container has ended with an error.", "`kubectl logs` of the Pod named."),
    Reason(CONFIG_MISSING, "A ConfigMap, Secret or key that a container needs does not exist.", "Create it."),
    Reason(UNSCHEDULABLE, "No node can take the Pod.", "The message is the scheduler's."),
    Reason(NOT_PASSING_PROBE, "A container runs, but its readiness probe fails.", "`kubectl describe` the Pod named."),
    Reason(PODS_NOT_READY, "Not all Pods of the fork are ready.", "Wait, or `kubectl describe` the Pods."),
    Reason(
        SERVICE_NOT_ROUTABLE,
        "A Service of the baseline cannot go through the router: headless, ExternalName, without selector, or local"
        " traffic policy. The rest of the sandbox works.",
        "Reach the fork by its own Service, or change the baseline's Service.",
    ),
    Reason(
        SERVICE_CONTESTED,
        "Somebody keeps writing the Service's selector or ports, so it is left to them.",
        "Let the field manager that the message names leave these fields alone.",
    ),
    Reason(
        SERVICE_SHARED,
        "One Service leads to several workloads that the sandbox replaces. Its requests go to the first one in the spec;"
        " the rest of the sandbox works.",
        "Replace one of them in a sandbox, or reach the others by their own Services.",
    ),
    Reason(ROUTER_UNAVAILABLE, "No router serves the namespace yet.", "`kubectl get pods -l sandlane.dev/router`."),
    Reason(
        ROUTES_REJECTED, "A router refused the routes and keeps the last good ones.", "The message is the router's."
    ),
    Reason(
        POLICY_BLOCKS_TRAFFIC,
        "A NetworkPolicy would cut off the fork or its router.",
        "Allow the traffic that the message names.",
    ),
    Reason(ROUTES_DRAINING, "Routers still serve routes that are going away.", "Wait."),
    Reason(
        CONFLICTING_SANDBOXES,
        "Matched sandboxes replace the same workload; the oldest keeps the route.",
        "Narrow the group's match, or delete a sandbox.",
    ),
    Reason(NO_MATCHED_SANDBOXES, "No sandbox matches yet."),
    Reason(SANDBOXES_NOT_READY, "A matched sandbox is not ready.", "See that sandbox."),
    Reason(CONNECTED, "A laptop is connected."),
    Reason(NOT_CONNECTED, "No laptop is connected.", "`sandlane connect`."),
)
"""All reasons by name."""

EVENTS = {
    "Created": "An object was made for it.",
    "Updated": "An object of it was changed.",
    "Deleted": "An object of it was deleted.",
    "SandboxReady": "A sandbox became ready.",
    "SandboxNotReady": "A ready sandbox is not ready any more.",
    "RoutesProgrammed": "Every ready router serves its routes.",
    "RoutesRemoved": "No router serves its routes any more.",
    "Expiring": "It will be deleted soon.",
    "Expired": "Its time is over: it is deleted.",
    "Connected": "A laptop has connected.",
    "Disconnected": "No laptop is connected any more.",
    "Conflict": "Two matched sandboxes replace the same workload.",
    "DriftCorrected": "Somebody changed or deleted an object of it; it was put back.",
    "Refused": "What it asks for is refused.",
}
"""Reasons of Events, and when they are recorded."""


def explained(reason: str, message: str) -> str:
    """A condition's message: what is at fault, then the next step, if there is one."""
    known = REASONS.get(reason)
    step = known.next_step if known else ""
    return f"{message.rstrip('.')}. {step}" if step and message else message or step


def as_markdown() -> str:
    """The page of documentation."""
    rows = [f"| `{r.name}` | {r.cause} | {r.next_step} |" for r in sorted(REASONS.values(), key=lambda r: r.name)]
    events = [f"| `{name}` | {text} |" for name, text in sorted(EVENTS.items())]
    head = ["# Reasons", "", "Conditions, Events, refusals and the command line use these words.", ""]
    return "\n".join(
        [*head, "| reason | cause | next step |", "|---|---|---|", *rows, ""]
        + ["## Events", "", "| reason | when |", "|---|---|", *events, ""]
    )
