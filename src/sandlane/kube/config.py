"""How to reach an API server and who to be there: from a kubeconfig file, or from inside a cluster."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sandlane.kube.clock import Clock, SystemClock, parse_timestamp

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_LIFETIME = 60.0
"""Seconds after which a token file is read again (the kubelet rotates it well before it expires)."""
PLUGIN_TIMEOUT = 60.0


class ConfigError(Exception):
    """There is no usable configuration; the message says where it was looked for and what is wrong."""


class ExecPlugin(msgspec.Struct, frozen=True, rename="camel"):
    """`users[].user.exec` of a kubeconfig (client.authentication.k8s.io)."""

    command: str
    api_version: str = "client.authentication.k8s.io/v1"
    args: tuple[str, ...] = ()
    env: tuple[dict[str, str], ...] = ()
    provide_cluster_info: bool = False
    install_hint: str = ""


class Config(msgspec.Struct):
    """One server and one identity. PEM texts are bytes; `namespace` is the context's default."""

    server: str
    ca: bytes | None = None
    insecure: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    token: str = ""
    token_file: Path | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    username: str = ""
    password: str = ""
    plugin: ExecPlugin | None = None
    namespace: str = "default"
    clock: Clock = msgspec.field(default_factory=SystemClock)
    _cached: str = ""
    _until: float = 0.0

    def ssl_context(self) -> ssl.SSLContext | bool:
        """TLS as the configuration wants it. Raises `ConfigError` for certificates that do not load."""
        if not self.server.startswith("https"):
            return True
        try:
            context = ssl.create_default_context(cadata=self.ca.decode() if self.ca else None)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate and self.key:
                with tempfile.NamedTemporaryFile() as file:  # 0600; the ssl module only loads from files
                    file.write(self.certificate + b"\n" + self.key)
                    file.flush()
                    context.load_cert_chain(file.name)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"the certificates for {self.server} do not load: {error}") from error
        return context

    async def headers(self) -> dict[str, str]:
        """The headers that carry the identity. Raises `ConfigError` when a token cannot be had."""
        if self.username:
            pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return {"authorization": f"Basic {pair}"}
        token = await self._token()
        return {"authorization": f"Bearer {token}"} if token else {}

    async def _token(self) -> str:
        if self.token:
            return self.token
        now = self.clock.monotonic()
        if self._cached and now < self._until:
            return self._cached
        if self.token_file is not None:
            try:
                self._cached = self.token_file.read_text().strip()
            except OSError as error:
                raise ConfigError(f"cannot read the token file: {error}") from error
            self._until = now + TOKEN_LIFETIME
        elif self.plugin is not None:
            await self._run_plugin(self.plugin)
        return self._cached

    async def _run_plugin(self, plugin: ExecPlugin) -> None:
        info: dict[str, Any] = {
            "apiVersion": plugin.api_version,
            "kind": "ExecCredential",
            "spec": {"interactive": False},
        }
        if plugin.provide_cluster_info:
            cluster: dict[str, Any] = {"server": self.server}
            if self.ca:
                cluster["certificate-authority-data"] = base64.b64encode(self.ca).decode()
            info["spec"]["cluster"] = cluster
        env = os.environ | {item["name"]: item["value"] for item in plugin.env}
        env["KUBERNETES_EXEC_INFO"] = msgspec.json.encode(info).decode()
        try:
            process = await asyncio.create_subprocess_exec(
                plugin.command, *plugin.args, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
        except OSError as error:
            raise ConfigError(f"credential plugin {plugin.command}: {error}. {plugin.install_hint}".strip()) from error
        try:
            async with asyncio.timeout(PLUGIN_TIMEOUT):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise ConfigError(f"credential plugin {plugin.command}: no answer in {PLUGIN_TIMEOUT:.0f} s") from None
        if process.returncode:
            raise ConfigError(f"credential plugin {plugin.command} failed: {err.decode(errors='replace').strip()}")
        try:
            status = msgspec.json.decode(out)["status"]
            self._cached = status.get("token", "")
            if status.get("clientCertificateData"):
                self.certificate = status["clientCertificateData"].encode()
                self.key = status["clientKeyData"].encode()
            expiry = status.get("expirationTimestamp")
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"credential plugin {plugin.command} printed no ExecCredential: {error!r}") from error
        left = (parse_timestamp(expiry) - self.clock.now()).total_seconds() - 30 if expiry else float("inf")
        self._until = self.clock.monotonic() + left


def load_config(kubeconfig: Path | None = None, context: str | None = None) -> Config:
    """From the given file, `$KUBECONFIG`, the Pod's own, or `~/.kube/config`, in this order. Raises `ConfigError`."""
    if kubeconfig is not None:
        return from_kubeconfig(kubeconfig, context)
    if named := os.environ.get("KUBECONFIG"):
        first = next((Path(part) for part in named.split(":") if part and Path(part).exists()), None)
        if first is None:
            raise ConfigError(f"KUBECONFIG={named}: no such file")
        return from_kubeconfig(first, context)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (IN_CLUSTER / "token").exists():
        return in_cluster()
    home = Path.home() / ".kube" / "config"
    if home.exists():
        return from_kubeconfig(home, context)
    raise ConfigError(f"no cluster given: set KUBECONFIG, or make {home} (looked inside a cluster too)")


def in_cluster() -> Config:
    """The ServiceAccount of the Pod that this runs in."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    namespace = IN_CLUSTER / "namespace"
    return Config(
        server=f"https://{host}:{port}",
        ca=(IN_CLUSTER / "ca.crt").read_bytes(),
        token_file=IN_CLUSTER / "token",
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
    )


def from_kubeconfig(path: Path, context: str | None = None) -> Config:
    """A context of a kubeconfig file (its current one by default). Raises `ConfigError`."""
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise ConfigError(f"cannot read the kubeconfig: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    name = context or content.get("current-context") or ""
    chosen = _named(path, content, "contexts", name)["context"]
    cluster = _named(path, content, "clusters", chosen.get("cluster", ""))["cluster"]
    user = _named(path, content, "users", chosen["user"])["user"] or {} if chosen.get("user") else {}
    folder = path.parent
    plugin = user.get("exec")
    return Config(
        server=cluster["server"],
        ca=_pem(folder, cluster, "certificate-authority"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=cluster.get("tls-server-name", ""),
        proxy_url=cluster.get("proxy-url", ""),
        token=user.get("token", ""),
        token_file=folder / user["tokenFile"] if user.get("tokenFile") and not user.get("token") else None,
        certificate=_pem(folder, user, "client-certificate"),
        key=_pem(folder, user, "client-key"),
        username=user.get("username", ""),
        password=user.get("password", ""),
        plugin=msgspec.convert(_plain(plugin), ExecPlugin) if plugin else None,
        namespace=chosen.get("namespace") or "default",
    )


def _named(path: Path, content: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    for item in content.get(section) or ():
        if item.get("name") == name:
            found: dict[str, Any] = item
            return found
    known = ", ".join(sorted(item.get("name", "") for item in content.get(section) or ())) or "none"
    raise ConfigError(f"{path} has no {section.removesuffix('s')} named {name!r} (it has: {known})")


def _pem(folder: Path, entry: dict[str, Any], name: str) -> bytes | None:
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(str(data))
    if file := entry.get(name):
        try:
            return (folder / str(file)).read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {name} of the kubeconfig: {error}") from error
    return None


def _plain(plugin: dict[str, Any]) -> dict[str, Any]:
    """The plugin's entry without explicit nulls."""
    return {key: value for key, value in plugin.items() if value is not None}
