"""The manager's options: flags, fields of a YAML file, and their defaults are one list.

    options = parse_options(sys.argv[1:], ManagerOptions(leader_election_id="guestbook"), prog="guestbook")

Add options of your own in a subclass. A field that is a struct is in the file only.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from sandlane.runtime.logging import LEVELS, STYLES


class OptionsError(ValueError):
    """A configuration that cannot be used; the message names file and field."""


class ManagerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What every manager has. An empty bind address turns a server off; `:0` takes any free port."""

    kubeconfig: str = ""
    """A file; by default $KUBECONFIG, the Pod's own account, ~/.kube/config."""
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

    def __post_init__(self) -> None:
        for name in ("metrics_bind_address", "health_probe_bind_address"):
            if address := getattr(self, name):
                split_address(address)
        if not self.lease_duration_seconds > self.renew_deadline_seconds > self.retry_period_seconds > 0:
            raise OptionsError("leaseDurationSeconds must exceed renewDeadlineSeconds, and that retryPeriodSeconds")
        for name in ("kube_api_qps", "kube_api_burst", "concurrent_reconciles"):
            if getattr(self, name) <= 0:
                raise OptionsError(f"{_flag(name)} must be more than 0")
        if self.log_format not in STYLES or self.log_level not in LEVELS:
            raise OptionsError(f"--log-format is one of {', '.join(STYLES)}; --log-level one of {', '.join(LEVELS)}")


O = TypeVar("O", bound=ManagerOptions)  # noqa: E741 - options


def parse_options(argv: Sequence[str], defaults: O, *, prog: str, description: str = "") -> O:
    """Flags over the file of `--config` over defaults. Raises `OptionsError`; `--help` and mistyped flags exit."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--config", type=Path, help="a YAML file with these options in camelCase")
    for field in msgspec.structs.fields(defaults):
        default = getattr(defaults, field.name)
        shown = "" if default in ("", (), False) else f"default {default}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            continue
        if field.type is bool:
            parser.add_argument(_flag(field.name), action=argparse.BooleanOptionalAction, default=None)
        elif field.type in (int, float):
            parser.add_argument(_flag(field.name), type=field.type, help=shown)
        elif field.type is str:
            choices = {"log_format": STYLES, "log_level": tuple(LEVELS)}.get(field.name)
            parser.add_argument(_flag(field.name), choices=choices, help=shown)
        else:
            parser.add_argument(_flag(field.name), type=_names, help="comma-separated names")
    given = vars(parser.parse_args(argv))
    options = load_options(config, defaults) if (config := given.pop("config")) else defaults
    return msgspec.structs.replace(options, **{name: value for name, value in given.items() if value is not None})


def load_options(path: Path, defaults: O) -> O:
    """The options of a YAML file over defaults. Raises `OptionsError`."""
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise OptionsError(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise OptionsError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise OptionsError(f"{path} must hold fields with values")
    try:
        return msgspec.convert(msgspec.to_builtins(defaults) | content, type(defaults))
    except msgspec.ValidationError as error:
        raise OptionsError(f"{path}: {error}") from error


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `:port` as a pair. Raises `OptionsError`."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise OptionsError(f"{address!r} is not an address: it must be HOST:PORT or :PORT")
    return host or "0.0.0.0", int(port)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)
