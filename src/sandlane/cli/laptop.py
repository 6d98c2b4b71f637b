"""The commands of a developer's machine: `connect`, `connections`, `disconnect`, `run`, `env`, `files`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandlane.cli.options import ContextNamespaceOption, DataDirOption, KubeconfigOption, fail


def add_to(app: typer.Typer) -> None:
    """Give the app these commands."""
    app.command()(connect)
    app.command()(connections)
    app.command()(disconnect)


def connect(
    sandbox: Annotated[str, typer.Argument(help="The Sandbox whose key reaches this machine.")] = "",
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="LocalWorkloads or Sandboxes to hold, made if need be; - is stdin."),
    ] = None,
    workload: Annotated[str, typer.Option("--workload", "-w", help="The Deployment to stand in for.")] = "",
    port: Annotated[
        list[str] | None, typer.Option("--port", "-p", help="PORT, PORT=LOCAL_PORT or PORT=HOST:LOCAL_PORT.")
    ] = None,
    namespace: ContextNamespaceOption = "",
    on_disconnect: Annotated[str, typer.Option("--on-disconnect", help="Fail, Baseline or Hold.")] = "Fail",
    transport: Annotated[str, typer.Option("--transport", help="auto, direct or port-forward.")] = "auto",
    detach: Annotated[bool, typer.Option("--detach", help="Return when connected; go on in the background.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what was made for this in the cluster.")] = False,
    data_dir: DataDirOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Put processes on this machine in the place of workloads, for one sandbox's key."""
    from sandlane.cli.connect import Wanted, connect
    from sandlane.laptop.transports import Transport
    from sandlane.runtime.logging import set_up_logging

    set_up_logging("console", "error")
    if transport not in list(Transport):
        fail(f"--transport {transport}: it must be one of {', '.join(Transport)}")
    if on_disconnect not in ("Fail", "Baseline", "Hold"):
        fail(f"--on-disconnect {on_disconnect}: it must be Fail, Baseline or Hold")
    wanted = Wanted(
        sandbox, file, workload, tuple(port or ()), namespace, on_disconnect, Transport(transport), keep=keep
    )
    connect(wanted, kubeconfig, data_dir, detach=detach, fail=fail)


def connections(output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text") -> None:
    """Say what is connected from this machine, and how."""
    from sandlane.cli.connections import show_connections

    show_connections(output, fail=fail)


def disconnect(
    which: Annotated[
        str, typer.Argument(help="A connection's id, sandbox or LocalWorkload; default: the only one.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="All connections of this machine.")] = False,
) -> None:
    """End connections: routes out first, what was made for them removed."""
    from sandlane.cli.connections import disconnect

    disconnect(which, everything=everything, fail=fail)
