"""How to reach an API server and who to be there: from kubeconfig files, or from inside a cluster."""

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

from sandlane.kube.clock import Clock, SystemClock
from sandlane.kube.errors import ConfigError as ConfigError
from sandlane.kube.exec_plugin import Cluster, ExecPlugin, run_plugin

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_LIFETIME = 60.0
"""Seconds after which a token file is read again (the kubelet rotates it well before it expires)."""
EARLY = 30.0
"""Seconds before its expiry that a plugin's credential is renewed."""


class Config(msgspec.Struct, kw_only=True):
    """One server and one identity. PEM texts are bytes; `namespace` is the context's default.

    Certificates given as files are read again when a connection is made. A token file's last good content wins over
    `token`, as in client-go.
    """

    server: str
    ca: bytes | None = None
    insecure: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    token: str = ""
    token_file: Path | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    username: str = ""
    password: str = ""
    impersonate_user: str = ""
    impersonate_groups: tuple[str, ...] = ()
    plugin: ExecPlugin | None = None
    plugin_config: Any = None
    namespace: str = "default"
    clock: Clock = msgspec.field(default_factory=SystemClock)
    _cached: str = ""
    _until: float = 0.0
    _refreshing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)

    async def headers(self) -> list[tuple[str, str]]:
        """The headers that carry the identity. Raises `ConfigError` when a credential cannot be had."""
        if self.plugin is not None or self.token_file is not None:
            async with self._refreshing:
                await self._refresh()
        headers = []
        if self.username:
            pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            headers.append(("authorization", f"Basic {pair}"))
        elif token := self._cached or self.token:
            headers.append(("authorization", f"Bearer {token}"))
        if self.impersonate_user:
            headers.append(("impersonate-user", self.impersonate_user))
            headers += [("impersonate-group", group) for group in self.impersonate_groups]
        return headers

    def expire(self) -> bool:
        """Forget what may have been refused (401). Says whether another attempt would use a fresh credential."""
        self._until = 0.0
        return self.token_file is not None or self.plugin is not None

    def tls_identity(self) -> bytes:
        """The client certificate and key in use (PEM, one after the other); empty for none. Raises `ConfigError`."""
        if self.certificate_file is None or self.key_file is None:
            return self.certificate + b"\n" + self.key if self.certificate and self.key else b""
        try:
            return self.certificate_file.read_bytes() + b"\n" + self.key_file.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read the client certificate: {error}") from error

    def ssl_context(self) -> ssl.SSLContext | bool:
        """TLS as the configuration wants it. Raises `ConfigError` for certificates that do not load."""
        if not self.server.startswith("https"):
            return True
        identity = self.tls_identity()
        try:
            context = ssl.create_default_context(cadata=self.ca.decode() if self.ca else None)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if identity:
                with tempfile.NamedTemporaryFile() as file:  # 0600; the ssl module only loads from files
                    file.write(identity)
                    file.flush()
                    context.load_cert_chain(file.name)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"the certificates for {self.server} do not load: {error}") from error
        return context

    async def _refresh(self) -> None:
        """Read the token file or run the plugin, when that is due."""
        now = self.clock.monotonic()
        if now < self._until:
            return
        if self.token_file is not None:
            try:
                self._cached = self.token_file.read_text().strip()
            except OSError as error:
                if not (self._cached or self.token):
                    raise ConfigError(f"cannot read the token file: {error}") from error
            self._until = now + TOKEN_LIFETIME
        elif self.plugin is not None:
            told = Cluster(
                self.server, self.ca, self.insecure, self.tls_server_name, self.proxy_url, self.plugin_config
            )
            found = await run_plugin(self.plugin, told)
            self._cached = found.token
            if found.certificate and found.key:
                self.certificate, self.key = found.certificate, found.key
            left = (found.expires - self.clock.now()).total_seconds() - EARLY if found.expires else float("inf")
            self._until = self.clock.monotonic() + left


def load_config(kubeconfig: Path | None = None, context: str | None = None) -> Config:
    """From the given file, `$KUBECONFIG`, the Pod's own, or `~/.kube/config`, in this order. Raises `ConfigError`."""
    if kubeconfig is not None:
        return from_kubeconfig(kubeconfig, context)
    if named := os.environ.get("KUBECONFIG"):
        files = [Path(part) for part in named.split(os.pathsep) if part and Path(part).exists()]
        if not files:
            raise ConfigError(f"KUBECONFIG={named}: no such file")
        return _choose(named, _merge([_read(path) for path in files]), context)
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
    return _choose(str(path), _read(path), context)


