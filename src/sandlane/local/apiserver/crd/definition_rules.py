"""What a CustomResourceDefinition must be: its defaults, and its faults."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from sandlane.kube.patch.values import equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.cel.regexes import RegexError, compiled
from sandlane.local.apiserver.crd.formats import KNOWN_FORMATS
from sandlane.local.apiserver.crd.rule_checks import Place, Rules
from sandlane.local.apiserver.crd.structure_rules import INCOMPLETE, check_node
from sandlane.local.apiserver.crd.validation import validate
from sandlane.local.apiserver.crd.version_rules import check_names, check_versions
from sandlane.local.apiserver.kinds.admission import check_webhook_url
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError, go_struct
from sandlane.local.apiserver.kinds.names import subdomain
from sandlane.local.apiserver.schema import Schema


def default_definition(obj: Object) -> None:
    """Names, list kind and conversion that were not given."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names["singular"] = names.get("singular") or names["kind"].lower()
        names["listKind"] = names.get("listKind") or names["kind"] + "List"
    spec.setdefault("conversion", {}).setdefault("strategy", "None")
    if spec["conversion"]["strategy"] == "Webhook":
        client = (spec["conversion"].get("webhook") or {}).get("clientConfig") or {}
        if "service" in client:
            client["service"].setdefault("port", 443)


def check_definition(faults: Faults, obj: Object, *, updating: bool = False) -> None:
    """Name, versions and schemas."""
    spec = obj["spec"]
    names, group = spec.get("names") or {}, spec.get("group", "")
    wanted = f"{names.get('plural', '')}.{group}"
    name = obj["metadata"].get("name", "")
    if name != wanted and not updating:
        faults.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if not group:
        faults.required("spec.group")
    elif "." not in group and not subdomain(group):
        faults.invalid("spec.group", group, "should be a domain with at least one dot")
    faults.one_of("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"), required=True)
    for field in ("plural", "singular", "kind", "listKind"):
        if not names.get(field):
            faults.required(f"spec.names.{field}")
    check_names(faults, obj)
    versions = spec.get("versions") or []
    storing = [version["name"] for version in versions if version.get("storage")]
    if len(storing) != 1:
        faults.invalid("spec.versions", _versions(versions), "must have exactly one version marked as storage version")
        if not storing and not updating:
            faults.invalid("status.storedVersions", None, "must have at least one stored version")
        elif len(storing) > 1 and not updating:
            faults.invalid("status.storedVersions", storing, "must have exactly one stored version")
    check_versions(faults, spec)
    _check_conversion(faults, spec)
    faults.errors += _schema_faults(msgspec.json.encode(versions))


@lru_cache(maxsize=32)
def _schema_faults(encoded: bytes) -> tuple[FieldError, ...]:
    """The faults of all versions' schemas. Definitions are written again more often than their schemas change."""
    faults, versions = Faults(), msgspec.json.decode(encoded)
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in versions]
    shared = all(schema == schemas[0] for schema in schemas)  # upstream then checks it once, in another place
    for index, schema in enumerate(schemas):
        at = f"spec.versions[{index}].schema.openAPIV3Schema"
        if schema is None:
            faults.required(at)
            continue
        if shared:
            if index:
                break
            at = "spec.validation.openAPIV3Schema"
        if schema.get("type") != "object":
            faults.invalid(f"{at}.type", schema.get("type", ""), "must be object at the root") if schema.get(
                "type"
            ) else faults.required(f"{at}.type", "must not be empty at the root")
        rules = Rules(faults)
        _check_schema(faults, schema, at, rules, Place(), root=True)
        rules.finish(at)
    others = [error for error in faults.errors if not error.detail.startswith(INCOMPLETE)]
    return tuple(others or faults.errors)  # what is missing is looked at once the rest is right


def _check_conversion(faults: Faults, spec: Object) -> None:
    """The way between versions, with the names of fields that upstream's faults have."""
    conversion, at = spec.get("conversion") or {}, "spec.conversion"
    strategy, webhook = conversion.get("strategy"), conversion.get("webhook")
    if strategy != "Webhook":
        faults.one_of(f"{at}.strategy", strategy, ("None", "Webhook"), required=True)
        if webhook is not None:
            faults.forbidden(f"{at}.webhookClientConfig", "should not be set when strategy is not set to Webhook")
        return
    if spec.get("preserveUnknownFields"):
        faults.invalid(f"{at}.strategy", strategy, "must be None if spec.preserveUnknownFields is true")
    client = (webhook or {}).get("clientConfig")
    if client is None:
        faults.required(f"{at}.webhookClientConfig", "required when strategy is set to Webhook")
    else:
        _check_client(faults, client, f"{at}.webhookClientConfig")
    versions = (webhook or {}).get("conversionReviewVersions") or []
    if not versions:
        faults.required(f"{at}.conversionReviewVersions")
    elif not {"v1", "v1beta1"} & set(versions):
        faults.invalid(f"{at}.conversionReviewVersions", versions, "must include at least one of v1, v1beta1")


