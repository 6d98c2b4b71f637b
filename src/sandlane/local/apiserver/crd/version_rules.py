"""What the names and versions of a CustomResourceDefinition must be, beside their schemas. Pure."""

from __future__ import annotations

import re
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.kinds.names import dns1035_label, subdomain

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SIMPLE_PATH = re.compile(r"(\.[A-Za-z_][\w-]*)+")
_SELECTABLE = ("string", "integer", "boolean")
MOST_SELECTABLE = 8
_APPROVED = "api-approved.kubernetes.io"
_PROTECTED = (".k8s.io", ".kubernetes.io")


def check_names(faults: Faults, obj: Object) -> None:
    """Group and names."""
    spec = obj["spec"]
    names, group = spec.get("names") or {}, spec.get("group", "")
    for detail in subdomain(group) if group else ():
        faults.invalid("spec.group", group, detail)
    annotations = obj["metadata"].get("annotations") or {}
    if f".{group}".endswith(_PROTECTED) and not annotations.get(_APPROVED):
        why = f'protected groups must have approval annotation "{_APPROVED}", see https://github.com/kubernetes/enhancements/pull/1111'
        faults.required(f"metadata.annotations[{_APPROVED}]", why)
    for field in ("plural", "singular"):
        for detail in dns1035_label(names[field]) if names.get(field) else ():
            faults.invalid(f"spec.names.{field}", names[field], detail)
    for field in ("kind", "listKind"):
        for detail in dns1035_label(names[field].lower()) if names.get(field) else ():
            why = f"may have mixed case, but should otherwise match: {detail}"
            faults.invalid(f"spec.names.{field}", names[field], why)
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        faults.invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same")
    for field in ("shortNames", "categories"):
        for index, name in enumerate(names.get(field) or ()):
            for detail in dns1035_label(name):
                faults.invalid(f"spec.names.{field}[{index}]", name, detail)


def check_versions(faults: Faults, spec: Object) -> None:
    """Versions without their schemas: names, columns, subresources, fields to select by."""
    versions = spec.get("versions") or []
    if spec.get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        faults.invalid("spec.preserveUnknownFields", True, why)
    seen = [version.get("name", "") for version in versions]
    if len(set(seen)) < len(seen):
        faults.invalid("spec.versions", seen, "must contain unique version names")
    for index, version in enumerate(versions):
        at, name = f"spec.versions[{index}]", version.get("name", "")
        for detail in dns1035_label(name):
            faults.invalid(f"{at}.name", name, detail)
        if version.get("deprecationWarning") and not version.get("deprecated"):
            text = "can only be set for deprecated versions"
            faults.invalid(f"{at}.deprecationWarning", version["deprecationWarning"], text)
    for detail in dns1035_label(seen[0]) if seen else ():
        faults.invalid("spec.version", seen[0], detail)
    for field, check in _CHECKS.items():
        shared = all(version.get(field) == versions[0].get(field) for version in versions)
        for index, version in enumerate(versions[:1] if shared else versions):  # upstream keeps once what all share
            check(faults, version, f"spec.{field}" if shared else f"spec.versions[{index}].{field}")


def _check_columns(faults: Faults, version: Object, at: str) -> None:
    for place, column in enumerate(version.get("additionalPrinterColumns") or ()):
        _check_column(faults, column, f"{at}[{place}]")


def _check_subresources(faults: Faults, version: Object, at: str) -> None:
    _check_scale(faults, (version.get("subresources") or {}).get("scale"), f"{at}.scale")


def _check_fields(faults: Faults, version: Object, at: str) -> None:
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    _check_selectable(faults, version.get("selectableFields") or (), schema, at)


_CHECKS = {
    "additionalPrinterColumns": _check_columns,
    "subresources": _check_subresources,
    "selectableFields": _check_fields,
}


def _check_column(faults: Faults, column: Object, at: str) -> None:
    if not column.get("name"):
        faults.required(f"{at}.name")
    if not column.get("type"):
        faults.required(f"{at}.type", f"must be one of {','.join(_COLUMN_TYPES)}")
    elif column["type"] not in _COLUMN_TYPES:
        faults.invalid(f"{at}.type", column["type"], f"must be one of {','.join(_COLUMN_TYPES)}")
    if column.get("format") and column["format"] not in _COLUMN_FORMATS:
        faults.invalid(f"{at}.format", column["format"], f"must be one of {','.join(_COLUMN_FORMATS)}")
    path = column.get("jsonPath")
    if not path:
        faults.required(f"{at}.JSONPath")
        return
    if not path.startswith("."):
        faults.invalid(f"{at}.JSONPath", path, "must be a simple json path starting with .")


def _check_scale(faults: Faults, scale: Object | None, at: str) -> None:
    if scale is None:
        return
    for field, under in (("specReplicasPath", (".spec.",)), ("statusReplicasPath", (".status.",)), ("labelSelectorPath", (".spec.", ".status."))):  # fmt: skip
        path = scale.get(field) or ""
        if not path:
            if field != "labelSelectorPath":
                faults.required(f"{at}.{field}")
        elif not path.startswith("."):
            faults.invalid(f"{at}.{field}", path, "must be a simple json path starting with .")
        elif not _SIMPLE_PATH.fullmatch(path) or not path.startswith(under):
            where = " or ".join(each.rstrip(".") for each in under)
            faults.invalid(f"{at}.{field}", path, f"should be a json path under {where}")


def _check_selectable(faults: Faults, fields: Any, schema: Object, at: str) -> None:
    seen: set[str] = set()
    if len(fields) > MOST_SELECTABLE:
        detail = f"must have at most {MOST_SELECTABLE} items"
        faults.errors.append(FieldError("FieldValueTooMany", at, len(fields), detail))
    for index, field in enumerate(fields):
        path, where = field.get("jsonPath") or "", f"{at}[{index}].jsonPath"
        if not path:
            faults.required(where)
        elif path in seen:
            faults.duplicate(where, path)
        elif not _SIMPLE_PATH.fullmatch(path):
            faults.invalid(where, path, "is an invalid path: only simple paths of fields are supported")
        elif path.startswith(".metadata"):
            faults.invalid(where, path, "must not point to fields in metadata")
        else:
            node: Any = schema
            for name in path[1:].split("."):
                node = (node.get("properties") or {}).get(name) or {}
            if node.get("type") not in _SELECTABLE:
                why = "is an invalid path: does not refer to a valid field"
                if node:
                    why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."
                faults.invalid(where, path, why)
        seen.add(path)
