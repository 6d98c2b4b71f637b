"""The CustomResourceDefinitions, made from the types: structural schemas, CEL rules, printer columns. Pure.

`tools/generate.py` writes them to `deploy/crds`; whoever installs them from Python calls `definitions`.
"""

from __future__ import annotations

import types as python_types
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from sandlane.api import types as t
from sandlane.api.fields import FIELDS, Facts
from sandlane.api.limits import MAX_SANDBOX_NAME

Schema = dict[str, Any]
NESTED_MATCHES = 3
_SCALARS: dict[Any, Schema] = {str: {"type": "string"}, int: {"type": "integer"}, bool: {"type": "boolean"}}
_SINCE = ("creation", "lastUpdate")
ABOUT = {
    "Sandbox": "Which workloads of a shared environment differ, and how, for requests that carry its routing key.",
    "RouteGroup": "Joins the forks and local workloads of several sandboxes under one routing key.",
    "LocalWorkload": "A process on a laptop that stands in for a workload, for requests of one sandbox.",
}


def definitions() -> list[Schema]:
    """The CRDs of Sandbox, RouteGroup and LocalWorkload, as objects to apply."""
    return [sandbox(), route_group(), local_workload()]


def sandbox() -> Schema:
    """The CRD of Sandbox."""
    short_name = _rule(
        f"self.metadata.name.size() <= {MAX_SANDBOX_NAME}",
        f"the name of a Sandbox has at most {MAX_SANDBOX_NAME} characters",
        "FieldValueInvalid",  # one of the four that a definition may give
    )
    columns = [
        _condition("Ready"),
        _column("Phase", ".status.phase"),
        _column("Routing key", ".status.routingKey"),
        _AGE,
        _column("Expires", ".status.expiresAt"),
        _wide("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        _wide("Message", '.status.conditions[?(@.type=="Ready")].message'),
        _wide("Description", ".spec.description"),
    ]
    return _definition("Sandbox", "sandboxes", "sbx", t.SandboxSpec, t.SandboxStatus, columns, rules=[short_name])


def route_group() -> Schema:
    """The CRD of RouteGroup."""
    columns = [
        _condition("Ready"),
        _column("Phase", ".status.phase"),
        _column("Routing key", ".status.routingKey"),
        _column("Routes", ".status.routeCount", "integer"),
        _AGE,
        _column("Expires", ".status.expiresAt"),
        _wide("Conflicted", '.status.conditions[?(@.type=="Conflicted")].status'),
        _wide("Message", '.status.conditions[?(@.type=="Ready")].message'),
    ]
    crd = _definition("RouteGroup", "routegroups", "rtg", t.RouteGroupSpec, t.RouteGroupStatus, columns)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["required"] = ["spec"]
    return crd


def local_workload() -> Schema:
    """The CRD of LocalWorkload."""
    columns = [
        _condition("Ready"),
        _column("Phase", ".status.phase"),
        _column("Sandbox", ".spec.sandbox"),
        _column("From", ".spec.from.name"),
        _column("Client", ".status.connection.client"),
        _AGE,
        _wide("Message", '.status.conditions[?(@.type=="Ready")].message'),
    ]
    crd = _definition("LocalWorkload", "localworkloads", "lwl", t.LocalWorkloadSpec, t.LocalWorkloadStatus, columns)
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["required"] = ["spec"]
    return crd


# -- rules --------------------------------------------------------------------------------------------------


def _rule(rule: str, message: str, reason: str = "FieldValueInvalid", path: str = "") -> Schema:
    made = {"rule": rule, "message": message, "reason": reason}
    return made | ({"fieldPath": path} if path else {})


def _one_of(*names: str) -> str:
    return f"[{', '.join(f'has(self.{name})' for name in names)}].filter(x, x).size() == 1"


_ONE_MATCH = _rule(_one_of("any", "all", "label"), "exactly one of any, all, label is needed")
_FIXED_KEY = _rule(
    "(has(self.routingKey) ? self.routingKey : '') == (has(oldSelf.routingKey) ? oldSelf.routingKey : '')",
    "routingKey cannot be changed: make another object",
    path=".routingKey",
)
RULES: dict[type, list[Schema]] = {
    t.SandboxSpec: [
        _FIXED_KEY,
        _rule(
            "!has(self.forks) || self.forks.all(f, self.forks.exists_one(g, g.forkOf.name == f.forkOf.name))",
            "a workload can be forked once in a sandbox",
            "FieldValueDuplicate",
            ".forks",
        ),
        _rule(
            "!has(self.local) || self.local.all(l, self.local.exists_one(m, m.from.name == l.from.name)"
            " && (!has(self.forks) || !self.forks.exists(f, f.forkOf.name == l.from.name)))",
            "a workload can be replaced once in a sandbox, by a fork or by a laptop",
            "FieldValueDuplicate",
            ".local",
        ),
        _rule(
            "!has(self.forks) || !has(oldSelf.forks) || size(self.forks) != size(oldSelf.forks)"
            " || self.forks.all(f, oldSelf.forks.exists(o, o.forkOf.name == f.forkOf.name))",
            "forkOf cannot be changed: remove the fork, then add another one",
            path=".forks",
        ),
    ],
    t.RouteGroupSpec: [_FIXED_KEY],
    t.EnvOverride: [
        _rule(
            "self.operation == 'delete' ? !has(self.value) && !has(self.valueFrom)"
            " : has(self.value) != has(self.valueFrom)",
            "upsert needs exactly one of value and valueFrom, delete needs neither",
        )
    ],
    t.EnvSource: [
        _rule(
            _one_of("secretKeyRef", "configMapKeyRef", "fieldRef", "fork"),
            "exactly one of secretKeyRef, configMapKeyRef, fieldRef, fork is needed",
        )
    ],
    t.Endpoint: [_rule("!self.name.contains('--')", "an endpoint's name cannot contain --", path=".name")],
    t.Local: [_rule("self.from == oldSelf.from", "from cannot be changed: add another one", path=".from")],
    t.LocalWorkloadSpec: [
        _rule("self.sandbox == oldSelf.sandbox", "sandbox cannot be changed", path=".sandbox"),
        _rule("self.from == oldSelf.from", "from cannot be changed", path=".from"),
    ],
}


# -- the walk over the types --------------------------------------------------------------------------------


def _definition(
    kind: str,
    plural: str,
    short: str,
    spec: type[msgspec.Struct],
    status: type[msgspec.Struct],
    columns: list[Schema],
    rules: list[Schema] | None = None,
) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": ABOUT[kind],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _struct(spec, since=(*_SINCE, "noMatchedSandboxes") if kind == "RouteGroup" else _SINCE),
            "status": _struct(status, status=True),
        },
    }
    if rules:
        schema["x-kubernetes-validations"] = rules
    version = {
        "name": t.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": ["sandlane"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{t.GROUP}", "labels": {"app.kubernetes.io/part-of": "sandlane"}},
        "spec": {"group": t.GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _struct(
    cls: type[msgspec.Struct], *, since: tuple[str, ...] = _SINCE, status: bool = False, depth: int = NESTED_MATCHES
) -> Schema:
    facts = FIELDS[cls]
    hints = get_type_hints(cls)
    properties: dict[str, Schema] = {}
    required = []
    names = set()
    for field in msgspec.structs.fields(cls):
        name = field.encode_name
        names.add(name)
        if cls is t.Match and name != "label" and depth == 1:
            continue
        schema = _type(hints[field.name], facts[name], since, status, depth)
        if field.required:
            required.append(name)
        elif not status and (default := _default(field.default)) is not None:
            schema["default"] = default
        properties[name] = schema
    if names != facts.keys():
        raise ValueError(f"{cls.__name__}: fields.py and types.py differ in {sorted(names ^ facts.keys())}")
    if cls is t.Ttl:
        properties["from"]["enum"] = list(since)
    made: Schema = {"type": "object", "properties": properties}
    if required:
        made["required"] = required
    if cls is t.Match:
        rule = _ONE_MATCH if depth > 1 else _rule("has(self.label)", "a label is needed at this depth")
        made["x-kubernetes-validations"] = [rule]
    elif cls in RULES:
        made["x-kubernetes-validations"] = RULES[cls]
    return made


def _type(hint: Any, facts: Facts, since: tuple[str, ...], status: bool, depth: int) -> Schema:
    """The schema of a field; its facts win over what the type says."""
    facts = dict(facts)
    if facts.pop("intOrString", False):
        return facts | {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    options = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) in (Union, python_types.UnionType) and len(options) == 1:
        hint = options[0]
    made: Schema
    if "properties" in facts or ("type" in facts and facts["type"] is None):
        made = {}
    elif hint in _SCALARS:
        made = dict(_SCALARS[hint])
    elif get_origin(hint) is tuple:
        item = get_args(hint)[0]
        made = {
            "type": "array",
            "items": facts.get("items") or _type(item, {}, since, status, depth - (item is t.Match)),
        }
    elif isinstance(hint, type) and issubclass(hint, StrEnum):
        made = {"type": "string", "enum": [each.value for each in hint]}
    elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        made = _struct(hint, since=since, status=status, depth=depth)
    else:
        raise TypeError(f"no schema for {hint}")
    return {key: value for key, value in (made | facts).items() if value is not None}


def _default(value: Any) -> Any:
    """A default that is worth writing into the schema."""
    if value is msgspec.NODEFAULT or value is None or value == "" or value == () or isinstance(value, msgspec.Struct):
        return None
    return value.value if isinstance(value, StrEnum) else value


# -- printer columns ----------------------------------------------------------------------------------------


def _column(name: str, path: str, kind: str = "string") -> Schema:
    return {"name": name, "type": kind, "jsonPath": path}


def _wide(name: str, path: str, kind: str = "string") -> Schema:
    return _column(name, path, kind) | {"priority": 1}


def _condition(kind: str) -> Schema:
    return _column(kind, f'.status.conditions[?(@.type=="{kind}")].status')


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
