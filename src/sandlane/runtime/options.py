"""The manager's options: flags, fields of a YAML file, and their defaults are one list."""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml


class OptionsError(ValueError):
    """A configuration that cannot be used; the message names file and field."""


class ManagerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What every manager has. An empty bind address turns a server off; `:0` takes any free port."""

    metrics_bind_address: str = ""
    health_probe_bind_address: str = ""
    leader_elect: bool = False
    leader_election_id: str = "sandlane-manager"
    leader_election_namespace: str = ""
    lease_duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    retry_period_seconds: float = 2.0
    webhook_host: str = ""
    webhook_port: int = 0
    webhook_cert_dir: str = ""
    watch_namespaces: tuple[str, ...] = ()
    kube_api_qps: float = 200.0
    kube_api_burst: int = 400
    concurrent_reconciles: int = 4
    graceful_shutdown_seconds: float = 30.0
    resync_seconds: float = 36_000.0
    metrics_auth: bool = False
    tracing: bool = False
    log_format: str = "json"
    log_level: str = "info"


def load_options(path: Path, into: type[ManagerOptions] = ManagerOptions) -> ManagerOptions:
    """Read a YAML file of options. Raises `OptionsError`."""
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise OptionsError(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise OptionsError(f"{path} is not YAML: {error}") from error
    try:
        return msgspec.convert(content, into)
    except msgspec.ValidationError as error:
        raise OptionsError(f"{path}: {error}") from error


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `:port` as a pair. Raises `OptionsError`."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise OptionsError(f"{address!r} is not an address: it must be HOST:PORT or :PORT")
    return host or "0.0.0.0", int(port)
