"""The webhooks refuse what the controllers would refuse, and ask whether the requester may run what is asked for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sandlane.admission import access
from sandlane.admission.handlers import Admission, set_defaults
from sandlane.api.labels import REQUESTED_BY
from sandlane.api.limits import Limits
from sandlane.api.types import FINALIZER
from sandlane.kube.client import Client
from sandlane.kube.resource import Key, Object
from sandlane.kube.transport import Request, Response
from sandlane.runtime.admission_review import AdmissionRequest, Denied
from sandlane.testing.clock import ManualClock
from sandlane.world.world import World


class Authority:
    """An API server that only answers SubjectAccessReviews."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.asked: list[dict[str, Any]] = []

    async def send(self, request: Request, *, timeout: float) -> Response:
        spec = msgspec.json.decode(request.body)["spec"]
        self.asked.append(spec)
        attributes = spec["resourceAttributes"]
        allowed = not any(word in (attributes["resource"], attributes["name"]) for word in self.refused)
        return Response(201, (), msgspec.json.encode({"status": {"allowed": allowed}}))

    def stream(self, request: Request, *, timeout: float) -> Any:
        raise AssertionError("nothing is streamed")

    async def close(self) -> None: ...


class Steady:
    """No jitter."""

    def random(self) -> float:
        return 0.5


def admission(authority: Authority, *objects: Object, limits: Limits | None = None, watched: Any = ()) -> Admission:
    """Handlers over a world."""
    client = Client(authority, clock=ManualClock(), rng=Steady())
    return Admission(client, World.of(objects), limits or Limits(), watched)


def object_(kind: str, spec: Any, name: str = "new-eta", **metadata: Any) -> Object:
    """One of our objects."""
    head = {"apiVersion": "sandlane.dev/v1alpha1", "kind": kind}
    return head | {"metadata": {"name": name, "namespace": "rides", "uid": f"uid-{name}"} | metadata, "spec": spec}


def baseline(**spec: Any) -> Object:
    """A Deployment that refers to one Secret."""
    env = [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "known", "key": "k"}}}]
    containers = [{"name": "route", "image": "r", "env": env, "ports": [{"name": "http", "containerPort": 80}]}]
    template = {"metadata": {"labels": {"app": "route"}}, "spec": {"containers": containers} | spec}
    metadata = {"name": "route", "namespace": "rides", "uid": "b"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}}


def service(**spec: Any) -> Object:
    """Its Service."""
    metadata = {"name": "route", "namespace": "rides"}
    ports = [{"port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"app": "route"}, "ports": ports} | spec,
    }


def asked(new: Object | None, old: Object | None = None, **more: Any) -> AdmissionRequest:
    """A request of alice."""
    name = (new or old or {})["metadata"]["name"]
    facts: dict[str, Any] = {"user": "alice", "user_uid": "u1", "groups": ("devs",), "extra": {"scopes": ["a"]}}
    operation = "UPDATE" if old else "CREATE"
    return AdmissionRequest(uid="r", operation=operation, key=Key("rides", name), object=new, old=old, **facts | more)


def fork(**customizations: Any) -> Object:
    """A spec with one fork."""
    return {"forks": [{"forkOf": {"name": "route"}, "customizations": customizations}]}


async def test_all_errors_at_once_with_their_paths() -> None:
    """A refusal names every field at fault."""
    spec = fork(replicas=-1) | {"ttl": {"duration": "x"}, "routingKey": "NO"}
    with pytest.raises(Denied) as refused:
        await admission(Authority()).sandbox(asked(object_("Sandbox", spec)))
    assert refused.value.code == 422
    assert {cause.field for cause in refused.value.causes} == {
        "spec.routingKey",
        "spec.ttl.duration",
        "spec.forks[0].customizations.replicas",
    }


async def test_the_requester_must_be_allowed_to_run_the_fork() -> None:
    """Creating Deployments and reading newly referenced Secrets is asked, with uid, groups and extra."""
    secret = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "new", "key": "k"}}}
    again = {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "known", "key": "k"}}}
    volume = {"spec": {"template": {"spec": {"volumes": [{"name": "v", "secret": {"secretName": "mounted"}}]}}}}
    spec = fork(env=[secret, again], patch={"type": "merge", "value": volume})
    authority = Authority()
    await admission(authority, baseline(), service()).sandbox(asked(object_("Sandbox", spec)))
    wanted = {(each["resourceAttributes"]["verb"], each["resourceAttributes"]["name"]) for each in authority.asked}
    assert wanted == {("create", ""), ("get", "new"), ("get", "mounted")}
    assert authority.asked[0]["user"] == "alice"
    assert authority.asked[0]["uid"] == "u1"
    assert authority.asked[0]["groups"] == ["devs"]
    assert authority.asked[0]["extra"] == {"scopes": ["a"]}
    with pytest.raises(Denied, match="may not get secrets 'mounted'") as refused:
        await admission(Authority("mounted"), baseline(), service()).sandbox(asked(object_("Sandbox", spec)))
    assert refused.value.causes[0].field == "spec.forks[0].customizations"


