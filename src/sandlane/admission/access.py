"""A user may only fork what they could run: what a sandbox needs the requester to be allowed, and the asking.

`needed` is pure; `check` sends SubjectAccessReviews.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from sandlane.kube.client import Client
from sandlane.kube.resource import SUBJECT_ACCESS_REVIEWS, Object
from sandlane.runtime.admission_review import AdmissionRequest, Cause
from sandlane.sandbox.plan import Plan
from sandlane.world.records import Sandbox


class Need(msgspec.Struct, frozen=True, order=True):
    """A verb on a resource; an empty name means all objects of the namespace."""

    verb: str
    group: str
    resource: str
    name: str = ""

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {kind}" + (f" {self.name!r}" if self.name else "")


def needed(sandbox: Sandbox, plan: Plan) -> dict[Need, str]:
    """What the requester of a sandbox must be allowed, and the field that asks for it."""
    found: dict[Need, str] = {}
    for index, (fork, planned) in enumerate(zip(sandbox.spec.forks, plan.forks, strict=True)):
        path = f"spec.forks[{index}]"
        found.setdefault(Need("create", "apps", "deployments"), f"{path}.forkOf")
        if planned.deployment is not None and planned.baseline is not None:
            before = secrets(planned.baseline.object()["spec"]["template"])
            after = secrets(planned.deployment["spec"]["template"])
            for name in sorted(after - before):
                found.setdefault(Need("get", "", "secrets", name), f"{path}.customizations")
            continue
        for position, variable in enumerate(fork.customizations.env):
            reference = variable.value_from.secret_key_ref if variable.value_from else None
            if reference is not None:
                where = f"{path}.customizations.env[{position}]"
                found.setdefault(Need("get", "", "secrets", str(reference.get("name", ""))), where)
        if fork.customizations.patch is not None:
            # What it comes to is not known before the baseline is: any Secret may be among it.
            found.setdefault(Need("get", "", "secrets"), f"{path}.customizations.patch")
    return found


def secrets(template: Any) -> set[str]:
    """The names of all Secrets that a Pod template refers to, wherever they are."""
    return set(_secrets(template, ""))


def _secrets(value: Any, field: str) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _secrets(each, field)
        return
    if not isinstance(value, dict):
        return
    if field.endswith("secret") or field.endswith("secrets") or "secretref" in field or "secretkeyref" in field:
        for key in ("name", "secretName"):
            if isinstance(value.get(key), str):
                yield value[key]
    if isinstance(value.get("secretName"), str):
        yield value["secretName"]
    for key, child in value.items():
        yield from _secrets(child, key.lower())


async def check(client: Client, request: AdmissionRequest, needs: dict[Need, str]) -> list[Cause]:
    """Everything that the requester may not do, and the fields that ask for it."""
    order = sorted(needs)
    answers = await asyncio.gather(*(_allowed(client, request, need) for need in order))
    namespace = request.key.namespace
    return [
        Cause(needs[need], _sentence(request.user, need, namespace, why), "Forbidden")
        for need, (allowed, why) in zip(order, answers, strict=True)
        if not allowed
    ]


def _sentence(user: str, need: Need, namespace: str, why: str) -> str:
    return f"user {user!r} may not {need} in namespace {namespace!r}" + (f" ({why})" if why else "")


async def _allowed(client: Client, request: AdmissionRequest, need: Need) -> tuple[bool, str]:
    attributes = {
        "namespace": request.key.namespace,
        "verb": need.verb,
        "group": need.group,
        "resource": need.resource,
        "name": need.name,
    }
    spec: Object = {"user": request.user, "groups": list(request.groups), "resourceAttributes": attributes}
    if request.user_uid:
        spec["uid"] = request.user_uid
    if request.extra:
        spec["extra"] = request.extra
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec}
    answer = (await client.create(SUBJECT_ACCESS_REVIEWS, review)).get("status") or {}
    return bool(answer.get("allowed")), str(answer.get("reason") or "")
