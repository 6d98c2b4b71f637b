"""The bytes of a resource are its version: they may not differ between managers."""

from __future__ import annotations

from envoy.config.listener.v3 import listener_pb2

from sandlane.routing.envoy.encode import EXTENSION, encoded


def test_maps_are_in_order_however_deep_they_are() -> None:
    """A map in a message that is packed in a packed message has its keys in order, not in that of this process."""
    keys = [f"key-{n:02}" for n in range(20)]
    log = {
        "name": "log",
        "typed_config": {
            "@type": EXTENSION + "access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": dict.fromkeys(reversed(keys), "x")},
        },
    }
    manager = {
        "@type": EXTENSION + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "access_log": [log],
    }
    chain = {"filters": [{"name": "manager", "typed_config": manager}]}
    data = encoded({"name": "l", "filter_chains": [chain]}, listener_pb2.Listener())
    assert sorted(keys, key=lambda key: data.index(key.encode())) == keys
