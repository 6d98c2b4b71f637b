"""What a `sandlane connect` means: port mappings, files, and the LocalWorkloads of a sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.laptop.errors import ConnectError
from sandlane.laptop.inbound import LocalTarget
from sandlane.laptop.joining import covers
from sandlane.laptop.plan import chosen, followed, joined, new_local_workload, parse_mapping, read_documents


def local_workload(name: str, workload: str = "eta", sandbox: str = "mine", **metadata: Any) -> dict[str, Any]:
    """A LocalWorkload as a cluster gives it."""
    return {
        "kind": "LocalWorkload",
        "metadata": {"name": name, "namespace": "rides", "uid": f"uid-{name}", **metadata},
        "spec": {"sandbox": sandbox, "from": {"name": workload}, "mappings": [{"port": 1, "to": "localhost:2"}]},
    }


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("8083", LocalTarget(8083, "127.0.0.1", 8083)),
        ("8083=9000", LocalTarget(8083, "127.0.0.1", 9000)),
        ("8083=localhost:9000", LocalTarget(8083, "127.0.0.1", 9000)),
        ("8083=[::1]:9000", LocalTarget(8083, "::1", 9000)),
        ("1=build.example:9000", LocalTarget(1, "build.example", 9000)),
    ],
)
def test_port_mappings(text: str, target: LocalTarget) -> None:
    """A mapping is a container port, and where on the laptop."""
    assert parse_mapping(text) == target


@pytest.mark.parametrize("text", ["", "http", "0", "70000", "8083=", "8083=host", "8083=host:http", "²=1"])
def test_what_is_no_port_mapping_is_refused(text: str) -> None:
    """The message says what was given and what is expected."""
    with pytest.raises(ConnectError, match="it must be PORT") as refused:
        parse_mapping(text)
    assert text in str(refused.value)


def test_the_local_workloads_of_a_sandbox() -> None:
    """All of the sandbox, or those for one workload; never those that are going."""
    going = local_workload("c", deletionTimestamp="2026-01-01T00:00:00Z")
    known = [local_workload("b", "routes"), local_workload("a"), local_workload("x", sandbox="other"), going]
    assert [obj["metadata"]["name"] for obj in chosen(known, "mine", "")] == ["a", "b"]
    assert [obj["metadata"]["name"] for obj in chosen(known, "mine", "routes")] == ["b"]


def test_ports_given_here_say_where_on_this_laptop_a_joined_workload_goes() -> None:
    """Known ports go elsewhere; a port that the LocalWorkload does not map is an error that names those it has."""
    held = joined(local_workload("a"), [parse_mapping("1=7000")])
    assert held.targets == (LocalTarget(1, "127.0.0.1", 7000),)
    with pytest.raises(ConnectError, match="maps the ports 1"):
        joined(local_workload("a"), [parse_mapping("5=7000")])


def test_mappings_that_change_are_followed() -> None:
    """What the command line has sent elsewhere stays there as long as its mapping stays the same."""
    before = (parse_mapping("1=10"), parse_mapping("2=20"))
    now = (parse_mapping("1=11"), parse_mapping("2=20"))
    after = (parse_mapping("1=10"), parse_mapping("2=22"), parse_mapping("3=30"))
    assert [target.to_port for target in followed(now, before, after)] == [11, 22, 30]
    assert [target.to_port for target in followed(now, before, (parse_mapping("1=12"),))] == [12]


def test_a_new_local_workload_needs_workload_and_ports() -> None:
    """Without them the message shows a whole command."""
    obj = new_local_workload("rides", "mine", "eta", [parse_mapping("1=2")], "Baseline")
    assert obj["metadata"] == {"name": "mine-eta", "namespace": "rides"}
    assert obj["spec"]["mappings"] == [{"port": 1, "to": "127.0.0.1:2"}]
    with pytest.raises(ConnectError, match="sandlane connect mine --workload eta --port"):
        new_local_workload("rides", "mine", "eta", [], "Fail")


HEAD = "apiVersion: sandlane.dev/v1alpha1\n"


def test_a_file_holds_local_workloads_and_sandboxes() -> None:
    """Sandboxes come first, because LocalWorkloads belong to them; the namespace is the one given unless they name one."""
    text = (
        HEAD + "kind: LocalWorkload\nmetadata: {name: a}\nspec: {sandbox: s}\n---\n---\n"
        + HEAD + "kind: Sandbox\nmetadata: {name: s, namespace: other}\nspec: {local: [{name: x}]}\n"
    )  # fmt: skip
    found = read_documents(text, "f.yaml", "rides")
    assert [(obj["kind"], obj["metadata"]["namespace"]) for obj in found] == [
        ("Sandbox", "other"),
        ("LocalWorkload", "rides"),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no LocalWorkload"),
        ("a: [", "not YAML"),
        ("- a", "must be an object"),
        ("kind: Pod", "only LocalWorkload and Sandbox of sandlane.dev/v1alpha1"),
        (HEAD + "kind: Sandbox\nspec: {}", "metadata.name is missing"),
        (HEAD + "kind: Sandbox\nmetadata: {name: a}", "spec is missing"),
        (HEAD + "kind: Sandbox\nmetadata: {name: a}\nspec: {forks: []}", "nothing to connect"),
    ],
)
def test_a_file_of_something_else_is_refused(text: str, why: str) -> None:
    """The message names the file and says what is wrong."""
    with pytest.raises(ConnectError, match=why) as refused:
        read_documents(text, "f.yaml", "rides")
    assert str(refused.value).startswith("f.yaml")


def test_an_object_that_is_there_may_say_more() -> None:
    """Defaults that the server has filled in do not make it another one."""
    assert covers({"a": [{"b": 1, "c": 2}], "d": 3}, {"a": [{"b": 1}]})
    assert not covers({"a": [{"b": 1}]}, {"a": [{"b": 2}]})
    assert not covers({"a": [1, 2]}, {"a": [1]})
