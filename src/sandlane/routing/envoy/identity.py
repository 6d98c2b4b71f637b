"""Who may ask the xDS server for what: both ends show certificates of an authority that serves nothing else. Pure.

A client's certificate holds one URI, `spiffe://sandlane/IDENTITY`; it may join the xDS groups `IDENTITY` and `IDENTITY/...`, whatever
its node says. A router's identity is `router/NAMESPACE`. The certificate lies in a Secret beside the router; Envoy follows the mounted
files (https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret, "key rotation"), so that a renewal needs no restart.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sandlane.kube.resource import Object
from sandlane.runtime.signing import KeyPair

Config = dict[str, Any]
SERVER = "xds.sandlane"
"""The DNS name in the xDS server's certificate, however its address is written."""
CERTIFICATE = "sandlane-xds-certificate"
"""The Secret in the manager's namespace that holds the authority and the server's certificate."""
FOLDER = "/etc/sandlane/xds"
FINGERPRINT = "sandlane.dev/certificate"
"""On Pods that have their certificate in the environment: a new one needs new Pods."""
_PREFIX = "spiffe://sandlane/"
_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_PAIR, _TRUST = "identity", "trust"
_VARIABLES = {"XDS_CERTIFICATE": "tls.crt", "XDS_KEY": "tls.key", "XDS_CA": "ca.crt"}


class Credentials(msgspec.Struct, frozen=True):
    """How a Pod of ours gets its certificate: from a Secret, mounted, or in its environment where nothing can be mounted."""

    secret: str
    in_environment: bool = False


def uri(identity: str) -> str:
    """An identity as it is written in a certificate."""
    return _PREFIX + identity


def identity_in(uris: Iterable[bytes]) -> str:
    """The identity that a verified certificate holds; empty when it is not exactly one."""
    found = [each.decode(errors="replace") for each in uris]
    return found[0].removeprefix(_PREFIX) if len(found) == 1 and found[0].startswith(_PREFIX) else ""


def may_join(identity: str, group: str) -> bool:
    """Whether a client may ask for the resources of a group."""
    return bool(identity) and (group == identity or group.startswith(identity + "/"))


def secret(namespace: str, name: str, labels: Mapping[str, str], pair: KeyPair, bundle: bytes) -> Object:
    """The Secret: certificate, key and whom to trust, as they are and as Envoy reads them from files."""
    identity = {"tls_certificate": {"certificate_chain": _inline(pair.certificate), "private_key": _inline(pair.key)}}
    trust = {"validation_context": {"trusted_ca": _inline(bundle), "match_typed_subject_alt_names": _SERVER_NAME}}
    files = {
        "tls.crt": pair.certificate,
        "tls.key": pair.key,
        "ca.crt": bundle,
        f"{_PAIR}.json": _delivered(_PAIR, identity),
        f"{_TRUST}.json": _delivered(_TRUST, trust),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "data": {file: base64.b64encode(content).decode() for file, content in files.items()},
    }


def transport_socket(credentials: Credentials) -> Config:
    """mTLS for the cluster of the xDS server in a bootstrap."""
    if credentials.in_environment:
        common: Config = {
            "tls_certificates": [
                {
                    "certificate_chain": {"environment_variable": "XDS_CERTIFICATE"},
                    "private_key": {"environment_variable": "XDS_KEY"},
                }
            ],
            "validation_context": {
                "trusted_ca": {"environment_variable": "XDS_CA"},
                "match_typed_subject_alt_names": _SERVER_NAME,
            },
        }
    else:
        common = {
            "tls_certificate_sds_secret_configs": [_followed(_PAIR)],
            "validation_context_sds_secret_config": _followed(_TRUST),
        }
    common["tls_params"] = {"tls_minimum_protocol_version": "TLSv1_2"}
    context = {"@type": _TYPE + "UpstreamTlsContext", "sni": SERVER, "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def equip(template: Object, credentials: Credentials, fingerprint: str) -> Object:
    """A Pod template of one container, with the certificate. `fingerprint` tells one certificate from the next."""
    (container,) = template["spec"]["containers"]
    metadata, spec = template["metadata"], template["spec"]
    if credentials.in_environment:
        variables = [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": credentials.secret, "key": key}}}
            for name, key in _VARIABLES.items()
        ]
        container = {**container, "env": [*container["env"], *variables]}
        metadata = {**metadata, "annotations": {FINGERPRINT: fingerprint}}
        return {"metadata": metadata, "spec": {**spec, "containers": [container]}}
    mount = {"name": "xds", "mountPath": FOLDER, "readOnly": True}
    volume = {"name": "xds", "secret": {"secretName": credentials.secret, "defaultMode": 0o444}}
    container = {**container, "volumeMounts": [mount]}
    return {"metadata": metadata, "spec": {**spec, "containers": [container], "volumes": [volume]}}


_SERVER_NAME = [{"san_type": "DNS", "matcher": {"exact": SERVER}}]


def _inline(content: bytes) -> Config:
    return {"inline_string": content.decode()}


def _delivered(name: str, content: Config) -> bytes:
    return json.dumps({"resources": [{"@type": _TYPE + "Secret", "name": name, **content}]}).encode()


def _followed(name: str) -> Config:
    """A file that is read again when the kubelet swaps the folder of the volume."""
    source = {"path": f"{FOLDER}/{name}.json", "watched_directory": {"path": FOLDER}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}
