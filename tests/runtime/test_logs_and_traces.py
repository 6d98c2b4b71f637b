"""Logs are one event and its values; traces are there where they are wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from sandlane.kube.resource import CONFIG_MAPS
from sandlane.runtime.certificates import FileCertificates, SecretCertificates
from sandlane.runtime.controller import Controller
from sandlane.runtime.logging import set_up_logging
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result
from sandlane.runtime.tracing import open_telemetry
from sandlane.runtime.webhook import certificates_for


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line; what is below the level is left out."""
    set_up_logging("json", "info")
    log = structlog.get_logger("test")
    log.debug("unseen")
    log.info("something_happened", key="d/a", count=3)
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["key"], told["count"], told["level"]) == ("something_happened", "d/a", 3, "info")
    assert "timestamp" in told


def test_console_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    """For people; an unknown style or level is refused."""
    set_up_logging("console", "debug")
    structlog.get_logger("test").debug("seen", a=1)
    assert "seen" in capsys.readouterr().err
    for style, level in (("xml", "info"), ("json", "loud")):
        with pytest.raises(ValueError, match="it must be"):
            set_up_logging(style, level)


class Traced:
    """Notes spans."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, dict[str, str]]] = []

    @contextmanager
    def span(self, name: str, **attributes: str) -> Iterator[None]:
        """A span."""
        self.spans.append((name, attributes))
        yield


class Logging:
    """A reconciler that says something."""

    async def reconcile(self, request: Request) -> Result:
        """Say it."""
        structlog.get_logger("test").info("looked")
        return Result.done()


async def test_a_reconcile_is_traced_and_its_logs_say_whose_they_are(rig: Any) -> None:
    """Controller, key and the number of the reconcile are in each line."""
    await rig.config_map("a")
    tracer = Traced()
    client = rig.cluster.client.unguarded()
    manager = Manager(client, clock=rig.clock, rng=rig.cluster.rng, tracer=tracer)
    Controller.managed_by(manager).for_(CONFIG_MAPS).complete(Logging())
    entries: list[Any] = []

    def keep(logger: Any, name: str, event: Any) -> Any:
        entries.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    async with rig.running(manager):
        await rig.rest(manager)
    assert ("reconcile", {"controller": "configmap", "key": "d/a"}) in tracer.spans
    (line,) = [entry for entry in entries if entry["event"] == "looked" and entry["key"] == "d/a"]
    assert line["controller"] == "configmap"
    assert line["reconcile"] > 0


def test_open_telemetry_makes_spans() -> None:
    """With its provider, or without one."""
    tracer = open_telemetry("test")
    assert tracer is not None
    with tracer.span("reconcile", controller="c"):
        pass


def test_certificates_are_what_the_options_ask_for(rig: Any, tmp_path: Path) -> None:
    """Files when a folder is given, our own otherwise."""
    own = certificates_for(rig.manager(), secret="s", names=["a"])
    files = certificates_for(rig.manager(webhook_cert_dir=str(tmp_path)), secret="s", names=["a"])
    assert isinstance(own, SecretCertificates)
    assert isinstance(files, FileCertificates)
