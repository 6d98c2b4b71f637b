"""Strategic merge patch: merge keys and directives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandlane.kube.patch.errors import MalformedPatchError, PatchDirectiveError, PatchError
from sandlane.kube.patch.strategic import PatchSchema, strategic_merge_patch
from sandlane.kube.patch.values import copy_json
from sandlane.kube.patch.workloads import DEPLOYMENT, POD_SPEC
from sandlane.local.apiserver.schema import Schema

A = {
    "name": "a",
    "image": "a:1",
    "env": [{"name": "E1", "value": "1"}, {"name": "E2", "value": "2"}],
    "args": ["x", "y"],
}
B = {"name": "b", "image": "b:1"}


def patched(patch: Any, document: Any = None) -> Any:
    """A Pod spec of two containers, patched."""
    return strategic_merge_patch(document or {"containers": [A, B]}, patch, POD_SPEC)


def names(spec: Any) -> list[str]:
    """Container names in order."""
    return [each["name"] for each in spec["containers"]]


def test_lists_merge_by_key() -> None:
    """Items merge by their key in place, new ones come first, lists without a key are replaced, null deletes."""
    spec = patched(
        {"containers": [{"name": "a", "env": [{"name": "E2", "value": "22"}, {"name": "E3"}], "args": ["z"]}]}
    )
    assert spec["containers"][0]["env"] == [{"name": "E1", "value": "1"}, {"name": "E2", "value": "22"}, {"name": "E3"}]
    assert spec["containers"][0]["args"] == ["z"]
    assert names(patched({"containers": [{"name": "c"}]})) == ["c", "a", "b"]
    assert "image" not in patched({"containers": [{"name": "b", "image": None}]})["containers"][1]
    assert "containers" not in patched({"containers": None})


def test_item_directives() -> None:
    """`$patch: delete` removes an item, `$patch: replace` the whole list."""
    assert names(patched({"containers": [{"name": "b", "$patch": "delete"}]})) == ["a"]
    replaced = patched({"containers": [{"name": "a", "env": [{"$patch": "replace"}, {"name": "ONLY", "value": "1"}]}]})
    assert replaced["containers"][0]["env"] == [{"name": "ONLY", "value": "1"}]
    assert patched({"hostAliases": [{"ip": "1.1.1.1", "$patch": "delete"}, {"ip": "2.2.2.2", "gone": None}]})[
        "hostAliases"
    ] == [{"ip": "2.2.2.2"}]


def test_map_directives() -> None:
    """`$patch: replace` and `$patch: delete` work on maps, `$retainKeys` clears what it does not name."""
    document = {"securityContext": {"runAsUser": 1}, "nodeSelector": {"x": "y"}, "containers": []}
    assert patched({"securityContext": {"$patch": "replace", "fsGroup": 2}}, document)["securityContext"] == {
        "fsGroup": 2
    }
    assert patched({"nodeSelector": {"$patch": "delete"}}, document)["nodeSelector"] == {}
    volumes = {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}
    patch = {"volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}
    assert patched(patch, volumes)["volumes"] == [{"name": "v", "emptyDir": {}}]


def test_element_order() -> None:
    """`$setElementOrder` puts the items that it names in that order; items of others keep their place."""
    patch = {"$setElementOrder/containers": [{"name": "z"}, {"name": "a"}], "containers": [{"name": "z"}]}
    assert names(patched(patch)) == ["z", "a", "b"]
    assert names(patched({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})) == ["b", "a"]
    assert patched({"$setElementOrder/initContainers": [{"name": "b"}]}) == {"containers": [A, B]}
    three = {"containers": [{"name": "server"}, A, B]}
    assert names(patched({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}, three)) == [
        "server",
        "b",
        "a",
    ]
    fresh = {"$setElementOrder/hostAliases": [{"ip": "2"}, {"ip": "1"}], "hostAliases": [{"ip": "1"}, {"ip": "2"}]}
    assert patched(fresh)["hostAliases"] == [{"ip": "2"}, {"ip": "1"}]


def test_primitive_lists() -> None:
    """A merged list of scalars is a union, new ones first; `$deleteFromPrimitiveList` takes some out."""
    metadata = {"metadata": {"finalizers": ["one", "two"]}}

    def finalizers(patch: Any) -> Any:
        return strategic_merge_patch(metadata, {"metadata": patch}, DEPLOYMENT)["metadata"]["finalizers"]

    assert finalizers({"finalizers": ["three", "two"]}) == ["three", "one", "two"]
    assert finalizers({"$deleteFromPrimitiveList/finalizers": ["one"]}) == ["two"]
    patch = {"$deleteFromPrimitiveList/finalizers": ["two"], "$setElementOrder/finalizers": ["x", "one"]}
    assert finalizers({**patch, "finalizers": ["x"]}) == ["x", "one"]
    assert strategic_merge_patch({}, {"$deleteFromPrimitiveList/a": [1]}, None) == {}
    assert strategic_merge_patch({"a": [1, 2]}, {"$deleteFromPrimitiveList/a": [1]}, None) == {"a": [2]}


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        ({"$patch": "merge"}, PatchDirectiveError),
        ({"containers": [{"image": "nameless"}]}, PatchDirectiveError),
        ({"containers": [{"name": "a", "$patch": "frob"}]}, PatchDirectiveError),
        ({"containers": [{"$patch": "delete"}]}, PatchDirectiveError),
        ({"containers": ["x"]}, PatchError),
        ({"containers": [["x"]]}, PatchError),
        ({"$retainKeys": "x"}, MalformedPatchError),
        ({"$retainKeys": ["a"], "b": 1}, MalformedPatchError),
        ({"$setElementOrder/containers": "x"}, MalformedPatchError),
        ({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}, MalformedPatchError),
        (
            {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a"}, {"name": "b"}],
            },
            MalformedPatchError,
        ),
        ({"$deleteFromPrimitiveList/a": 1}, MalformedPatchError),
        ([], MalformedPatchError),
    ],
)
def test_refused(patch: Any, error: type[PatchError]) -> None:
    """A directive that nobody knows, an item without its key and a mixture of kinds are refused."""
    with pytest.raises(error):
        patched(patch)


VALUES = st.recursive(
    st.none() | st.integers(0, 2) | st.sampled_from(["a", "delete", "replace"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "containers",
                    "env",
                    "$patch",
                    "$retainKeys",
                    "$setElementOrder/containers",
                    "$deleteFromPrimitiveList/env",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(VALUES, VALUES)
def test_never_anything_but_a_patch_error(document: Any, patch: Any) -> None:
    """Whatever comes, the answer is a document or a PatchError, and the arguments are left alone."""
    before, given_patch = copy_json(document), copy_json(patch)
    try:
        strategic_merge_patch(document, patch, POD_SPEC)
    except PatchError:
        pass
    assert (document, patch) == (before, given_patch)


@given(st.lists(st.sampled_from("abcd"), unique=True), st.lists(st.sampled_from("abcd"), unique=True))
def test_element_order_always_holds(server: list[str], wanted: list[str]) -> None:
    """After a patch with an order, the named items come in that order and every other one is still there."""
    document = {"containers": [{"name": name} for name in server]}
    patch = {
        "$setElementOrder/containers": [{"name": name} for name in wanted],
        "containers": [{"name": name, "image": "i"} for name in wanted],
    }
    result = names(patched(patch, document)) if server or wanted else []
    assert [name for name in result if name in wanted] == wanted
    assert [name for name in result if name not in wanted] == [name for name in server if name not in wanted]


def _markers(schema: PatchSchema, path: str = "") -> Iterator[tuple[str, str, frozenset[str]]]:
    if schema.merge_key or schema.merge_strategy:
        yield path, schema.merge_key, schema.merge_strategy
    for name, child in schema.properties.items():
        if name not in ("status", "managedFields"):
            yield from _markers(child, f"{path}.{name}")
    for child in filter(None, (schema.items, schema.additional)):
        yield from _markers(child, f"{path}[]")


def test_deployment_table_is_kubernetes_own() -> None:
    """The compact table for Deployments says the same as the OpenAPI definition of Kubernetes."""
    assert sorted(_markers(DEPLOYMENT)) == sorted(_markers(Schema.builtin("io.k8s.api.apps.v1.Deployment")))