async def test_without_a_baseline_a_patch_may_mean_any_secret() -> None:
    """What cannot be planned yet cannot be looked into: then all Secrets must be readable."""
    spec = fork(patch={"type": "json", "value": []})
    authority = Authority()
    warnings = await admission(authority).sandbox(asked(object_("Sandbox", spec)))
    assert [each["resourceAttributes"]["resource"] for each in authority.asked] == ["deployments", "secrets"]
    assert authority.asked[1]["resourceAttributes"]["name"] == ""
    assert any("does not exist" in warning for warning in warnings)


async def test_only_changed_forks_are_asked_for_again() -> None:
    """An update that leaves the forks alone asks nobody; one that changes them asks again."""
    old = object_("Sandbox", fork())
    authority = Authority()
    handlers = admission(authority, baseline(), service())
    await handlers.sandbox(asked(object_("Sandbox", fork() | {"description": "x"}), old))
    assert authority.asked == []
    await handlers.sandbox(asked(object_("Sandbox", fork(replicas=2)), old))
    assert len(authority.asked) == 1


async def test_immutable_fields_and_taken_keys_are_refused() -> None:
    """routingKey is fixed, and unique over sandboxes and groups."""
    old, new = object_("Sandbox", fork()), object_("Sandbox", fork() | {"routingKey": "mine"})
    group = object_("RouteGroup", {"match": {"label": {"key": "a", "value": "*"}}, "routingKey": "mine"}, "g")
    with pytest.raises(Denied) as refused:
        await admission(Authority(), group).sandbox(asked(new, old))
    assert [cause.field for cause in refused.value.causes] == ["spec.routingKey", "spec.routingKey"]


async def test_what_needs_the_cluster_is_refused_too() -> None:
    """A limit and a Service that would select the fork stop the request."""
    spec = {"forks": [{"forkOf": {"name": "route"}, "preservedLabels": ["app"]}]}
    with pytest.raises(Denied, match="ForkSelectedByService"):
        await admission(Authority(), baseline(), service()).sandbox(asked(object_("Sandbox", spec)))
    limits = Limits(replicas_per_fork=1)
    with pytest.raises(Denied, match="LimitExceeded"):
        await admission(Authority(), baseline(), limits=limits).sandbox(asked(object_("Sandbox", fork(replicas=2))))


