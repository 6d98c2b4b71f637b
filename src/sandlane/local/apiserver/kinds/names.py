"""Rules for names, labels and keys, with the texts of Kubernetes' validation (apimachinery, util/validation)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults

NameRule: TypeAlias = Callable[[str], list[str]]

_ALNUM = "must start and end with an alphanumeric character"
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", re.ASCII)
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", re.ASCII)
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_WILDCARD = re.compile(r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+", re.ASCII)
_PORT_NAME = re.compile(r"[-a-z0-9]+", re.ASCII)
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*|[ -<>-~]+", re.ASCII)

MAX_ANNOTATIONS_BYTES = 256 * 1024


def _max(limit: int) -> str:
    return f"must be no more than {limit} characters"


def _regex(text: str, pattern: re.Pattern[str], *examples: str) -> str:
    shown = "".join((" " if index == 0 else "  or ") + f"'{each}'," for index, each in enumerate(examples))
    return f"{text} (e.g.{shown} regex used for validation is '{pattern.pattern}')"


def dns_label(value: str) -> list[str]:
    """RFC 1123 label."""
    faults = [] if len(value) <= 63 else [_max(63)]
    if not _DNS_LABEL.fullmatch(value):
        text = (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
            "must start and end with an alphanumeric character"
        )
        faults.append(_regex(text, _DNS_LABEL, "my-name", "123-abc"))
    return faults


def subdomain(value: str) -> list[str]:
    """RFC 1123 subdomain: labels joined by dots."""
    faults = [] if len(value) <= 253 else [_max(253)]
    if not _SUBDOMAIN.fullmatch(value):
        text = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
            "must start and end with an alphanumeric character"
        )
        faults.append(_regex(text, _SUBDOMAIN, "example.com"))
    return faults


def dns1035_label(value: str) -> list[str]:
    """RFC 1035 label: it starts with a letter."""
    faults = [] if len(value) <= 63 else [_max(63)]
    if not _DNS_1035.fullmatch(value):
        text = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character"
        )
        faults.append(_regex(text, _DNS_1035, "my-name", "abc-123"))
    return faults


def path_segment(value: str) -> list[str]:
    """A name that may stand in a URL path (RBAC)."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{each}'" for each in ("/", "%") if each in value]


