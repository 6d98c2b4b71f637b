"""`sandlane connections` and `sandlane disconnect`: what `sandlane connect` holds on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

from sandlane.cli.columns import columns
from sandlane.kube.clock import SystemClock
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.registry import Record, ended, records, wait_until_ended

Fail = Callable[[object], NoReturn]
PATIENCE = 20.0


def show_connections(output: str, *, fail: Fail) -> None:
    """Print the connections of this user."""
    if output not in ("text", "json"):
        fail(f"--output {output}: it must be text or json")
    found = _records(fail)
    for number, words in ended():
        print(f"connection {number} has ended: {words}", file=sys.stderr)
    if output == "json":
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    if not found:
        print("nothing is connected from this machine: `sandlane connect SANDBOX` does that")
        return
    rows = [["ID", "LOCAL WORKLOAD", "SANDBOX", "PORTS", "SINCE", "CONNECTION"]]
    for record in found:
        for held in record.state.workloads:
            ports = ",".join(f"{target.port}={target.to}" for target in held.mappings)
            text = held.spoken()
            if held.not_listening:
                text += f"; nothing listens at {', '.join(held.not_listening)}"
            rows.append([record.id, held.title, held.sandbox, ports, record.started_at, text])
        if not record.state.workloads:
            rows.append([record.id, "-", record.sandbox or "-", "-", record.started_at, "starting"])
    print(columns(rows))


def disconnect(which: str, *, everything: bool, fail: Fail) -> None:
    """End a connection: by id, by sandbox, by LocalWorkload, or all."""
    found = _records(fail)
    chosen = [record for record in found if everything or not which or _is_meant(record, which)]
    if not found:
        print("nothing is connected from this machine")
        return
    if not chosen:
        known = ", ".join(f"{record.id} ({record.sandbox or _names(record)})" for record in found)
        fail(f"no connection {which}: there is {known}")
    if len(chosen) > 1 and not everything:
        known = ", ".join(f"{record.id} ({_names(record)})" for record in chosen)
        fail(f"several connections could be meant: {known}; name one, or say --all")
    for record in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
    for record in chosen:
        if not wait_until_ended(record, PATIENCE, SystemClock(), time.sleep):
            fail(f"connection {record.id} has not ended within {PATIENCE:.0f} s: see {record.log}")
        print(f"disconnected {_names(record)}")


def _records(fail: Fail) -> list[Record]:
    try:
        return records()
    except (ConnectError, OSError) as error:
        fail(error)


def _is_meant(record: Record, which: str) -> bool:
    names = {record.id, record.sandbox}
    for held in record.state.workloads:
        names |= {held.title, held.name, held.sandbox}
    return which in names


def _names(record: Record) -> str:
    return ", ".join(held.title for held in record.state.workloads) or record.id