def _check_client(faults: Faults, client: Object, at: str) -> None:
    """Either a URL over TLS or a Service."""
    if ("url" in client) == ("service" in client):
        faults.required(at, "exactly one of url or service is required")
        return
    if "url" in client:
        check_webhook_url(faults, client["url"], f"{at}.url")
        return
    service = client["service"]
    for field in ("name", "namespace"):
        if not service.get(field):
            faults.required(f"{at}.service.{field}", f"service {field} is required")
    if not 0 < service.get("port", 443) < 65536:
        faults.invalid(
            f"{at}.service.port", service["port"], "port is not valid: must be between 1 and 65535, inclusive"
        )


def _versions(versions: list[Object]) -> Any:
    """As upstream shows them: what they may have in common is kept beside them."""
    fields = "name served storage deprecated deprecationWarning schema subresources additionalPrinterColumns selectableFields"
    shown = []
    for version in versions:
        bare = {key: version[key] for key in ("name", "deprecationWarning") if key in version}
        flags = {key: bool(version.get(key)) for key in ("served", "storage", "deprecated")}
        shown.append(go_struct(bare | flags, fields))
    return shown


def _check_schema(faults: Faults, raw: Any, at: str, rules: Rules, place: Place, *, root: bool = False) -> None:
    """A schema and all that is below it."""
    if not isinstance(raw, dict):
        return
    check_node(faults, raw, at, root=root, item=at.endswith(".items"))
    rules.check(raw, at, place, root=root)
    if raw.get("default") is not None:
        found = validate(raw["default"], Schema(raw), f"{at}.default")
        faults.errors += [replace(error, detail=error.detail.removeprefix(f"{at}.default")) for error in found]
    if "pattern" in raw:
        try:
            compiled(raw["pattern"])
        except RegexError as error:
            faults.invalid(f"{at}.pattern", raw["pattern"], f"must be a valid regular expression, but isn't: {error}")
    for name, child in (raw.get("properties") or {}).items():
        if root and name == "metadata":
            continue
        _check_schema(faults, child, f"{at}.properties[{name}]", rules, place)
    if isinstance(raw.get("items"), dict):
        _check_schema(faults, raw["items"], f"{at}.items", rules, place.below(raw, at))
    if isinstance(raw.get("additionalProperties"), dict):
        _check_schema(faults, raw["additionalProperties"], f"{at}.additionalProperties", rules, place.below(raw, at))


def check_update(faults: Faults, new: Object, old: Object) -> None:
    """What of a definition cannot change."""
    for field in ("group", "scope"):
        faults.immutable(f"spec.{field}", new["spec"].get(field), same=new["spec"].get(field) == old["spec"].get(field))
    for field in ("plural", "kind"):
        value = new["spec"]["names"].get(field)
        faults.immutable(f"spec.names.{field}", value, same=value == old["spec"]["names"].get(field))
    if equal_json(new["spec"], old["spec"]):
        return
    stored = (old.get("status") or {}).get("storedVersions") or ()
    names = [version["name"] for version in new["spec"].get("versions") or ()]
    for index, name in enumerate(stored):
        if name not in names:
            detail = f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            faults.errors.append(FieldError("FieldValueInvalid", f"status.storedVersions[{index}]", name, detail))


def unknown_formats(obj: Object) -> list[str]:
    """A warning for each format of a schema that nobody checks."""
    found: list[str] = []

    def look(raw: Any) -> None:
        if isinstance(raw, dict):
            if isinstance(raw.get("type"), str) and isinstance(raw.get("format"), str):
                found.append(raw["format"])
            for key, below in raw.items():
                if key not in ("default", "enum", "example"):
                    look(below)
        elif isinstance(raw, list):
            for each in raw:
                look(each)

    for version in obj["spec"].get("versions") or ():
        look((version.get("schema") or {}).get("openAPIV3Schema"))
    unknown = [each for each in dict.fromkeys(found) if each and each not in KNOWN_FORMATS]
    return [f'unrecognized format "{each}"' for each in unknown]
