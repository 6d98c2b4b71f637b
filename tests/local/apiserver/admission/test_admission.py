"""Admission: which webhooks and policies are asked, in which order, and what their answers do."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sandlane.kube.errors import ApiError
from sandlane.kube.resource import CONFIG_MAPS, NAMESPACES
from sandlane.local.apiserver.webhook_calls import Caller, CallFailed
from sandlane.testing.cluster import FakeCluster

Object = dict[str, Any]
GROUP = "admissionregistration.k8s.io/v1"


class Hooks:
    """Webhooks without a network: what each answers, and what they were asked."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.answers: dict[str, Callable[[Object], Object]] = {}
        self.asked: list[tuple[str, Object]] = []

    async def review(self, caller: Caller, hook: Object, request: Object) -> Object:
        self.asked.append((hook["name"], json.loads(json.dumps(request))))
        return {"uid": request["uid"]} | self.answers[hook["name"]](request)

    @property
    def order(self) -> list[str]:
        """Names in the order of calls."""
        return [name for name, _ in self.asked]

    async def add(self, name: str, answer: Callable[[Object], Object], kind: str = "Validating", **more: Any) -> None:
        """Configure a webhook for ConfigMaps."""
        full = f"{name}.example.test"
        self.answers[full] = answer
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
        hook = {
            "name": full,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [rule],
        } | more
        body = {"apiVersion": GROUP, "kind": f"{kind}WebhookConfiguration", "metadata": {"name": name}}
        await self.cluster.add(body | {"webhooks": [hook]})


@pytest.fixture
async def hooks(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hooks]:
    """A cluster with webhooks in this process."""
    async with FakeCluster() as cluster:
        await cluster.ensure_namespace("d")
        made = Hooks(cluster)
        monkeypatch.setattr("sandlane.local.apiserver.admission.webhooks.review", made.review)
        yield made


def config(name: str = "c", labels: dict[str, str] | None = None, **data: str) -> Object:
    """A ConfigMap."""
    metadata = {"name": name, "namespace": "d", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def allow(request: Object) -> Object:
    return {"allowed": True}


def deny(request: Object) -> Object:
    return {"allowed": False, "status": {"message": "no", "code": 418}}


def fail(request: Object) -> Object:
    raise CallFailed("nobody answers")


def label(key: str) -> Callable[[Object], Object]:
    """Adds a label that counts how often it was asked."""

    def answer(request: Object) -> Object:
        count = int((request["object"]["metadata"].get("labels") or {}).get(key, "0")) + 1
        patch = [{"op": "add", "path": f"/metadata/labels/{key}", "value": str(count)}]
        coded = base64.b64encode(json.dumps(patch).encode()).decode()
        return {"allowed": True, "patchType": "JSONPatch", "patch": coded}

    return answer


async def create(hooks: Hooks, obj: Object, **more: Any) -> Object:
    """Create a ConfigMap."""
    return await hooks.cluster.client.create(CONFIG_MAPS, obj, **more)


async def test_a_denial_stops_the_write(hooks: Hooks) -> None:
    """The webhook's code and words reach the client, nothing is stored, and other kinds are not asked about."""
    await hooks.add("no", deny)
    with pytest.raises(ApiError, match="denied the request: no") as caught:
        await create(hooks, config())
    assert caught.value.status == 418
    assert (await hooks.cluster.client.list(CONFIG_MAPS, "d")).items == []
    await hooks.cluster.ensure_namespace("other")


async def test_mutating_ones_run_in_order_of_name_and_again_where_asked(hooks: Hooks) -> None:
    """A later change brings back those that want to see it, once; validating ones see the outcome."""
    await hooks.add("b", label("b"), "Mutating")
    await hooks.add("a", label("a"), "Mutating", reinvocationPolicy="IfNeeded")
    await hooks.add("z", allow)
    made = await create(hooks, config(labels={"x": "y"}))
    assert [name.partition(".")[0] for name in hooks.order] == ["a", "b", "a", "z"]
    assert made["metadata"]["labels"] == {"x": "y", "a": "2", "b": "1"}
    assert hooks.asked[-1][1]["object"]["metadata"]["labels"] == made["metadata"]["labels"]


@pytest.mark.parametrize(("policy", "passes"), [("Ignore", True), ("Fail", False)])
async def test_no_answer(hooks: Hooks, policy: str, passes: bool) -> None:
    """What happens without an answer is what the configuration says."""
    await hooks.add("gone", fail, failurePolicy=policy)
    if passes:
        await create(hooks, config())
    else:
        with pytest.raises(ApiError, match="failed calling webhook"):
            await create(hooks, config())


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"objectSelector": {"matchLabels": {"team": "eta"}}}, True),
        ({"objectSelector": {"matchLabels": {"team": "other"}}}, False),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "d"}}}, True),
        ({"namespaceSelector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}}, False),
        ({"matchConditions": [{"name": "n", "expression": "request.name == 'c' && object.data.size() == 1"}]}, True),
        ({"matchConditions": [{"name": "n", "expression": "request.userInfo.username == 'x'"}]}, False),
    ],
)
async def test_who_is_asked(hooks: Hooks, more: Object, asked: bool) -> None:
    """Selectors and match conditions decide."""
    await hooks.add("picky", allow, **more)
    await create(hooks, config(labels={"team": "eta"}, k="v"))
    assert bool(hooks.asked) == asked


