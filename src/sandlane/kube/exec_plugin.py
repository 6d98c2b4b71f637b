"""Credential plugins of a kubeconfig: a program that prints an `ExecCredential` (client.authentication.k8s.io).

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from datetime import datetime
from typing import Any

import msgspec

from sandlane.kube.clock import parse_timestamp
from sandlane.kube.errors import ConfigError

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
TIMEOUT = 60.0


class ExecPlugin(msgspec.Struct, frozen=True, rename="camel"):
    """`users[].user.exec` of a kubeconfig; `interactive_mode` is Never, IfAvailable or Always."""

    command: str
    api_version: str = VERSIONS[0]
    args: tuple[str, ...] = ()
    env: tuple[dict[str, str], ...] = ()
    provide_cluster_info: bool = False
    install_hint: str = ""
    interactive_mode: str = "IfAvailable"


class Cluster(msgspec.Struct, frozen=True):
    """What a plugin that asks for it is told of the cluster. `config` is the cluster's `exec` extension."""

    server: str
    ca: bytes | None = None
    insecure: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    config: Any = None


class Credential(msgspec.Struct, frozen=True):
    """What a plugin printed: a token, a client certificate with its key (PEM), or all; `expires` None: never."""

    token: str = ""
    certificate: bytes | None = None
    key: bytes | None = None
    expires: datetime | None = None


async def run_plugin(plugin: ExecPlugin, cluster: Cluster) -> Credential:
    """Run the program and read what it prints. Raises `ConfigError` that names the program."""
    if plugin.api_version not in VERSIONS:
        raise ConfigError(
            f"credential plugin {plugin.command}: apiVersion {plugin.api_version} is not supported "
            f"(supported: {', '.join(VERSIONS)})"
        )
    interactive = plugin.interactive_mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
    if plugin.interactive_mode == "Always" and not interactive:
        raise ConfigError(f"credential plugin {plugin.command} needs a terminal, and there is none")
    env = os.environ | {item["name"]: item["value"] for item in plugin.env}
    env["KUBERNETES_EXEC_INFO"] = msgspec.json.encode(_information(plugin, cluster, interactive)).decode()
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.args,
            env=env,
            stdin=None if interactive else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if interactive else asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise ConfigError(f"credential plugin {plugin.command}: {error}. {plugin.install_hint}".strip()) from error
    try:
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate()
    except TimeoutError:
        raise ConfigError(f"credential plugin {plugin.command}: no answer in {TIMEOUT:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise ConfigError(f"credential plugin {plugin.command} failed: {(err or b'').decode(errors='replace').strip()}")
    return _credential(plugin, out)


def _information(plugin: ExecPlugin, cluster: Cluster, interactive: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        given = {
            "server": cluster.server,
            "certificate-authority-data": base64.b64encode(cluster.ca or b"").decode(),
            "insecure-skip-tls-verify": cluster.insecure,
            "tls-server-name": cluster.tls_server_name,
            "proxy-url": cluster.proxy_url,
            "config": cluster.config,
        }
        spec["cluster"] = {name: value for name, value in given.items() if value}
    return {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}


def _credential(plugin: ExecPlugin, out: bytes) -> Credential:
    try:
        printed = msgspec.json.decode(out)
        status = printed["status"]
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        expires = status.get("expirationTimestamp")
        credential = Credential(
            token=status.get("token") or "",
            certificate=certificate.encode() if certificate else None,
            key=key.encode() if key else None,
            expires=parse_timestamp(expires) if expires else None,
        )
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"credential plugin {plugin.command} printed no ExecCredential: {error!r}") from error
    if printed.get("apiVersion") != plugin.api_version:
        raise ConfigError(
            f"credential plugin {plugin.command} answered in {printed.get('apiVersion')}, not {plugin.api_version}"
        )
    if not credential.token and not (credential.certificate and credential.key):
        raise ConfigError(f"credential plugin {plugin.command} gave neither a token nor a client certificate")
    return credential
