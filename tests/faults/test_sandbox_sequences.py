"""However a spec came about: a chain of valid and invalid changes ends where a fresh apply of the last spec ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sandlane.api.crd import definitions
from sandlane.kube.client import Client
from sandlane.kube.errors import Invalid
from sandlane.kube.resource import SANDBOXES, Object
from sandlane.testing.harness import Harness, difference
from support.sandboxes import NAMESPACE, PretendDeployments, build, deployment, fork, sandbox, service
from support.thorough import cases

WORKLOADS = ("route", "driver", "eta")
BASE = [each for name in WORKLOADS for each in (deployment(name), service(name))]
LENGTH = 7
SEQUENCES = cases(4)

VALID: list[Object] = [
    {},
    {"customizations": {"images": [{"image": "rides/new:2"}]}},
    {"customizations": {"env": [{"name": "A", "value": "1"}, {"name": "B", "operation": "delete"}]}},
    {
        "customizations": {
            "env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "replicas": 2,
        }
    },
    {"customizations": {"patch": {"type": "merge", "value": {"spec": {"minReadySeconds": 2}}}}},
    {
        "customizations": {
            "patch": {"type": "strategic", "value": {"metadata": {"name": "stolen", "labels": {"x": "y"}}}}
        }
    },
    {
        "customizations": {
            "patch": {"type": "json", "value": [{"op": "remove", "path": "/spec/template/spec/containers/0/ports"}]}
        }
    },
    {"resources": {"limits": {"cpu": "1"}}, "preservedLabels": ["^team$"]},
]
UNFIT: list[Object] = [
    {"preservedLabels": ["^app$"]},
    {"customizations": {"images": [{"image": "x", "container": "nobody"}]}},
    {"customizations": {"patch": {"type": "json", "value": [{"op": "remove", "path": "/spec/none"}]}}},
    {"customizations": {"patch": {"type": "merge", "value": {"spec": {"template": None}}}}},
    {"customizations": {"env": [{"name": "A", "valueFrom": {"fork": {"forkOf": {"name": "nobody"}}}}]}},
    {
        "customizations": {
            "env": [{"name": "A", "valueFrom": {"fork": {"forkOf": {"name": "route"}, "field": "address"}}}]
        }
    },
]
BROKEN: list[Object] = [
    {"customizations": {"replicas": -1}},
    {"customizations": {"env": [{"name": "A"}]}},
    {"customizations": {"patch": {"type": "magic", "value": {}}}},
    {"forkOf": {"kind": "StatefulSet", "name": "route"}},
]
REST: list[Object] = [
    {},
    {"suspended": True},
    {"ttl": {"duration": "3d", "from": "lastUpdate"}},
    {"description": "x", "defaultRouteGroup": {"endpoints": [{"name": "web", "target": "http://route:80"}]}},
]
WRONG: list[Object] = [{"ttl": {"duration": "soon"}}, {"routingKey": "other"}, {"suspended": "maybe"}]


def valid(rng: random.Random) -> Object:
    """A spec that can be followed."""
    forks = [fork(name) | rng.choice(VALID) for name in rng.sample(WORKLOADS, rng.randint(0, 3))]
    replaced = {each["forkOf"]["name"] for each in forks}
    free = [name for name in WORKLOADS if name not in replaced]
    spec: Object = {"forks": forks} | rng.choice(REST)
    if free and rng.random() < 0.4:
        spec["local"] = [
            {"name": f"laptop-{free[0]}", "from": {"name": free[0]}, "mappings": [{"port": 8083, "to": "localhost:1"}]}
        ]
    return spec


def any_spec(rng: random.Random) -> Object:
    """A spec that can be followed, one that does not fit, or one that the API server refuses."""
    spec = valid(rng)
    kind = rng.choice(["valid", "unfit", "broken", "wrong", "twice", "missing"])
    if kind in ("unfit", "broken") and spec["forks"]:
        spec["forks"][-1] |= rng.choice(UNFIT if kind == "unfit" else BROKEN)
    elif kind == "wrong":
        spec |= rng.choice(WRONG)
    elif kind == "twice" and spec["forks"]:
        spec["forks"].append(fork(spec["forks"][0]["forkOf"]["name"]))
    elif kind == "missing":
        spec["forks"].append(fork("nobody"))
    return spec


def steps(specs: list[Object], outcomes: Counter[str]) -> list[Callable[[Client], Awaitable[Any]]]:
    """Create with the first spec, then replace it by each other one; what is refused is passed over.

    The last one may be refused only because a fork cannot turn into another: then the forks are removed before.
    """

    def write(spec: Object, *, last: bool) -> Callable[[Client], Awaitable[Any]]:
        async def step(client: Client) -> None:
            live = await client.get(SANDBOXES, "new-eta", NAMESPACE)
            try:
                await client.replace(SANDBOXES, live | {"spec": spec})
            except Invalid:
                outcomes["refused"] += 1
                if last:
                    live = await client.replace(SANDBOXES, live | {"spec": {"forks": []}})
                    await client.replace(SANDBOXES, live | {"spec": spec})
            else:
                outcomes["accepted"] += 1

        return step

    return [
        lambda client: client.create(SANDBOXES, whole(specs[0])),
        *(write(each, last=each is specs[-1]) for each in specs[1:]),
    ]


def whole(spec: Object) -> Object:
    """The sandbox with a spec."""
    return sandbox() | {"spec": spec}


def without_history(obj: Object) -> Object | None:
    """An object without what tells of the way and not of the place."""
    if obj["kind"] == "Sandbox":
        for each in obj["status"]["conditions"]:
            each.pop("lastTransitionTime", None)
    return obj


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEQUENCES))
async def test_the_way_does_not_matter(seed: int) -> None:
    """Objects, conditions and forks after the chain are those of a sandbox that was made with the last spec."""
    rng = random.Random(seed)
    chain = [valid(rng), *(any_spec(rng) for _ in range(LENGTH)), valid(rng)]
    outcomes: Counter[str] = Counter()

    async def world(*specs: Object) -> dict[str, Object]:
        harness = Harness(
            build,
            objects=[*definitions(), *BASE],
            steps=steps(list(specs), outcomes),
            environment=PretendDeployments,
            normalise=without_history,
        )
        return await harness.undisturbed()

    walked, fresh = await world(*chain), await world(chain[-1])
    assert walked == fresh, difference(fresh, walked)
    assert outcomes["accepted"] >= 2 or seed >= 4, "a chain of the usual ones changes nothing"
