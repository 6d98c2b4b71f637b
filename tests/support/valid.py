"""Deployments and Services as people write them, made by Hypothesis, and whether an object is valid by the published schemas."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
from hypothesis import strategies as st

Object = dict[str, Any]

LABELS = {"app": ["route", "eta"], "tier": ["web", "api"], "team": ["a", "b"], "app.kubernetes.io/instance": ["x"]}
SELECTORS = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in LABELS.items()})
QUANTITIES = st.fixed_dictionaries({}, optional={"cpu": st.sampled_from(["100m", "1"]), "memory": st.just("64Mi")})
PORTS = [("http", 8080, "TCP"), ("grpc", 9090, "TCP"), ("dns", 53, "UDP"), ("metrics", 9100, "TCP")]
VOLUMES: list[Object] = [
    {"name": "config", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}},
    {"name": "secret", "secret": {"secretName": "s", "defaultMode": 256}},
    {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
    {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
    {
        "name": "all",
        "projected": {
            "sources": [{"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]
        },
    },
]
ENV: list[Object] = [
    {"name": "A", "value": "1"},
    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
    {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    {"name": "SANDLANE_SANDBOX", "value": "forged"},
]
POD_FIELDS: Object = {
    "serviceAccountName": "app",
    "priorityClassName": "high",
    "terminationGracePeriodSeconds": 5,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {"runAsNonRoot": True, "fsGroup": 1},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "imagePullSecrets": [{"name": "pull"}],
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
    "shareProcessNamespace": True,
}


@cache
def _validator(kind: str) -> Any:
    spec = find_spec("kubernetes_validate")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "kubernetes-json-schema" / "v1.37.0-local-strict"
    whole = msgspec.json.decode((folder / "_definitions.json").read_bytes())
    return jsonschema_rs.validator_for({"$ref": f"#/$defs/{kind}", "$defs": whole["$defs"]})


def problems(obj: Object) -> list[str]:
    """What is wrong with a Deployment or Service, by the schemas that kubernetes-validate carries (strictly)."""
    kind = {"Deployment": "io.k8s.api.apps.v1.Deployment", "Service": "io.k8s.api.core.v1.Service"}[obj["kind"]]
    return [f"{list(error.instance_path)}: {error.message}" for error in _validator(kind).iter_errors(obj)]


@st.composite
def container(draw: st.DrawFn, name: str) -> Object:
    """A container."""
    made: Object = {"name": name, "image": f"registry.test/{name}:1"}
    ports = draw(st.lists(st.sampled_from(PORTS), max_size=3, unique=True))
    if ports:
        host = draw(st.booleans())
        made["ports"] = [
            {"name": f"{name[0]}-{port}" if name != "main" else port, "containerPort": number, "protocol": protocol}
            | ({"hostPort": number} if host else {})
            for port, number, protocol in ports
        ]
        if draw(st.booleans()):
            made["readinessProbe"] = {"tcpSocket": {"port": ports[0][1]}, "periodSeconds": 3}
    if env := draw(st.lists(st.sampled_from(ENV), max_size=3)):
        made["env"] = env
    if draw(st.booleans()):
        made["resources"] = {"requests": draw(QUANTITIES), "limits": draw(QUANTITIES)}
    if draw(st.booleans()):
        made["securityContext"] = {"capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
        made["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "1"]}}}
    return made


@st.composite
def pod_spec(draw: st.DrawFn, labels: Object) -> Object:
    """A Pod's spec."""
    made: Object = {
        "containers": [draw(container(name)) for name in draw(st.sampled_from([["main"], ["main", "side"]]))]
    }
    if draw(st.booleans()):
        sidecar = draw(container("proxy")) | {"restartPolicy": "Always"}
        made["initContainers"] = [draw(container("setup")), sidecar]
    if volumes := draw(st.lists(st.sampled_from(VOLUMES), max_size=3, unique_by=lambda v: v["name"])):
        made["volumes"] = volumes
        made["containers"][0]["volumeMounts"] = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    chosen = draw(st.lists(st.sampled_from(sorted(POD_FIELDS)), max_size=4, unique=True))
    made |= {field: POD_FIELDS[field] for field in chosen}
    about = {"labelSelector": {"matchLabels": draw(st.sampled_from([labels, {"app": "other"}]))}, "topologyKey": "zone"}
    rule = draw(st.sampled_from(["none", "podAffinity", "podAntiAffinity", "spread"]))
    if rule == "spread":
        made["topologySpreadConstraints"] = [about | {"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]
    elif rule != "none":
        preferred = [{"weight": 1, "podAffinityTerm": about}]
        made["affinity"] = {rule: {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    return made


@st.composite
def deployment(draw: st.DrawFn, name: str, **metadata: Any) -> Object:
    """A Deployment."""
    labels = {"own": name} | draw(SELECTORS)
    annotations = {"prometheus.io/scrape": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": draw(pod_spec(labels))}
    spec: Object = {
        "replicas": draw(st.integers(0, 5)),
        "selector": {"matchLabels": {"own": name}},
        "template": template,
    }
    if draw(st.booleans()):
        spec["strategy"] = draw(st.sampled_from([{"type": "Recreate"}, {"rollingUpdate": {"maxSurge": "50%"}}]))
        spec |= {"minReadySeconds": 1, "revisionHistoryLimit": 2, "progressDeadlineSeconds": 60}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name} | metadata, "spec": spec}


@st.composite
def service(draw: st.DrawFn, name: str, owns: str, **metadata: Any) -> Object:
    """A Service of one workload, of several, of none, or of no Pods at all."""
    targets: list[int | str] = ["http", "grpc", "dns", 8080, 53, 7]
    numbers = draw(st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True))
    ports: list[Object] = [
        {
            "name": f"p{number}",
            "port": number,
            "targetPort": draw(st.sampled_from(targets)),
            "protocol": draw(st.sampled_from(["TCP", "UDP"])),
        }
        for number in numbers
    ]
    spec: Object = {"ports": ports}
    if draw(st.integers(0, 4)):
        spec["selector"] = draw(st.one_of(st.just({"own": owns}), SELECTORS.filter(bool)))
    shape = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "headless", "ExternalName"]))
    spec |= {"clusterIP": "None"} if shape == "headless" else {"type": shape}
    if shape == "ExternalName":
        spec["externalName"] = "elsewhere.test"
    if shape == "LoadBalancer":
        spec["externalTrafficPolicy"] = "Local"
    if draw(st.booleans()):
        spec |= {"sessionAffinity": "ClientIP", "publishNotReadyAddresses": True, "internalTrafficPolicy": "Local"}
        ports[0]["appProtocol"] = "kubernetes.io/h2c"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name} | metadata, "spec": spec}
