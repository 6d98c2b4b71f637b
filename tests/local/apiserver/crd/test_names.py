"""Names of definitions that another has."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.errors import ApiError
from sandlane.kube.resource import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, Resource
from sandlane.testing.cluster import FakeCluster

GROUP = "shapes.example.test"


async def test_names_that_become_free_are_given_to_who_waits() -> None:
    """A definition whose kind another has is served once the other is gone."""

    def kinds(plural: str) -> dict[str, Any]:
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        names = {"plural": plural, "kind": "Box"}
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{GROUP}"},
            "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
        }

    async with FakeCluster() as cluster:

        async def established(plural: str) -> str:
            found = await cluster.client.get(CUSTOM_RESOURCE_DEFINITIONS, f"{plural}.{GROUP}")
            return str(next(c["status"] for c in found["status"]["conditions"] if c["type"] == "Established"))

        await cluster.client.create(CUSTOM_RESOURCE_DEFINITIONS, kinds("boxes"))
        await cluster.client.create(CUSTOM_RESOURCE_DEFINITIONS, kinds("crates"))
        assert (await established("boxes"), await established("crates")) == ("True", "False")
        await cluster.client.delete(CUSTOM_RESOURCE_DEFINITIONS, f"boxes.{GROUP}")
        assert await established("crates") == "True"
        made = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Box",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {},
        }
        await cluster.client.create(Resource(GROUP, "v1", "crates", "Box"), made)


async def test_custom_resources_say_their_kind() -> None:
    """A body without a kind is refused for a custom resource; for a built-in one the URL says it."""
    async with FakeCluster() as cluster:
        body = {"metadata": {"name": "a", "namespace": "default"}}
        await cluster.client.create(CONFIG_MAPS, body)
        boxes = Resource(GROUP, "v1", "boxes", "Box")
        names = {"plural": "boxes", "kind": "Box"}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}
        await cluster.client.create(CUSTOM_RESOURCE_DEFINITIONS, {"metadata": {"name": f"boxes.{GROUP}"}, "spec": spec})
        with pytest.raises(ApiError, match="Object 'Kind' is missing"):
            await cluster.client.create(boxes, body)
