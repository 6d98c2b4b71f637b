"""Discovery says in which version objects are kept."""

from __future__ import annotations

from sandlane.local.apiserver import discovery
from sandlane.local.apiserver.registry import Registry


def test_storage_version_hash() -> None:
    """Each resource with objects has the hash that upstream gives to its stored version; one that is only answered has none."""
    listed = discovery.resource_list(Registry(), "", "v1")
    assert listed is not None
    hashes = {each["name"]: each.get("storageVersionHash") for each in listed["resources"]}
    assert hashes["configmaps"] == "qFsyl6wFWjQ="
    assert hashes["endpoints"] == "fWeeMqaN/OA="
    assert hashes["bindings"] is None
    assert hashes["pods/status"] is None