async def test_a_service_before_two_forks_is_warned_of() -> None:
    """Canaries behind one Service: the author hears which of them gets the requests."""
    canary = baseline()
    canary["metadata"] = {**canary["metadata"], "name": "canary", "uid": "canary"}
    spec = {"forks": [{"forkOf": {"name": baseline()["metadata"]["name"]}}, {"forkOf": {"name": "canary"}}]}
    warnings = await admission(Authority(), baseline(), canary, service()).sandbox(asked(object_("Sandbox", spec)))
    name = service()["metadata"]["name"]
    why = f"Service {name} leads to the workload of spec.forks[0].forkOf, too, which gets its requests"
    assert warnings == [f"spec.forks[1].forkOf: {why}"]


async def test_suspicious_specs_get_warnings() -> None:
    """No replicas, a variable that changes nothing or is not there, a port that no Service leads to."""
    env = [{"name": "T", "operation": "delete"}, {"name": "Z", "operation": "delete"}]
    local = {"name": "l", "from": {"name": "other"}, "mappings": [{"port": 1, "to": "h:1"}]}
    spec = fork(env=env, replicas=0) | {"local": [local]}
    other = baseline()
    other["metadata"] = {"name": "other", "namespace": "rides", "uid": "o"}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    warnings = await admission(Authority(), baseline(), service(), other).sandbox(asked(object_("Sandbox", spec)))
    assert len(warnings) == 3
    text = "\n".join(warnings)
    for word in ("replicas: 0", "no variable Z", "container port 1"):
        assert word in text


def test_who_asked_is_set_by_the_webhook_only() -> None:
    """Nobody can write the annotation; it changes with the forks; our finalizer is there from the start."""
    forged = object_("Sandbox", fork(), annotations={REQUESTED_BY: "root"})
    set_defaults(forged, asked(forged))
    assert forged["metadata"]["annotations"][REQUESTED_BY] == "alice"
    assert forged["metadata"]["finalizers"] == [FINALIZER]
    edited = object_("Sandbox", fork() | {"description": "x"}, annotations={REQUESTED_BY: "root"})
    set_defaults(edited, asked(edited, forged, user="bob"))
    assert edited["metadata"]["annotations"][REQUESTED_BY] == "alice"
    changed = object_("Sandbox", fork(replicas=2))
    set_defaults(changed, asked(changed, forged, user="bob"))
    assert changed["metadata"]["annotations"][REQUESTED_BY] == "bob"


def test_route_groups_and_local_workloads_have_their_rules() -> None:
    """A match needs exactly one part; a baseline that the sandbox forks cannot be on a laptop as well."""
    handlers = admission(Authority(), object_("Sandbox", fork()))
    with pytest.raises(Denied) as refused:
        handlers.route_group(asked(object_("RouteGroup", {"match": {}}, "g")))
    assert refused.value.causes[0].field == "spec.match"
    mappings = [{"port": 1, "to": "h:1"}]
    local = object_("LocalWorkload", {"sandbox": "new-eta", "from": {"name": "route"}, "mappings": mappings}, "l")
    with pytest.raises(Denied) as again:
        handlers.local_workload(asked(local))
    assert again.value.causes[0].field == "spec.from"
    other = object_("LocalWorkload", {"sandbox": "none", "from": {"name": "route"}, "mappings": mappings}, "l")
    assert "does not exist yet" in handlers.local_workload(asked(other))[0]


def a_label() -> dict[str, Any]:
    return {"label": {"key": "team", "value": "*"}}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"match": {"any": [a_label()], "label": a_label()["label"]}}, "spec.match"),
        ({"match": {"any": [{"all": [{"any": [a_label()]}]}]}}, "spec.match.any[0].all[0].any"),
        ({"match": {"all": []}}, "spec.match.all"),
        ({"match": {"label": {"key": "-", "value": "x"}}}, "spec.match.label.key"),
        ({"match": a_label(), "namespaces": ["rides", "rides"]}, "spec.namespaces[1]"),
        ({"match": a_label(), "ttl": {"duration": "1d", "from": "birth"}}, "spec.ttl.from"),
        ({"match": a_label(), "endpoints": [{"name": "web", "target": "ftp://x:1"}]}, "spec.endpoints[0].target"),
        ({"match": a_label(), "routingKey": "Not A Key"}, "spec.routingKey"),
        ({"match": a_label(), "routingKey": "taken"}, "spec.routingKey"),
    ],
)
def test_wrong_route_groups_are_refused(spec: dict[str, Any], field: str) -> None:
    """Each rule of a group has its field in the refusal; keys are unique over sandboxes and groups."""
    handlers = admission(Authority(), object_("Sandbox", fork() | {"routingKey": "taken"}))
    with pytest.raises(Denied) as refused:
        handlers.route_group(asked(object_("RouteGroup", spec, "g")))
    assert [cause.field for cause in refused.value.causes] == [field]


