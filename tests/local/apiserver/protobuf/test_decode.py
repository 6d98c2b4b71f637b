"""Protobuf request bodies. The encoder here is the test's own, written from the protobuf encoding rules."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandlane.local.apiserver.protobuf.decode import decode
from sandlane.local.apiserver.protobuf.reader import ProtobufError
from sandlane.local.apiserver.wire.conform import conform


def varint(value: int) -> bytes:
    """A base-128 number, negative ones as 64-bit two's complement."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields: tuple[int, Any]) -> bytes:
    """A message: integers as varints, floats as fixed64, texts and bytes with a length."""
    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 1) + struct.pack("<d", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """The body of a request."""
    return b"k8s\0" + message((1, message((1, api_version), (2, kind))), (2, raw), (3, ""), (4, ""))


def test_namespace() -> None:
    """What `kubectl create namespace` sends: metadata with a name and an empty creation time."""
    raw = message((1, message((1, "team"), (2, ""), (8, b""))), (2, b""), (3, message((1, ""))))
    obj = decode(envelope("v1", "Namespace", raw))
    assert (obj["apiVersion"], obj["kind"], obj["metadata"]["name"]) == ("v1", "Namespace", "team")
    assert conform(obj, "io.k8s.api.core.v1.Namespace")[0] == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "team"},
        "spec": {},
        "status": {},
    }


def test_maps_bytes_and_times() -> None:
    """Map entries, bytes as base64, times in seconds and microseconds."""
    meta = message((1, "s"), (8, message((1, 1577836800))), (11, message((1, "a"), (2, "b"))), (11, message((1, "c"))))
    secret = decode(
        envelope("v1", "Secret", message((1, meta), (2, message((1, "k"), (2, b"\x00\xff"))), (3, "Opaque")))
    )
    assert secret["data"] == {"k": base64.b64encode(b"\x00\xff").decode()}
    assert secret["metadata"] == {
        "name": "s",
        "creationTimestamp": "2020-01-01T00:00:00Z",
        "labels": {"a": "b", "c": ""},
    }
    lease = message((2, message((1, "me"), (2, 15), (4, message((1, 1577836800), (2, 1_500_000))))))
    assert decode(envelope("coordination.k8s.io/v1", "Lease", lease))["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "renewTime": "2020-01-01T00:00:00.001500Z",
    }


def test_deployment() -> None:
    """Nested lists, inlined types, quantities, IntOrString and negative numbers."""
    limits = message((1, "cpu"), (2, message((1, "500m"))))
    port = message((1, "http"), (3, 80), (4, "TCP"))
    probe = message((1, message((2, message((1, "/"), (2, message((1, 1), (2, 0), (3, "http"))))))), (2, 3))
    container = message((1, "main"), (2, "i:1"), (6, port), (8, message((1, limits))), (11, probe))
    volume = message((1, "v"), (2, message((2, b""))))
    pod = message((1, volume), (2, container), (4, -1))
    spec = message((1, 2), (3, message((2, pod))), (4, message((2, message((1, message((1, 0), (2, 1))))))))
    obj = decode(envelope("apps/v1", "Deployment", message((2, spec))))["spec"]
    template = obj["template"]["spec"]
    assert obj["replicas"] == 2
    assert obj["strategy"] == {"rollingUpdate": {"maxUnavailable": 1}}
    assert template["terminationGracePeriodSeconds"] == -1
    assert template["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert template["containers"] == [
        {
            "name": "main",
            "image": "i:1",
            "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "500m"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "initialDelaySeconds": 3},
        }
    ]


def test_lists_in_maps() -> None:
    """A map of lists (extra attributes of a user) has a message around each list."""
    extra = message((1, "scopes"), (2, message((1, "a"), (1, "b"))))
    review = decode(envelope("authorization.k8s.io/v1", "SubjectAccessReview", message((2, message((5, extra))))))
    assert review["spec"]["extra"] == {"scopes": ["a", "b"]}


def test_delete_options() -> None:
    """Options belong to every group, as deletion and eviction send them."""
    options = decode(envelope("policy/v1", "DeleteOptions", message((1, 0), (4, "Background"), (5, "All"))))
    assert options == {
        "apiVersion": "policy/v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Background",
        "dryRun": ["All"],
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"k8s\0",
        b"k8s\0\xff",
        b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        envelope("v1", "Nonsense", b""),
        envelope("apps/v1", "Namespace", b""),
        envelope("v1", "Namespace", b"\x0a\x05abc"),
        envelope("v1", "Namespace", message((1, 5))),
        envelope("v1", "Namespace", message((1, message((1, b"\xff\xfe"))))),
        envelope("v1", "Namespace", message((1, message((7, "x"))))),
        envelope("v1", "Namespace", b"\x03"),
        envelope("v1", "Namespace", message((1, message((8, message((1, 2**62))))))),
        b"k8s\0" + message((1, message((1, "v1"), (2, "Namespace"))), (3, "gzip")),
    ],
)
def test_refused(body: bytes) -> None:
    """Broken, foreign and truncated bodies are refused."""
    with pytest.raises(ProtobufError):
        decode(body)


TREES = st.recursive(
    st.binary(max_size=6) | st.integers(0, 2**64 - 1).map(varint),
    lambda inner: st.lists(st.tuples(st.integers(1, 20), inner), max_size=4).map(lambda fields: message(*fields)),
    max_leaves=12,
)
KINDS = st.sampled_from(
    [("apps/v1", "Deployment"), ("v1", "Pod"), ("v1", "Secret"), ("autoscaling/v2", "HorizontalPodAutoscaler")]
)


@given(KINDS, TREES | st.binary(max_size=40))
def test_never_anything_but_a_protobuf_error(kind: tuple[str, str], raw: bytes) -> None:
    """Whatever comes, the answer is an object or a ProtobufError."""
    for body in (envelope(*kind, raw), b"k8s\0" + raw, raw):
        try:
            decode(body)
        except ProtobufError:
            pass
