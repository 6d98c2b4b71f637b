"""RBAC as it is enforced: who may do what, whom one may be, and which rights one may give."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.local.apiserver.auth.user import ANONYMOUS, User

ROBOT = User(
    "system:serviceaccount:default:robot",
    ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"),
)
RBAC = "/apis/rbac.authorization.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
SUBJECT = {"kind": "ServiceAccount", "name": "robot", "namespace": "default"}


async def _grant(asked: Any, rules: list[Any], *, name: str = "granted", namespace: str | None = "default") -> None:
    kind, where = ("Role", f"/namespaces/{namespace}") if namespace else ("ClusterRole", "")
    plural = kind.lower()
    await asked.make(f"{RBAC}{where}/{plural}s", {"metadata": {"name": name}, "rules": rules})
    await _bind(asked, {"kind": kind, "name": name}, name=name, namespace=namespace)


async def _bind(asked: Any, role: Any, *, name: str = "bound", namespace: str | None = "default") -> None:
    where = f"/namespaces/{namespace}/rolebindings" if namespace else "/clusterrolebindings"
    await asked.make(RBAC + where, {"metadata": {"name": name}, "roleRef": role, "subjects": [SUBJECT]})


def _rule(resources: str, verbs: str, group: str = "", **more: Any) -> Any:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split(), **more}


async def test_nothing_without_a_binding(asked: Any) -> None:
    """A ServiceAccount may do nothing at first but ask what is served; the refusal names user, verb, resource and place."""
    status, answer = await asked.ask("GET", f"{MAPS}/a", user=ROBOT)
    assert (status, answer["reason"], answer["details"]) == (403, "Forbidden", {"name": "a", "kind": "configmaps"})
    who = 'User "system:serviceaccount:default:robot" cannot'
    where = 'in API group "" in the namespace "default"'
    assert answer["message"] == f'configmaps "a" is forbidden: {who} get resource "configmaps" {where}'
    assert [(await asked.ask("GET", path, user=ROBOT))[0] for path in ("/apis", "/version", "/api/v1")] == [200] * 3
    status, answer = await asked.ask("GET", "/apis/apps/v1/deployments", user=ROBOT)
    assert answer["message"] == (
        f'deployments.apps is forbidden: {who} list resource "deployments" in API group "apps" at the cluster scope'
    )


async def test_role_in_a_namespace(asked: Any) -> None:
    """A Role gives its verbs in its namespace only."""
    await _grant(asked, [_rule("configmaps", "get list create")])
    assert (await asked.ask("POST", MAPS, {"metadata": {"name": "a"}}, user=ROBOT))[0] == 201
    assert (await asked.ask("GET", f"{MAPS}/a", user=ROBOT))[0] == 200
    assert (await asked.ask("DELETE", f"{MAPS}/a", user=ROBOT))[0] == 403
    assert (await asked.ask("GET", "/api/v1/configmaps", user=ROBOT))[0] == 403
    assert (await asked.ask("GET", "/api/v1/namespaces/kube-system/configmaps", user=ROBOT))[0] == 403


async def test_changes_count_at_once(asked: Any) -> None:
    """Rights begin and end with their binding."""
    await _grant(asked, [_rule("configmaps", "list")])
    assert (await asked.ask("GET", MAPS, user=ROBOT))[0] == 200
    await asked.ask("DELETE", f"{RBAC}/namespaces/default/rolebindings/granted")
    assert (await asked.ask("GET", MAPS, user=ROBOT))[0] == 403


async def test_cluster_role_bound_in_a_namespace(asked: Any) -> None:
    """A ClusterRole that a RoleBinding names counts in that namespace."""
    await _bind(asked, {"kind": "ClusterRole", "name": "edit"})
    assert (await asked.ask("GET", MAPS, user=ROBOT))[0] == 200
    assert (await asked.ask("GET", "/api/v1/namespaces/default/secrets", user=ROBOT))[0] == 200
    assert (await asked.ask("GET", "/api/v1/namespaces/kube-system/configmaps", user=ROBOT))[0] == 403
    assert (await asked.ask("GET", f"{RBAC}/namespaces/default/roles", user=ROBOT))[0] == 403


async def test_view_does_not_show_secrets(asked: Any) -> None:
    """`view` shows everything but Secrets and roles; a ClusterRole with its label adds to it."""
    await _bind(asked, {"kind": "ClusterRole", "name": "view"}, namespace=None)
    assert (await asked.ask("GET", "/api/v1/pods", user=ROBOT))[0] == 200
    assert (await asked.ask("GET", "/api/v1/secrets", user=ROBOT))[0] == 403
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    more = {"metadata": {"name": "more", "labels": labels}, "rules": [_rule("secrets", "list")]}
    await asked.make(f"{RBAC}/clusterroles", more)
    assert (await asked.ask("GET", "/api/v1/secrets", user=ROBOT))[0] == 200


async def test_resource_names(asked: Any) -> None:
    """A rule for named objects allows these, and a list that selects one of them."""
    await _grant(asked, [_rule("configmaps", "get list watch", resourceNames=["a"])])
    await asked.make(MAPS, {"metadata": {"name": "a"}})
    assert (await asked.ask("GET", f"{MAPS}/a", user=ROBOT))[0] == 200
    assert (await asked.ask("GET", f"{MAPS}/b", user=ROBOT))[0] == 403
    assert (await asked.ask("GET", MAPS, user=ROBOT))[0] == 403
    assert (await asked.ask("GET", f"{MAPS}?fieldSelector=metadata.name=a", user=ROBOT))[0] == 200


async def test_subresources(asked: Any) -> None:
    """A right on a resource is none on its subresources."""
    await _grant(asked, [_rule("serviceaccounts", "*")])
    path = "/api/v1/namespaces/default/serviceaccounts/robot"
    assert (await asked.ask("GET", path, user=ROBOT))[0] == 200
    status, answer = await asked.ask("POST", f"{path}/token", {}, user=ROBOT)
    assert (status, 'resource "serviceaccounts/token"' in answer["message"]) == (403, True)
    await _grant(asked, [_rule("*/token", "create")], name="tokens")
    assert (await asked.ask("POST", f"{path}/token", {}, user=ROBOT))[0] == 201


async def test_anonymous(asked: Any) -> None:
    """Who shows nothing sees health and version, and is told who they are elsewhere."""
    codes = [(await asked.ask("GET", path, user=ANONYMOUS))[0] for path in ("/healthz", "/version", "/api", "/x")]
    assert codes == [200, 200, 403, 403]
    _, answer = await asked.ask("GET", "/x", user=ANONYMOUS)
    assert answer["message"] == 'forbidden: User "system:anonymous" cannot get path "/x"'


async def test_impersonation(asked: Any) -> None:
    """Who may be somebody else has that user's rights, no longer their own."""
    be = {"impersonate-user": "jane", "impersonate-group": "dev,ops", "impersonate-extra-team%2fx": "blue"}
    status, answer = await asked.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, headers=be)
    info = answer["status"]["userInfo"]
    assert (status, info["username"], info["groups"]) == (201, "jane", ["dev", "ops", "system:authenticated"])
    assert info["extra"] == {"team/x": ["blue"]}
    status, answer = await asked.ask("GET", MAPS, headers=be)
    assert (status, 'User "jane"' in answer["message"]) == (403, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"impersonate-user": "jane"},
        {"impersonate-user": "system:serviceaccount:default:other"},
        {"impersonate-user": "free", "impersonate-group": "system:masters"},
        {"impersonate-user": "free", "impersonate-uid": "1"},
        {"impersonate-user": "free", "impersonate-extra-a": "b"},
    ],
)
async def test_impersonation_is_a_right(asked: Any, headers: dict[str, str]) -> None:
    """Each part of whom one wants to be has to be allowed."""
    await _grant(asked, [_rule("users", "impersonate", resourceNames=["free"])], namespace=None)
    status, answer = await asked.ask("GET", "/version", user=ROBOT, headers=headers)
    assert (status, "cannot impersonate" in answer["message"]) == (403, True)
    assert (await asked.ask("GET", "/version", user=ROBOT, headers={"impersonate-user": "free"}))[0] == 200