def qualified_name(value: str) -> list[str]:
    """A label or annotation key: an optional DNS prefix and a name part."""
    faults: list[str] = []
    prefix, slash, name = value.rpartition("/")
    if slash and "/" in prefix:
        text = (
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and "
            "must start and end with an alphanumeric character"
        )
        shown = _regex(text, _QUALIFIED, "MyName", "my.name", "123-abc")
        return [f"{shown} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if slash:
        if not prefix:
            faults.append("prefix part must be non-empty")
        else:
            faults += [f"prefix part {each}" for each in subdomain(prefix)]
    if not name:
        faults.append("name part must be non-empty")
    elif len(name) > 63:
        faults.append(f"name part {_max(63)}")
    if not _QUALIFIED.fullmatch(name):
        text = f"must consist of alphanumeric characters, '-', '_' or '.', and {_ALNUM}"
        faults.append("name part " + _regex(text, _QUALIFIED, "MyName", "my.name", "123-abc"))
    return faults


def label_value(value: str) -> list[str]:
    """A label's value."""
    faults = [] if len(value) <= 63 else [_max(63)]
    if not _LABEL_VALUE.fullmatch(value):
        text = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
            "must start and end with an alphanumeric character"
        )
        faults.append(_regex(text, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return faults


def config_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    faults = [] if len(value) <= 253 else [_max(253)]
    if not _CONFIG_KEY.fullmatch(value):
        text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        faults.append(_regex(text, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    if value in (".", ".."):
        faults.append(f"must not be '{value}'")
    elif value.startswith(".."):
        faults.append("must not start with '..'")
    return faults


def env_name(value: str) -> list[str]:
    """The name of an environment variable: printable ASCII but `=`."""
    if _ENV_NAME.fullmatch(value):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def port_name(value: str) -> list[str]:
    """An IANA service name."""
    faults: list[str] = []
    if len(value) > 15:
        faults.append(_max(15))
    if not _PORT_NAME.fullmatch(value):
        faults.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        faults.append("must contain at least one letter (a-z)")
    if "--" in value:
        faults.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        faults.append("must not begin or end with a hyphen")
    return faults


BAD_ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
BAD_RANGE = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def is_address(value: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def is_range(value: str) -> bool:
    """Whether it is a range of IP addresses, with its length."""
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return "/" in value


def wildcard_subdomain(value: str) -> list[str]:
    """A subdomain whose first label is `*`."""
    if _WILDCARD.fullmatch(value):
        return []
    text = (
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
        "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
    )
    return [_regex(text, _WILDCARD, "*.example.com")]


def port_number(value: int) -> list[str]:
    """A port."""
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def check_labels(faults: Faults, labels: Mapping[str, Any] | None, field: str) -> None:
    """Keys and values of labels."""
    for key, value in (labels or {}).items():
        for detail in qualified_name(key):
            faults.invalid(field, key, detail)
        for detail in label_value(value):
            faults.invalid(field, value, detail)


def check_annotations(faults: Faults, annotations: Mapping[str, str] | None, field: str) -> None:
    """Keys of annotations, and the size of them all."""
    total = 0
    for key, value in (annotations or {}).items():
        for detail in qualified_name(key.lower()):
            faults.invalid(field, key, detail)
        total += len(key.encode()) + len(value.encode())
    if total > MAX_ANNOTATIONS_BYTES:
        faults.too_long(field, MAX_ANNOTATIONS_BYTES)


STANDARD_FINALIZERS = ("orphan", "foregroundDeletion", "kubernetes")


def check_metadata(faults: Faults, obj: Object, rule: NameRule, *, custom: bool = False) -> None:
    """`metadata` of a whole object: name, labels, annotations, owners, finalizers (those of custom resources may have plain names)."""
    metadata = obj.get("metadata", {})
    generate = metadata.get("generateName", "")
    if generate:
        for detail in rule(f"{generate.rstrip('-')}" if generate.endswith("-") else generate):
            faults.invalid("metadata.generateName", generate, detail)
    name = metadata.get("name", "")
    if not name:
        faults.required("metadata.name", "name or generateName is required")
    else:
        for detail in rule(name):
            faults.invalid("metadata.name", name, detail)
    check_labels(faults, metadata.get("labels"), "metadata.labels")
    check_annotations(faults, metadata.get("annotations"), "metadata.annotations")
    _check_owners(faults, metadata.get("ownerReferences") or [])
    for index, finalizer in enumerate(metadata.get("finalizers") or []):
        for detail in qualified_name(finalizer):
            faults.invalid("metadata.finalizers", finalizer, detail)
        if not custom:
            check_finalizer(faults, f"metadata.finalizers[{index}]", finalizer)


def check_finalizer(faults: Faults, field: str, finalizer: str) -> None:
    """Either one of Kubernetes' own, or one that says whose it is."""
    if "/" not in finalizer and finalizer not in STANDARD_FINALIZERS:
        faults.invalid(field, finalizer, "name is neither a standard finalizer name nor is it fully qualified")


def _check_owners(faults: Faults, owners: list[Object]) -> None:
    controllers: list[str] = []
    for owner in owners:
        field = "metadata.ownerReferences"
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                if key == "apiVersion":
                    faults.invalid(f"{field}.{key}", "", "version must not be empty")
                else:
                    faults.invalid(f"{field}.{key}", "", "must not be empty")
        if owner.get("controller"):
            controllers.append(f"{owner.get('kind')}/{owner.get('name')}")
    if len(controllers) > 1:
        faults.invalid(
            "metadata.ownerReferences",
            owners,
            "Only one reference can have Controller set to true. "
            f'Found "true" in references for {controllers[0]} and {controllers[1]}',
        )


def check_selector(faults: Faults, selector: Object | None, field: str) -> None:
    """A `metav1.LabelSelector`."""
    selector = selector or {}
    check_labels(faults, selector.get("matchLabels"), f"{field}.matchLabels")
    for index, requirement in enumerate(selector.get("matchExpressions") or []):
        at = f"{field}.matchExpressions[{index}]"
        operator, values = requirement.get("operator", ""), requirement.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                faults.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                faults.forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        else:
            faults.invalid(f"{at}.operator", operator, "not a valid selector operator")
        for detail in qualified_name(requirement.get("key", "")):
            faults.invalid(f"{at}.key", requirement.get("key", ""), detail)
        for place, value in enumerate(values):
            for detail in label_value(value):
                faults.invalid(f"{at}.values[{place}]", value, detail)


def selector_matches(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a `metav1.LabelSelector` selects these labels; an empty one selects all, a missing one none."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for requirement in selector.get("matchExpressions") or []:
        key, values = requirement.get("key"), requirement.get("values") or []
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds.get(requirement.get("operator", ""), False):
            return False
    return True