def _choose(source: str, content: dict[str, Any], context: str | None) -> Config:
    name = context or content.get("current-context") or ""
    chosen = _named(source, content, "contexts", name)["context"]
    cluster_entry = _named(source, content, "clusters", chosen.get("cluster", ""))
    user_entry = _named(source, content, "users", chosen["user"]) if chosen.get("user") else {}
    cluster, user = cluster_entry["cluster"], user_entry.get("user") or {}
    if not cluster.get("server"):
        raise ConfigError(f"{source}: cluster {chosen['cluster']!r} names no server")
    if user.get("auth-provider"):
        raise ConfigError(f"{source}: auth-provider has been removed from Kubernetes; use an exec plugin")
    plugin, folder = user.get("exec"), cluster_entry["folder"]
    home = user_entry.get("folder", folder)
    inline = user.get("client-certificate-data") or user.get("client-key-data")
    try:
        return Config(
            server=cluster["server"],
            ca=_pem(source, folder, cluster, "certificate-authority"),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
            tls_server_name=cluster.get("tls-server-name") or "",
            proxy_url=cluster.get("proxy-url") or "",
            token=user.get("token") or "",
            token_file=home / user["tokenFile"] if user.get("tokenFile") else None,
            certificate=_pem(source, home, user, "client-certificate"),
            key=_pem(source, home, user, "client-key"),
            certificate_file=None if inline else _path(home, user, "client-certificate"),
            key_file=None if inline else _path(home, user, "client-key"),
            username=user.get("username") or "",
            password=user.get("password") or "",
            impersonate_user=user.get("as") or "",
            impersonate_groups=tuple(user.get("as-groups") or ()),
            plugin=_plugin(home, plugin) if plugin else None,
            plugin_config=_extension(cluster),
            namespace=chosen.get("namespace") or "default",
        )
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: user {chosen.get('user')!r}: exec: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    """A kubeconfig file; each of its entries remembers the folder that its file names are relative to."""
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise ConfigError(f"cannot read the kubeconfig: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a kubeconfig")
    for section in ("contexts", "clusters", "users"):
        content[section] = [entry | {"folder": path.parent} for entry in content.get(section) or ()]
    return content


def _merge(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """Several files as one; the first one that names something wins, as in kubectl."""
    merged: dict[str, Any] = {"contexts": [], "clusters": [], "users": []}
    for content in contents:
        merged.setdefault("current-context", content.get("current-context") or None)
        merged["current-context"] = merged["current-context"] or content.get("current-context")
        for section in ("contexts", "clusters", "users"):
            merged[section] += content[section]
    return merged


def _named(source: str, content: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    for item in content[section]:
        if item.get("name") == name:
            found: dict[str, Any] = item
            return found
    known = ", ".join(sorted(item.get("name", "") for item in content[section])) or "none"
    raise ConfigError(f"{source} has no {section.removesuffix('s')} named {name!r} (it has: {known})")


def _path(folder: Path, entry: dict[str, Any], name: str) -> Path | None:
    return folder / str(entry[name]) if entry.get(name) else None


def _pem(source: str, folder: Path, entry: dict[str, Any], name: str) -> bytes | None:
    if data := entry.get(f"{name}-data"):
        try:
            return base64.b64decode(str(data), validate=True)
        except ValueError as error:
            raise ConfigError(f"{source}: {name}-data is not base64: {error}") from error
    if file := entry.get(name):
        try:
            return (folder / str(file)).read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {name} of the kubeconfig: {error}") from error
    return None


def _plugin(folder: Path, entry: dict[str, Any]) -> ExecPlugin:
    """The plugin's entry without explicit nulls; a command with a slash is relative to the file."""
    plain = {key: value for key, value in entry.items() if value is not None}
    command = str(plain.get("command", ""))
    if "/" in command:
        plain["command"] = str(folder / command)
    return msgspec.convert(plain, ExecPlugin)


def _extension(cluster: dict[str, Any]) -> Any:
    """The configuration that a cluster holds for credential plugins."""
    for extension in cluster.get("extensions") or ():
        if extension.get("name") == "client.authentication.k8s.io/exec":
            return extension.get("extension")
    return None