async def test_impersonated_account_has_its_groups(asked: Any) -> None:
    """Who is a ServiceAccount for a request is in its groups."""
    headers = {"impersonate-user": ROBOT.name}
    _, answer = await asked.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, headers=headers)
    assert tuple(answer["status"]["userInfo"]["groups"]) == ROBOT.groups


async def test_groups_without_a_user(asked: Any) -> None:
    """Somebody's groups without somebody are a fault."""
    assert (await asked.ask("GET", "/version", headers={"impersonate-group": "dev"}))[0] == 500


async def test_nobody_gives_what_they_lack(asked: Any) -> None:
    """A role may hold no more than its author may do, unless the author may escalate."""
    await _grant(asked, [_rule("roles", "create update", "rbac.authorization.k8s.io"), _rule("configmaps", "get list")])
    path = f"{RBAC}/namespaces/default/roles"
    less = {"metadata": {"name": "less"}, "rules": [_rule("configmaps", "get")]}
    assert (await asked.ask("POST", path, less, user=ROBOT))[0] == 201
    more = {"metadata": {"name": "more"}, "rules": [_rule("configmaps", "get delete")]}
    status, answer = await asked.ask("POST", path, more, user=ROBOT)
    assert (status, answer["message"].endswith('Resources:["configmaps"], Verbs:["get", "delete"]}')) == (403, True)
    assert (await asked.ask("PUT", f"{path}/less", {**more, "metadata": {"name": "less"}}, user=ROBOT))[0] == 403
    await _grant(asked, [_rule("roles", "escalate", "rbac.authorization.k8s.io")], name="escalate")
    assert (await asked.ask("POST", path, more, user=ROBOT))[0] == 201


