"""Labels and annotations that others rely on, and the label selectors made of them."""

from __future__ import annotations

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "sandlane"
SANDBOX = "sandlane.dev/sandbox"
FORK_OF = "sandlane.dev/fork-of"
FORK = "sandlane.dev/fork"
"""On a fork's Pods: the fork's own unique name, and the only label in its selectors."""
ROUTER = "sandlane.dev/router"
ROUTER_PODS = {MANAGED_BY: MANAGER, ROUTER: "true"}
"""Labels of a router's Pods."""
TUNNEL = "sandlane.dev/tunnel"
"""On the Pods of the tunnel servers."""
PLAN = "sandlane.dev/plan"
"""Annotation of what a sandbox owns: a hash of how we want it, so that drift can be told from a new plan."""

ROUTING = "sandlane.dev/routing"
"""On a Service: on-demand (default) | always | never."""
EDGE = "sandlane.dev/edge"
"""On a Service: none (default) | strip, which takes routing keys off its requests, because they come from outside."""
ORIGINAL = "sandlane.dev/original"
"""On a turned Service: the fields of `spec` as its owner wrote them, as a JSON object."""
REQUESTED_BY = "sandlane.dev/requested-by"
"""On our kinds: who asked for it. Only the webhook sets it."""
UNTIL_DISCONNECT = "sandlane.dev/until-disconnect"
"""Annotation of what `sandlane connect` has made and removes at its end, or another client that has taken over does."""
ALLOW_ROUTE_GROUPS = "sandlane.dev/allow-route-groups-from"
"""On a Namespace: names of namespaces (comma-separated, `*` for all) whose RouteGroups may match its sandboxes."""

MANAGED_SELECTOR = f"{MANAGED_BY}={MANAGER}"