def test_a_route_group_changes() -> None:
    """Everything but the key may change; a group that is going is let through; unseen namespaces are warned about."""
    old = object_("RouteGroup", {"match": a_label(), "routingKey": "mine"}, "g")
    handlers = admission(Authority(), old)
    changed = object_("RouteGroup", {"match": {"any": [a_label()]}, "routingKey": "mine", "namespaces": ["maps"]}, "g")
    warnings = handlers.route_group(asked(changed, old))
    assert [text.partition(":")[0] for text in warnings] == ["spec.namespaces", "spec.namespaces[0]"]
    assert "Namespace maps does not consent" in warnings[1]
    with pytest.raises(Denied, match="cannot be changed"):
        handlers.route_group(asked(object_("RouteGroup", {"match": a_label(), "routingKey": "other"}, "g"), old))
    going = object_("RouteGroup", {"match": {}}, "g", deletionTimestamp="2026-01-01T00:00:00Z")
    assert handlers.route_group(asked(going, old)) == []


def test_every_place_of_a_secret_is_found() -> None:
    """Volumes, projections, pull secrets, variables, drivers."""
    template = {
        "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"secret": {"secretName": "volume"}},
                {"projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "no"}}]}},
                {"csi": {"nodePublishSecretRef": {"name": "csi"}}},
                {"azureFile": {"secretName": "azure"}},
            ],
            "containers": [
                {
                    "envFrom": [{"secretRef": {"name": "from"}}],
                    "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
                }
            ],
        }
    }
    assert access.secrets(template) == {"pull", "volume", "projected", "csi", "azure", "from", "key"}


def test_all_rules_are_told_before_the_schema_is_checked() -> None:
    """The defaulting webhook refuses what our rules refuse, with the object's kind and name; wrong types are the schema's."""
    handlers = admission(Authority(), object_("Sandbox", fork() | {"routingKey": "mine"}, "other"))
    bad = object_("Sandbox", fork(replicas=-1) | {"ttl": {"duration": "x"}, "routingKey": "mine"})
    with pytest.raises(Denied) as refused:
        handlers.default(bad, asked(bad))
    assert {cause.field for cause in refused.value.causes} == {
        "spec.routingKey",
        "spec.ttl.duration",
        "spec.forks[0].customizations.replicas",
    }
    assert refused.value.about == {"group": "sandlane.dev", "kind": "Sandbox", "name": "new-eta"}
    wrong = object_("Sandbox", fork() | {"suspended": "no"})
    handlers.default(wrong, asked(wrong))


def test_what_a_sandbox_owns_was_asked_for_by_its_requester() -> None:
    """A LocalWorkload that a Sandbox controls names nobody: the manager made it."""
    owner = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "Sandbox", "name": "s", "uid": "u", "controller": True}
    local = object_("LocalWorkload", {}, "l", ownerReferences=[owner], annotations={REQUESTED_BY: "root", "a": "b"})
    set_defaults(local, asked(local))
    assert local["metadata"]["annotations"] == {"a": "b"}


