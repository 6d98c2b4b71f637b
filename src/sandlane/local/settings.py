"""The data directory of a local cluster: its files, its format version, and the addresses that the cluster uses.

Every process of the cluster reads the same `cluster.json`; only the supervisor writes it. A cluster owns one block
127.N.0.0/16: 127.N.0.x for its own processes, 127.N.32.0 to 127.N.63.255 for Services, from 127.N.64.0 for Pods.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from sandlane.api.places import ROUTES_GRPC_PORT, ROUTES_PORT

FORMAT = "1"
"""Version of the data directory's format; another one is refused."""
FIRST_BLOCK, LAST_BLOCK = 16, 250
API_PORT_BASE = 16_000
PREVIEW_PORT_BASE = 17_000
CLAIM_PORT = 10_999
XDS_PORT = 18_000
HEALTH_PORT = 18_001
METRICS_PORT = 18_002
WEBHOOK_PORT = 18_003
NODE_PORT = 10_250
NODE_NAME = "laptop"
LEAST_FREE = 64 * 1024 * 1024


class DataDirError(Exception):
    """The data directory cannot be used; the message says why and what to do."""


class Settings(msgspec.Struct, frozen=True, rename="camel"):
    """The addresses of one local cluster."""

    block: int
    api_port: int

    def address(self, last: int) -> str:
        """An address of the cluster's own part of the block."""
        return f"127.{self.block}.0.{last}"

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def claim(self) -> tuple[str, int]:
        """The address whose binding claims the block."""
        return self.address(1), CLAIM_PORT

    @property
    def agent_xds(self) -> tuple[str, int]:
        """Where the agent's xDS server gives the Service proxy its configuration."""
        return self.address(2), XDS_PORT

    @property
    def agent_health(self) -> tuple[str, int]:
        """Where the agent answers `/readyz`."""
        return self.address(2), HEALTH_PORT

    @property
    def manager_xds(self) -> tuple[str, int]:
        """Where the manager's xDS server listens."""
        return self.address(3), XDS_PORT

    @property
    def manager_health(self) -> tuple[str, int]:
        """Where the manager answers `/readyz`."""
        return self.address(3), HEALTH_PORT

    @property
    def manager_metrics(self) -> tuple[str, int]:
        """Where the manager answers `/metrics`."""
        return self.address(3), METRICS_PORT

    @property
    def manager_webhook(self) -> tuple[str, int]:
        """Where the API server asks the manager's webhooks."""
        return self.address(3), WEBHOOK_PORT

    @property
    def manager_routes(self) -> tuple[str, int]:
        """Where the manager serves the routes API over HTTP."""
        return self.address(3), ROUTES_PORT

    @property
    def manager_routes_grpc(self) -> tuple[str, int]:
        """The same over gRPC."""
        return self.address(3), ROUTES_GRPC_PORT

    @property
    def node(self) -> tuple[str, int]:
        """Where the node answers the API server's questions about logs."""
        return self.address(2), NODE_PORT

    @property
    def preview(self) -> tuple[str, int]:
        """Where preview endpoints are reached: `*.localhost` is this machine."""
        return "127.0.0.1", PREVIEW_PORT_BASE + self.block

    @property
    def pod_cidr(self) -> str:
        """Where Pod addresses come from."""
        return f"127.{self.block}.64.0/18"

    @property
    def service_cidr(self) -> str:
        """Where cluster IPs come from: 127.N.32.0 to 127.N.63.255, clear of the cluster's own part."""
        return f"127.{self.block}.32.0/19"


class DataDir:
    """Names of the files in a data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.version = self.root / "version"
        self.lock = self.root / "lock"
        self.settings_file = self.root / "cluster.json"
        self.kubeconfig = self.root / "kubeconfig"
        self.logs = self.root / "logs"
        self.run = self.root / "run"
        self.status = self.run / "status.json"
        self.proxy_config = self.run / "proxy.json"
        self.manager_options = self.root / "manager.yaml"
        """Options of the manager that the user wants otherwise; it need not be there."""

    def log(self, name: str) -> Path:
        """The log file of one process."""
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Make the directory (0700), check its format and the free space. Raises `DataDirError`."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            self.root.chmod(0o700)
            if self.version.exists():
                self.check_version()
            elif any(path not in (self.lock, self.manager_options) for path in self.root.iterdir()):
                raise DataDirError(f"{self.root} is not empty and was not made by sandlane: choose another --data-dir")
            self._check_space()
            if not self.version.exists():
                write_whole(self.version, f"{FORMAT}\n".encode())
            self.logs.mkdir(mode=0o700, exist_ok=True)
            self.run.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise DataDirError(f"cannot use {self.root}: {error.strerror or error}") from error

    def check_version(self) -> None:
        """Raises `DataDirError` if the directory is of another format."""
        found = self.version.read_text(encoding="utf-8").strip()
        if found != FORMAT:
            raise DataDirError(
                f"{self.root} has data format {found or '(empty)'}, this sandlane reads format {FORMAT}: use the "
                f"sandlane that made it, choose another --data-dir, or remove the directory to start afresh"
            )

    def _check_owner(self) -> None:
        if self.root.stat().st_uid != os.geteuid():
            raise DataDirError(f"{self.root} belongs to another user: choose another --data-dir")

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.root).free
        if free < LEAST_FREE:
            raise DataDirError(
                f"the disk that holds {self.root} is full ({free // 2**20} MiB free, {LEAST_FREE // 2**20} MiB "
                f"needed): make room or choose another --data-dir"
            )

    def settings(self) -> Settings | None:
        """The cluster's addresses, None before its first start. Raises `DataDirError`."""
        try:
            return msgspec.json.decode(self.settings_file.read_bytes(), type=Settings)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise DataDirError(f"cannot read {self.settings_file}: {error}") from error


def kubeconfig_written(data: DataDir, settings: Settings) -> bool:
    """Whether the kubeconfig is there and is of this run: an old one may name another port."""
    try:
        return settings.server.encode() in data.kubeconfig.read_bytes()
    except FileNotFoundError:
        return False


def default_data_dir() -> Path:
    """`$SANDLANE_DATA_DIR`, else `~/.sandlane`."""
    return Path(os.environ.get("SANDLANE_DATA_DIR") or "~/.sandlane").expanduser()


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file so that readers see the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    temporary.replace(path)
