"""The commands of a developer's machine: `connect`, `connections`, `disconnect`, `run`, `env`, `files`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandlane.cli.options import ContextNamespaceOption, DataDirOption, KubeconfigOption, fail

if TYPE_CHECKING:
    from sandlane.laptop.transports import Transport


SandboxOption = Annotated[
    str, typer.Option("--sandbox", "-s", help="The Sandbox whose key and local workload are meant.")
]
WorkloadOption = Annotated[str, typer.Option("--workload", "-w", help="The Deployment whose container is meant.")]
ContainerOption = Annotated[str, typer.Option("--container", "-c", help="Which container, when it has several.")]
PortOption = Annotated[
    list[str] | None, typer.Option("--port", "-p", help="PORT, PORT=LOCAL_PORT or PORT=HOST:LOCAL_PORT.")
]
TcpOption = Annotated[
    list[str] | None,
    typer.Option("--tcp", help="The same for plain TCP, which carries no key: everybody's connections."),
]
TransportOption = Annotated[str, typer.Option("--transport", help="auto, direct or port-forward.")]


def add_to(app: typer.Typer) -> None:
    """Give the app these commands."""
    app.command()(connect)
    app.command()(connections)
    app.command()(disconnect)
    app.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})(run)
    app.command()(env)
    app.command()(files)


def connect(
    sandbox: Annotated[str, typer.Argument(help="The Sandbox whose key reaches this machine.")] = "",
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="LocalWorkloads or Sandboxes to hold, made if need be; - is stdin."),
    ] = None,
    workload: Annotated[str, typer.Option("--workload", "-w", help="The Deployment to stand in for.")] = "",
    port: PortOption = None,
    tcp: TcpOption = None,
    namespace: ContextNamespaceOption = "",
    on_disconnect: Annotated[str, typer.Option("--on-disconnect", help="Fail, Baseline or Hold.")] = "Fail",
    transport: TransportOption = "auto",
    detach: Annotated[bool, typer.Option("--detach", help="Return when connected; go on in the background.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what was made for this in the cluster.")] = False,
    data_dir: DataDirOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Put processes on this machine in the place of workloads, for one sandbox's key."""
    import os

    from sandlane.cli.detached import DETACHED, start_detached

    if detach and DETACHED not in os.environ:
        raise typer.Exit(start_detached(with_input=str(file) == "-"))
    from sandlane.cli.connect import Wanted, connect
    from sandlane.runtime.logging import set_up_logging

    set_up_logging("console", "error")
    if on_disconnect not in ("Fail", "Baseline", "Hold"):
        fail(f"--on-disconnect {on_disconnect}: it must be Fail, Baseline or Hold")
    ports = (tuple(port or ()), tuple(tcp or ()))
    wanted = Wanted(sandbox, file, workload, *ports, namespace, on_disconnect, _transport(transport), keep=keep)
    connect(wanted, kubeconfig, data_dir, fail=fail)


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


def run(
    command: Annotated[list[str] | None, typer.Argument(help="The program and its arguments, after --.")] = None,
    sandbox: SandboxOption = "",
    workload: WorkloadOption = "",
    container: ContainerOption = "",
    namespace: ContextNamespaceOption = "",
    inject_key: Annotated[
        bool, typer.Option("--inject-key", help="Give requests that have no routing key the sandbox's.")
    ] = False,
    reach: Annotated[
        list[str] | None,
        typer.Option("--reach", help="Other namespaces whose Services are reached; default: all you may list."),
    ] = None,
    connect: Annotated[bool, typer.Option("--connect", help="Also `sandlane connect`, as long as it runs.")] = False,
    port: PortOption = None,
    tcp: TcpOption = None,
    transport: TransportOption = "auto",
    data_dir: DataDirOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Run a program here that reaches the cluster's Services, with a workload's environment."""
    from sandlane.cli.connect import Wanted
    from sandlane.cli.run import Seen, run
    from sandlane.runtime.logging import set_up_logging

    set_up_logging("console", "error")
    if connect and not sandbox:
        fail("--connect needs a sandbox: name it with --sandbox")
    ports = (tuple(port or ()), tuple(tcp or ()))
    wanted = Wanted(sandbox, None, workload, *ports, namespace, transport=_transport(transport))
    seen = Seen(sandbox, workload, container, namespace, tuple(reach or ()))
    raise typer.Exit(
        run(
            command or [],
            seen,
            kubeconfig,
            data_dir,
            inject_key=inject_key,
            connect=wanted if connect else None,
            fail=fail,
        )
    )


def env(
    sandbox: SandboxOption = "",
    workload: WorkloadOption = "",
    container: ContainerOption = "",
    namespace: ContextNamespaceOption = "",
    output: Annotated[str, typer.Option("--output", "-o", help="export, dotenv or json")] = "export",
    data_dir: DataDirOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Print the variables that a workload's container has, as far as you may read them."""
    from sandlane.cli.run import Seen, show_env

    show_env(Seen(sandbox, workload, container, namespace), kubeconfig, data_dir, output, fail=fail)


def files(
    sandbox: SandboxOption = "",
    workload: WorkloadOption = "",
    container: ContainerOption = "",
    namespace: ContextNamespaceOption = "",
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Write them under this folder; default: list them.")
    ] = None,
    data_dir: DataDirOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Write the files of a workload's ConfigMaps, Secrets and downward API, as far as you may read them."""
    from sandlane.cli.run import Seen, write_files

    write_files(Seen(sandbox, workload, container, namespace), kubeconfig, data_dir, output_dir, fail=fail)


def _transport(text: str) -> Transport:
    from sandlane.laptop.transports import Transport

    if text not in list(Transport):
        fail(f"--transport {text}: it must be one of {', '.join(Transport)}")
    return Transport(text)