async def test_limits_rights_and_selection_are_told_together() -> None:
    """What the cluster refuses is told at once: a Service that would select the fork, a limit, rights that are missing."""
    spec = {"forks": [{"forkOf": {"name": "route"}, "preservedLabels": ["app"]}, {"forkOf": {"name": "other"}}]}
    other = baseline()
    other["metadata"] = {"name": "other", "namespace": "rides", "uid": "o"}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    spec["forks"][1]["customizations"] = {"replicas": 4}
    limits = Limits(replicas_per_fork=3)
    handlers = admission(Authority("deployments"), baseline(), service(), other, limits=limits)
    with pytest.raises(Denied) as refused:
        await handlers.sandbox(asked(object_("Sandbox", spec)))
    assert [cause.field for cause in refused.value.causes] == [
        "spec.forks[0].preservedLabels",
        "spec.forks[1].customizations.replicas",
        "spec.forks[0].forkOf",
    ]
    for word in ("ForkSelectedByService", "LimitExceeded", "may not create deployments.apps"):
        assert word in str(refused.value)


async def test_a_sandbox_that_is_not_there_yet_is_the_youngest() -> None:
    """At admission a new sandbox has no creation time: all others of its namespace count as older."""
    there = object_("Sandbox", fork(), "a", creationTimestamp="2026-01-01T00:00:00Z")
    handlers = admission(Authority(), there, baseline(), limits=Limits(sandboxes_per_namespace=1))
    with pytest.raises(Denied, match="LimitExceeded"):
        await handlers.sandbox(asked(object_("Sandbox", fork(), "z")))


async def test_a_namespace_that_nobody_looks_after_is_a_warning() -> None:
    """A manager of some namespaces takes specs of others, and says that nothing comes of them."""
    group, local = {"match": a_label()}, {"sandbox": "s", "from": {"name": "x"}, "mappings": [{"port": 1, "to": "h:1"}]}
    for watched, told in ((("maps", "eats"), 3), (("rides",), 0), ((), 0)):
        handlers = admission(Authority(), baseline(), service(), watched=watched)
        warnings = await handlers.sandbox(asked(object_("Sandbox", fork())))
        warnings += handlers.route_group(asked(object_("RouteGroup", group, "g")))
        warnings += handlers.local_workload(asked(object_("LocalWorkload", local, "l")))
        assert len([text for text in warnings if "looks after maps, eats only" in text]) == told


async def test_all_containers_that_are_not_there_are_told_at_once() -> None:
    """An image and a variable of containers that the baseline does not have: a warning with both fields and the names there are."""
    env = [{"name": "A", "value": "1", "container": "sidecar"}]
    spec = fork(images=[{"image": "x", "container": "web"}], env=env)
    warnings = await admission(Authority(), baseline(), service()).sandbox(asked(object_("Sandbox", spec)))
    (told,) = [warning for warning in warnings if "no container" in warning]
    for words in (
        "images[0].container: no container 'web'; there are route",
        "env[0].container: no container 'sidecar'",
    ):
        assert words in told


async def test_a_port_that_the_other_fork_does_not_serve_is_refused() -> None:
    """A variable that points at a port which another fork's patch removes; specs without such a change pass."""
    other = baseline()
    other["metadata"] = {"name": "other", "namespace": "rides", "uid": "o"}
    told = {"name": "X", "valueFrom": {"fork": {"forkOf": {"name": "route"}, "port": 80, "field": "address"}}}
    remove = {"type": "json", "value": [{"op": "remove", "path": "/spec/template/spec/containers/0/ports"}]}
    spec = fork(patch=remove)
    spec["forks"].append({"forkOf": {"name": "other"}, "customizations": {"env": [told]}})
    handlers = admission(Authority(), baseline(), service(), other)
    with pytest.raises(Denied, match="does not serve port 80 of Service route") as refused:
        await handlers.sandbox(asked(object_("Sandbox", spec)))
    assert [cause.field for cause in refused.value.causes] == [
        "spec.forks[1].customizations.env[0].valueFrom.fork.port"
    ]
    assert refused.value.code == 422
    there = object_("Sandbox", spec)
    await handlers.sandbox(asked(object_("Sandbox", spec | {"suspended": True}), there))


