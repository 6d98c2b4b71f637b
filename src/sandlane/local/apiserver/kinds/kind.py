"""One row of the table of built-in kinds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sandlane.kube.resource import Object, Resource
from sandlane.local.apiserver.kinds.strategy import BuiltinStrategy, Rules
from sandlane.local.apiserver.schema import Schema, definition_names

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_EDIT = ("get", "patch", "update")


class Subresource(msgspec.Struct, frozen=True):
    """A subresource as discovery shows it; kind and group version are empty where they are the resource's own."""

    name: str
    verbs: tuple[str, ...] = _EDIT
    kind: str = ""
    group: str = ""
    version: str = ""


class Kind(msgspec.Struct, frozen=True):
    """One row. `storage` is the resource whose objects these are, where it is not the kind itself."""

    resource: Resource
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    rules: Rules = Rules()
    singular: str = ""
    storage: Resource | None = None
    from_storage: Callable[[Object], Object] | None = None
    to_storage: Callable[[Object], Object] | None = None

    @property
    def definition(self) -> str:
        """The name of its OpenAPI definition."""
        return definition_names()[self.resource.group, self.resource.version, self.resource.kind]

    @property
    def schema(self) -> Schema:
        """Its schema."""
        return Schema.builtin(self.definition)

    @property
    def strategy(self) -> BuiltinStrategy:
        """What the write pipeline asks of it."""
        return BuiltinStrategy(self.definition, self.resource.api_version, self.resource.kind, self.rules)


STATUS = Subresource("status")
SCALE = Subresource("scale", kind="Scale", group="autoscaling", version="v1")


def kind_row(
    api_version: str,
    kind: str,
    plural: str,
    *short_names: str,
    cluster: bool = False,
    all_: bool = False,
    extensions: bool = False,
    status: bool = False,
    subresources: tuple[Subresource, ...] = (),
    verbs: tuple[str, ...] = ALL_VERBS,
    rules: Rules | None = None,
    singular: str = "",
    storage: Resource | None = None,
    from_storage: Callable[[Object], Object] | None = None,
    to_storage: Callable[[Object], Object] | None = None,
) -> Kind:
    group, _, version = api_version.rpartition("/")
    if status or (rules is not None and rules.status):
        subresources = tuple(sorted((*subresources, STATUS), key=lambda each: each.name))
    return Kind(
        resource=Resource(group, version, plural, kind, namespaced=not cluster),
        short_names=short_names,
        categories=("all",) if all_ else ("api-extensions",) if extensions else (),
        verbs=verbs,
        subresources=subresources,
        rules=rules or Rules(status=status),
        singular=singular or kind.lower(),
        storage=storage,
        from_storage=from_storage,
        to_storage=to_storage,
    )


def connect(name: str, kind: str, verbs: tuple[str, ...] = ("create", "get")) -> Subresource:
    """A subresource that connects to something and speaks options of a kind."""
    return Subresource(name, verbs, kind)


PROXY_VERBS = ("create", "delete", "get", "patch", "update")
POD_SUBRESOURCES = (
    connect("attach", "PodAttachOptions"),
    connect("binding", "Binding", ("create",)),
    Subresource("ephemeralcontainers"),
    Subresource("eviction", ("create",), "Eviction", "policy", "v1"),
    connect("exec", "PodExecOptions"),
    Subresource("log", ("get",)),
    connect("portforward", "PodPortForwardOptions"),
    connect("proxy", "PodProxyOptions", PROXY_VERBS),
    Subresource("resize"),
)
