"""kubectl's imperative commands, most of which send protobuf, against an API server in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

KUBECTL = str(Path(sys.executable).with_name("kubectl"))
SECONDS = 30


class Kubectl:
    """Runs kubectl as the administrator; `namespace` makes one, and `~` in a command is for a name that is free."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self._environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "KUBECONFIG": str(kubeconfig)}
        self.tag = uuid4().hex[:8]
        self.namespaces: list[str] = []

    def namespace(self, name: str) -> str:
        """A fresh namespace."""
        self.namespaces.append(f"{name}-{self.tag}")
        assert self("create", "namespace", self.namespaces[-1]) == f"namespace/{self.namespaces[-1]} created"
        return self.namespaces[-1]

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """What the command says on both outputs, stripped."""
        done = subprocess.run(
            [KUBECTL, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=self._environment,
            check=False,
        )
        return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def kubectl(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """kubectl; what is not in the namespaces of the tests is deleted at the end."""
    kubectl = Kubectl(kubeconfig, tmp_path_factory.mktemp("kubectl"))
    yield kubectl
    for kind, name in (
        ("clusterrole", "cr"),
        ("clusterrole", "urls"),
        ("clusterrolebinding", "crb"),
        ("priorityclass", "pc"),
    ):
        kubectl("delete", kind, f"{name}-{kubectl.tag}", "--ignore-not-found")
    kubectl("delete", "namespace", "--wait=false", *kubectl.namespaces)


CREATE = [
    ("configmap c --from-literal=a=1", "configmap/c created"),
    ("secret generic s --from-literal=a=1", "secret/s created"),
    ("secret docker-registry r --docker-username=u --docker-password=p", "secret/r created"),
    ("serviceaccount sa", "serviceaccount/sa created"),
    ("deployment web --image=app:1 --replicas=2 --port=80", "deployment.apps/web created"),
    ("job j --image=app:1 -- true", "job.batch/j created"),
    ("cronjob cj --image=app:1 --schedule=0_0_1_1_* -- true", "cronjob.batch/cj created"),
    ("role r --verb=get,list --resource=pods,deployments.apps", "role.rbac.authorization.k8s.io/r created"),
    ("rolebinding rb --role=r --user=joe --group=g", "rolebinding.rbac.authorization.k8s.io/rb created"),
    ("clusterrole cr~ --verb=get --resource=nodes", "clusterrole.rbac.authorization.k8s.io/cr~ created"),
    ("clusterrole urls~ --verb=get --non-resource-url=/metrics", "clusterrole.rbac.authorization.k8s.io/urls~ created"),
    (
        "clusterrolebinding crb~ --clusterrole=cr~ --group=g",
        "clusterrolebinding.rbac.authorization.k8s.io/crb~ created",
    ),
    ("ingress ing --rule=foo.test/bar=svc:80,tls=cert --class=c", "ingress.networking.k8s.io/ing created"),
    ("poddisruptionbudget pdb --selector=app=web --min-available=50%", "poddisruptionbudget.policy/pdb created"),
    ("quota q --hard=count/secrets=20", "resourcequota/q created"),
    ("priorityclass pc~ --value=1000", "priorityclass.scheduling.k8s.io/pc~ created"),
    ("service clusterip one --tcp=80:8080", "service/one created"),
    ("service nodeport two --tcp=80:8080", "service/two created"),
    ("service externalname three --external-name=foo.test", "service/three created"),
]


@pytest.mark.slow
def test_create(kubectl: Kubectl) -> None:
    """Each `kubectl create` makes its object, and a second one says that it is there already."""
    made = kubectl.namespace("made")
    for template, template_said in CREATE:
        command, said = (text.replace("~", f"-{kubectl.tag}") for text in (template, template_said))
        arguments = [each.replace("_", " ") if each.startswith("--schedule") else each for each in command.split()]
        assert kubectl("create", *arguments[:2], "-n", made, *arguments[2:]) == said, command
    assert kubectl("create", "configmap", "c", "-n", made) == (
        'error: failed to create configmap: configmaps "c" already exists'
    )
    images = kubectl("get", "deploy,job,cronjob", "-n", made, "-o", "name").splitlines()
    assert images == ["deployment.apps/web", "job.batch/j", "cronjob.batch/cj"]
    schedule = kubectl("get", "cronjob", "cj", "-n", made, "-o", "jsonpath={.spec.schedule}")
    assert schedule == "0 0 1 1 *"


@pytest.mark.slow
def test_change(kubectl: Kubectl) -> None:
    """The commands that change a workload do so; what they print is what kubectl prints of a real server."""

    changed = kubectl.namespace("changed")

    def run(*arguments: str) -> str:
        return kubectl(*arguments, "-n", changed)

    run("create", "deployment", "web", "--image=app:1", "--port=80")
    assert run("expose", "deployment", "web", "--target-port=8080") == "service/web exposed"
    scaled = run("autoscale", "deployment", "web", "--min=1", "--max=3", "--cpu=50%")
    assert scaled == "horizontalpodautoscaler.autoscaling/web autoscaled"
    assert run("set", "image", "deploy/web", "app=app:2") == "deployment.apps/web image updated"
    assert run("set", "env", "deploy/web", "A=b") == "deployment.apps/web env updated"
    assert (
        run("set", "resources", "deploy/web", "--limits=cpu=0.5") == "deployment.apps/web resource requirements updated"
    )
    assert run("scale", "deploy/web", "--replicas=3") == "deployment.apps/web scaled"
    assert run("rollout", "pause", "deploy/web") == "deployment.apps/web paused"
    assert run("label", "deploy", "web", "a=b") == "deployment.apps/web labeled"
    template = "jsonpath={.spec.replicas} {.spec.paused} {.spec.template.spec.containers[0]['image','env','resources']}"
    shown = run("get", "deploy", "web", "-o", template)
    assert shown == '3 true app:2 [{"name":"A","value":"b"}] {"limits":{"cpu":"500m"}}'
    assert run("get", "hpa", "web", "-o", "jsonpath={.spec.metrics[0].resource.target.averageUtilization}") == "50"
    rows = run("get", "hpa", "--no-headers").split()
    assert rows[:6] == ["web", "Deployment/web", "cpu:", "<unknown>/50%", "1", "3"]


@pytest.mark.slow
def test_lists_and_explain(kubectl: Kubectl) -> None:
    """A `kind: List` is checked against OpenAPI version 2, which kubectl reads in protobuf; explain reads version 3."""
    good = '{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"listed"}}]}'
    listed = kubectl.namespace("listed")
    assert kubectl("create", "-n", listed, "-f", "-", stdin=good) == "configmap/listed created"
    bad = good.replace('"metadata"', '"datax":1,"metadata"')
    assert 'unknown field "datax" in io.k8s.api.core.v1.ConfigMap' in kubectl(
        "create", "-n", listed, "-f", "-", stdin=bad
    )
    said = kubectl("explain", "pod.spec.restartPolicy")
    assert "FIELD: restartPolicy <string>" in said
    assert "ENUM:\n    Always\n    Never\n    OnFailure" in said
    assert "terminationGracePeriodSeconds\t<integer>" in kubectl("explain", "deploy", "--recursive")


@pytest.mark.slow
def test_completion(kubectl: Kubectl) -> None:
    """Names of kinds and of objects are completed from the server."""
    typed = kubectl.namespace("typed")
    kubectl("create", "configmap", "first", "-n", typed)
    assert kubectl("__complete", "get", "configmaps", "-n", typed, "fi").splitlines()[0] == "first"
    assert "deployments.apps" in kubectl("__complete", "get", "deployments").splitlines()