@pytest.mark.parametrize(
    ("resources", "operations", "asked"),
    [
        (["*"], ["CREATE"], True),
        (["*/*"], ["*"], True),
        (["secrets"], ["*"], False),
        (["configmaps/status"], ["*"], False),
        (["configmaps/*"], ["*"], True),
        (["configmaps"], ["UPDATE", "DELETE"], False),
    ],
)
async def test_rules(hooks: Hooks, resources: list[str], operations: list[str], asked: bool) -> None:
    """A rule names resources, subresources and operations."""
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": operations, "resources": resources}
    await hooks.add("ruled", allow, rules=[rule])
    await create(hooks, config())
    assert bool(hooks.asked) == asked


async def test_each_operation_shows_what_it_has(hooks: Hooks) -> None:
    """Create has an object, update both, delete the old one; dry runs say so."""
    await hooks.add("all", allow)
    client = hooks.cluster.client
    await create(hooks, config(name="dry"), dry_run=True)
    await create(hooks, config(k="1"))
    await client.patch(CONFIG_MAPS, "c", {"data": {"k": "2"}}, namespace="d")
    await client.delete(CONFIG_MAPS, "c", "d")
    seen = [
        (r["operation"], r["dryRun"], (r["object"] or {}).get("data"), (r["oldObject"] or {}).get("data"))
        for _, r in hooks.asked
    ]
    assert seen == [
        ("CREATE", True, None, None),
        ("CREATE", False, {"k": "1"}, None),
        ("UPDATE", False, {"k": "2"}, {"k": "1"}),
        ("DELETE", False, None, {"k": "2"}),
    ]