SAME: list[tuple[Object, str]] = [
    ({"images": [{"image": "r"}]}, "images[0]: the baseline runs r too"),
    ({"images": [{"image": "r", "container": "route"}]}, "images[0]: the baseline runs r too"),
    (
        {"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "known", "key": "k"}}}]},
        "env[0]: the baseline has",
    ),
    (
        {
            "patch": {
                "type": "json",
                "value": [
                    {"op": "add", "path": "/spec/template/spec/containers/0/ports/1", "value": {"containerPort": 99}}
                ],
            }
        },
        "no Service exposes container port 99",
    ),
]


@pytest.mark.parametrize(("customizations", "said"), SAME)
async def test_what_changes_nothing_is_a_warning(customizations: Object, said: str) -> None:
    """The image, the variable, the port that nothing comes of."""
    handlers = admission(Authority(), baseline(), service())
    warnings = await handlers.sandbox(asked(object_("Sandbox", fork(**customizations))))
    assert len(warnings) == 1
    assert said in warnings[0]


IN_VAIN: list[tuple[str, Any, list[str]]] = [
    ("merge", {"metadata": {"name": "x"}, "spec": {"replicas": 3}}, ["metadata.name", "spec.replicas"]),
    ("strategic", {"spec": {"selector": {"matchLabels": {"a": "b"}}, "minReadySeconds": 1}}, ["spec.selector"]),
    ("json", [{"op": "add", "path": "/spec/selector/matchLabels/a", "value": "b"}], ["spec.selector"]),
    ("json", [{"op": "add", "path": "/spec/replicas", "value": 2}], ["spec.replicas"]),
    ("json", [{"op": "add", "path": "/spec/minReadySeconds", "value": 2}], []),
    ("merge", {"metadata": {"labels": {"a": "b"}}}, []),
    ("merge", {"metadata": 1, "spec": ["replicas"]}, []),
    ("json", ["/spec/replicas"], []),
]


@pytest.mark.parametrize(("kind", "value", "fields"), IN_VAIN)
async def test_what_a_patch_sets_in_vain_is_a_warning(kind: str, value: Any, fields: list[str]) -> None:
    """Name, selector, replicas and the like are not the patch's: whoever sets them is told."""
    handlers = admission(Authority(), baseline(), service())
    spec = fork(patch={"type": kind, "value": value})
    warnings = await handlers.sandbox(asked(object_("Sandbox", spec)))
    assert [text.split()[1] for text in warnings if "does not count" in text] == fields


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data", "namespace": "rides"},
    "spec": {"accessModes": ["ReadWriteOncePod"]},
}
VOLUME = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}


async def test_what_fork_and_baseline_would_share_is_a_warning() -> None:
    """A node's network, a claim, a claim of one Pod, the selector that autoscalers count by, a Service without routes."""
    handlers = admission(Authority(), baseline(hostNetwork=True, **VOLUME), service(clusterIP="None"))
    warnings = await handlers.sandbox(asked(object_("Sandbox", fork())))
    assert [word for word in ("headless", "network", "claim data") if any(word in text for text in warnings)] == [
        "headless",
        "network",
        "claim data",
    ]
    one_pod = await admission(Authority(), baseline(**VOLUME), service(), CLAIM).sandbox(
        asked(object_("Sandbox", fork()))
    )
    assert "one Pod at a time" in one_pod[0]
    counted = baseline()
    counted["spec"]["selector"] = {"matchLabels": {"app": "route"}}
    spec = {"forks": [{"forkOf": {"name": "route"}, "preservedLabels": ["^app$"]}]}
    warnings = await admission(Authority(), counted).sandbox(asked(object_("Sandbox", spec)))
    assert "match the selector of Deployment route" in " ".join(warnings)
