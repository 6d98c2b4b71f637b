"""What a manager asked of the API server, by its metrics, and what roles would allow it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterable
from typing import Any, NamedTuple

ROW = re.compile(
    r'^rest_client_requests_total\{code="([^"]*)",method="[^"]*",resource="([^"]*)",verb="([^"]*)"\} [1-9]',
    re.MULTILINE,
)
NEVER_LISTED = {"leases"}
"""What is watched by name without a list before it."""


class Asked(NamedTuple):
    """A verb on a resource, and how it was answered."""

    verb: str
    resource: str
    code: str


def asked(address: str) -> set[Asked]:
    """All requests so far of the manager whose metrics are served at `host:port`."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {Asked(verb, resource, code) for code, resource, verb in ROW.findall(text)}


def used(requests: Iterable[Asked]) -> set[tuple[str, str]]:
    """The rights that were made use of: applying what was not there yet needs `create` as well, and a server that does
    not stream lists is asked for them before they are watched."""
    requests = list(requests)
    made = {("create", each.resource) for each in requests if each.verb == "patch" and each.code == "201"}
    listed = {
        ("list", each.resource) for each in requests if each.verb == "watch" and each.resource not in NEVER_LISTED
    }
    return {(each.verb, each.resource) for each in requests} | made | listed


def granted(roles: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    """Every verb and resource that roles name."""
    rules = [rule for role in roles for rule in role["rules"]]
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