async def policy(hooks: Hooks, binding: Object | None = None, **spec: Any) -> None:
    """A policy for ConfigMaps, and its binding."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    kind = "ValidatingAdmissionPolicy"
    made = {"matchConstraints": {"resourceRules": [rule]}} | spec
    await hooks.cluster.add({"apiVersion": GROUP, "kind": kind, "metadata": {"name": "p"}, "spec": made})
    bound = {"policyName": "p", "validationActions": ["Deny"]} | (binding or {})
    await hooks.cluster.add({"apiVersion": GROUP, "kind": f"{kind}Binding", "metadata": {"name": "b"}, "spec": bound})


async def test_a_policy_with_variables_and_parameters(hooks: Hooks) -> None:
    """Expressions see the object, the namespace, parameters and variables; the message may be an expression."""
    await hooks.cluster.add(config(name="limits", most="1"))
    await policy(
        hooks,
        {"paramRef": {"name": "limits", "namespace": "d", "parameterNotFoundAction": "Deny"}},
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        variables=[{"name": "count", "expression": "has(object.data) ? size(object.data) : 0"}],
        validations=[
            {
                "expression": "variables.count <= int(params.data.most)",
                "messageExpression": "'at most ' + params.data.most + ' in ' + namespaceObject.metadata.name",
            }
        ],
    )
    await create(hooks, config(name="small", a="1"))
    with pytest.raises(ApiError, match="at most 1 in d") as caught:
        await create(hooks, config(name="big", a="1", b="2"))
    assert (caught.value.status, caught.value.reason) == (422, "Invalid")


async def test_a_policy_may_only_warn(hooks: Hooks) -> None:
    """The action Warn lets the write through."""
    await policy(hooks, {"validationActions": ["Warn"]}, validations=[{"expression": "false", "message": "hm"}])
    await create(hooks, config())


@pytest.mark.parametrize(("failure", "passes"), [("Ignore", True), ("Fail", False)])
async def test_an_expression_without_answer(hooks: Hooks, failure: str, passes: bool) -> None:
    """An expression that fails counts as the policy says."""
    await policy(hooks, failurePolicy=failure, validations=[{"expression": "object.data.nope == '1'"}])
    if passes:
        await create(hooks, config())
    else:
        with pytest.raises(ApiError, match="resulted in error"):
            await create(hooks, config())


async def test_configurations_themselves_are_never_asked_about(hooks: Hooks) -> None:
    """A webhook for everything that never answers can still be removed."""
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}
    await hooks.add("trap", fail, rules=[everything])
    with pytest.raises(ApiError):
        await hooks.cluster.client.create(NAMESPACES, {"metadata": {"name": "x"}})
    type_ = hooks.cluster.server.registry.by_kind(GROUP, "ValidatingWebhookConfiguration")
    assert type_ is not None
    await hooks.cluster.client.delete(type_.resource, "trap")
    await hooks.cluster.client.create(NAMESPACES, {"metadata": {"name": "x"}})


async def test_an_answer_that_is_no_json_patch(hooks: Hooks) -> None:
    """JSONPatch is the only type of patch; another one counts as no answer."""
    coded = base64.b64encode(b"[]").decode()
    await hooks.add("odd", lambda request: {"allowed": True, "patchType": "Merge", "patch": coded}, "Mutating")
    with pytest.raises(ApiError, match="unsupported patch type") as caught:
        await create(hooks, config())
    assert caught.value.status == 500


async def test_reinvocation_is_for_those_that_ask(hooks: Hooks) -> None:
    """Never is the default: the first webhook is not asked about what a later one changed."""
    await hooks.add("a", label("a"), "Mutating")
    await hooks.add("b", label("b"), "Mutating", reinvocationPolicy="IfNeeded")
    made = await create(hooks, config(labels={"x": "y"}))
    assert [name.partition(".")[0] for name in hooks.order] == ["a", "b"]
    assert made["metadata"]["labels"] == {"x": "y", "a": "1", "b": "1"}


async def test_audit_annotations_are_nobodys_business(hooks: Hooks) -> None:
    """They go to an audit log, which there is none of: the object does not show them."""
    await hooks.add("log", lambda request: {"allowed": True, "auditAnnotations": {"k": "v"}})
    made = await create(hooks, config())
    assert "annotations" not in made["metadata"]


async def test_expressions_may_ask_for_rights_and_are_typed(hooks: Hooks) -> None:
    """`authorizer` knows what the writer and others may do; a field that a request has not is refused with the policy."""
    asks = (
        "authorizer.requestResource.check('create').allowed()"
        " && authorizer.path('/healthz').check('get').allowed()"
        " && !authorizer.serviceAccount('d', 'x').group('').resource('secrets').namespace('d').check('get').allowed()"
    )
    await policy(hooks, validations=[{"expression": asks}])
    await create(hooks, config())
    with pytest.raises(ApiError, match="undefined field 'nope'"):
        await policy(hooks, matchConditions=[{"name": "n", "expression": "request.nope == 'x'"}])
    with pytest.raises(ApiError, match="undefined field 'later'"):
        await policy(hooks, variables=[{"name": "a", "expression": "variables.later"}])
    with pytest.raises(ApiError, match="must evaluate to bool"):
        await policy(hooks, validations=[{"expression": "'x'"}])
