"""Where a router answers the digest of the table that it serves: the proof that it serves it. And what it refuses. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import msgspec

from sandlane.routing.envoy.delta import MARK, Refusal
from sandlane.routing.envoy.encode import ADS, EXTENSION, Config, socket
from sandlane.routing.names import READY_PORT

DIGEST = MARK
REFUSES_HEADER = "x-sandlane-refuses"
"""In the answers of a router that refuses something: `Refuses` as JSON."""
_MOST, _LONGEST = 16, 500


class Refuses(msgspec.Struct, frozen=True):
    """What a router refuses. `but_for`: the digest of the table that it has but for that; empty while something is under way."""

    but_for: str = ""
    refusals: tuple[Refusal, ...] = ()


NOTHING = Refuses()


def told(refuses: Refuses) -> str:
    """In the form of a header's value: of many refusals the first ones, of long reasons their beginnings."""
    short = [dataclasses.replace(each, error=each.error[:_LONGEST]) for each in refuses.refusals[:_MOST]]
    return json.dumps(msgspec.to_builtins(msgspec.structs.replace(refuses, refusals=tuple(short))))


def heard(value: str) -> Refuses:
    """The other way round; nothing where the text is not of this form."""
    try:
        return msgspec.json.decode(value, type=Refuses) if value else NOTHING
    except msgspec.MsgspecError:
        return NOTHING


def digest_listener(address: str, refuses: Refuses = NOTHING) -> Config:
    """The listener at `READY_PORT`. It says what the router refuses, too, which only the manager hears that it is connected to."""
    manager = {
        "@type": EXTENSION + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "digest",
        "rds": {"route_config_name": DIGEST, "config_source": ADS},
        "http_filters": [
            *(_says(refuses) if refuses.refusals else ()),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": EXTENSION + "filters.http.router.v3.Router"},
            },
        ],
    }
    return {
        "name": DIGEST,
        "address": socket(address, READY_PORT),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _says(refuses: Refuses) -> Sequence[Config]:
    header = {"key": REFUSES_HEADER, "value": told(refuses).replace("%", "%%")}
    says = {
        "@type": EXTENSION + "filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {
            "response_mutations": [{"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}]
        },
    }
    return ({"name": REFUSES_HEADER, "typed_config": says},)


def digest_routes(digest: str) -> Config:
    """The routes that answer it."""
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": digest}}}
    return {"name": DIGEST, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
