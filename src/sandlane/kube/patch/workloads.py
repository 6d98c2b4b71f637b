"""What a strategic merge must know of a Deployment, so that it can be patched without Kubernetes' whole OpenAPI.

Every list that is merged is here with its merge key; a list that is not here is replaced whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class MergeSchema(msgspec.Struct, frozen=True):
    """A schema that knows nothing but merge keys and strategies."""

    properties: Mapping[str, MergeSchema] = {}
    items: MergeSchema | None = None
    additional: MergeSchema | None = None
    merge_key: str = ""
    merge_strategy: frozenset[str] = frozenset()


_MERGE = frozenset({"merge"})
_MERGE_RETAIN = frozenset({"merge", "retainKeys"})


def _by(key: str, /, strategy: frozenset[str] = _MERGE, **properties: MergeSchema) -> MergeSchema:
    return MergeSchema(merge_key=key, merge_strategy=strategy, items=MergeSchema(properties=properties))


_CONTAINERS = _by(
    "name", env=_by("name"), ports=_by("containerPort"), volumeDevices=_by("devicePath"), volumeMounts=_by("mountPath")
)
_METADATA = MergeSchema(
    properties={"finalizers": MergeSchema(merge_strategy=_MERGE), "ownerReferences": _by("uid")},
)
_CLAIM_TEMPLATE = MergeSchema(properties={"volumeClaimTemplate": MergeSchema(properties={"metadata": _METADATA})})
POD_SPEC = MergeSchema(
    properties={
        "containers": _CONTAINERS,
        "ephemeralContainers": _CONTAINERS,
        "hostAliases": _by("ip"),
        "imagePullSecrets": _by("name"),
        "initContainers": _CONTAINERS,
        "resourceClaims": _by("name", _MERGE_RETAIN),
        "schedulingGates": _by("name"),
        "topologySpreadConstraints": _by("topologyKey"),
        "volumes": _by("name", _MERGE_RETAIN, ephemeral=_CLAIM_TEMPLATE),
    }
)
POD_TEMPLATE = MergeSchema(properties={"metadata": _METADATA, "spec": POD_SPEC})
DEPLOYMENT = MergeSchema(
    properties={
        "metadata": _METADATA,
        "spec": MergeSchema(
            properties={
                "strategy": MergeSchema(merge_strategy=frozenset({"retainKeys"})),
                "template": POD_TEMPLATE,
            }
        ),
    }
)