async def test_nobody_binds_what_they_lack(asked: Any) -> None:
    """A binding may give no more than its author may do, unless the author may bind that role."""
    await _grant(asked, [_rule("rolebindings", "create", "rbac.authorization.k8s.io")])
    path = f"{RBAC}/namespaces/default/rolebindings"
    binding: dict[str, Any] = {
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [SUBJECT],
    }
    assert (await asked.ask("POST", path, binding, user=ROBOT))[0] == 403
    later = {**binding, "roleRef": {**binding["roleRef"], "name": "later"}}
    assert (await asked.ask("POST", path, later, user=ROBOT))[0] == 404
    bind = _rule("clusterroles", "bind", "rbac.authorization.k8s.io", resourceNames=["view"])
    await _grant(asked, [bind], name="bind")
    assert (await asked.ask("POST", path, binding, user=ROBOT))[0] == 201


async def test_reviews_tell_why(asked: Any) -> None:
    """A SubjectAccessReview names the binding that allows, and takes groups into account."""
    await _grant(asked, [_rule("configmaps", "get")])
    wanted = {"namespace": "default", "verb": "get", "resource": "configmaps"}
    spec = {"user": ROBOT.name, "resourceAttributes": wanted}
    _, review = await asked.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
    assert review["status"] == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "granted/default" of Role "granted" to ServiceAccount "robot/default"',
    }
    spec = {"groups": ["system:masters"], "resourceAttributes": wanted}
    _, review = await asked.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
    assert review["status"] == {"allowed": True}


async def test_rules_review(asked: Any) -> None:
    """A SelfSubjectRulesReview lists what the caller has in a namespace."""
    await _grant(asked, [_rule("configmaps", "get")])
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    _, review = await asked.ask("POST", path, {"spec": {"namespace": "default"}}, user=ROBOT)
    assert _rule("configmaps", "get") in review["status"]["resourceRules"]
    assert any("/api/*" in rule["nonResourceURLs"] for rule in review["status"]["nonResourceRules"])
