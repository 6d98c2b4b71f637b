"""`sandlane ...`: every command is a few lines over the rooms below; nothing heavy is imported before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandlane.cli import laptop
from sandlane.cli.options import DataDirOption, KubeconfigOption, NamespaceOption, fail

app = typer.Typer(
    help="Test many changes at the same time inside one shared Kubernetes environment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

laptop.add_to(app)


@app.command()
def up(
    data_dir: DataDirOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when the cluster is ready.")] = False,
    images: Annotated[Path | None, typer.Option("--images", help="Which programs stand for which images.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="The API server's port on 127.0.0.1.")] = None,
) -> None:
    """Start a Kubernetes cluster on this machine."""
    from sandlane.cli.local import up

    up(data_dir, detach=detach, images=images, port=port, fail=fail)


@app.command()
def status(
    data_dir: DataDirOption = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
) -> None:
    """Say how the local cluster is; exit code 0 when it is ready, 3 when it is not running, 1 otherwise."""
    from sandlane.cli.local import status

    raise typer.Exit(status(data_dir, output, fail=fail))


@app.command()
def down(data_dir: DataDirOption = None) -> None:
    """Stop the local cluster; its state is kept for the next `sandlane up`."""
    from sandlane.cli.local import down

    down(data_dir, fail=fail)


@app.command()
def url(
    service: Annotated[str, typer.Argument(help="The Service's name.")],
    namespace: NamespaceOption = "default",
    port: Annotated[str, typer.Option("--port", help="Name or number, when the Service has several ports.")] = "",
    data_dir: DataDirOption = None,
) -> None:
    """Print where a Service of the local cluster is served."""
    from sandlane.cli.local import url

    print(url(data_dir, service, namespace, port, fail=fail))


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def manager(context: typer.Context) -> None:
    """Run the controllers (in a cluster: the manager's Deployment does). `--help` lists its options."""
    from sandlane.cli.manager import main as run_manager

    raise typer.Exit(run_manager(context.args))


@app.command()
def uninstall(
    kubeconfig: KubeconfigOption = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where the manager lives.")] = "sandlane-system",
    keep_crds: Annotated[bool, typer.Option("--keep-crds", help="Leave the CustomResourceDefinitions.")] = False,
    wait: Annotated[float, typer.Option("--wait", help="Seconds for a running manager to do its part.")] = 20.0,
) -> None:
    """Undo everything that Sandlane did to a cluster: turn Services back, remove what it made, and Sandlane itself."""
    import asyncio

    from sandlane.cli.uninstall import uninstall
    from sandlane.kube.config import ConfigError
    from sandlane.kube.errors import KubeError
    from sandlane.routing.restore import NotRestored
    from sandlane.runtime.logging import set_up_logging

    set_up_logging("console", "error")
    try:
        asyncio.run(uninstall(kubeconfig, print, namespace=namespace, keep_crds=keep_crds, patience=wait))
    except (ConfigError, KubeError, NotRestored) as error:
        fail(error)


@app.command()
def manifests(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where the manager lives.")] = "sandlane-system",
    image: Annotated[str, typer.Option("--image", help="The manager's image; default sandlane/manager:VERSION.")] = "",
    replicas: Annotated[int, typer.Option("--replicas", help="How many managers.")] = 2,
) -> None:
    """Print the manifests that install Sandlane in a real cluster: `| kubectl apply --server-side -f -`."""
    import sandlane
    from sandlane.install.objects import everything
    from sandlane.install.text import many

    print(many(everything(namespace, version=sandlane.__version__, image=image, replicas=replicas)), end="")


@app.command()
def version() -> None:
    """Print the version."""
    import sandlane

    print(sandlane.__version__)


@app.command()
def routes(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the context's.")] = "",
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="text, wide or json")] = "text",
    data_dir: DataDirOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Print the route table: which key is served by whom at which Service, or why not."""
    from sandlane.cli.routes import show_routes

    show_routes(kubeconfig, data_dir, namespace, output, everywhere=everywhere, fail=fail)


@app.command()
def explain(
    target: Annotated[
        str, typer.Argument(help="A URL, or SERVICE[.NAMESPACE][:PORT]; without: what the key does everywhere.")
    ] = "",
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="As curl takes it; repeatable.")] = None,
    key: Annotated[str, typer.Option("--key", help="The routing key, instead of headers.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the context's.")] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
    data_dir: DataDirOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Say which workload serves a request and why, and who would serve it with another key."""
    from sandlane.cli.routes import show_explanation

    show_explanation(kubeconfig, data_dir, target, header or [], key, namespace, output, fail=fail)


@app.command()
def trace(
    target: Annotated[str, typer.Argument(help="A URL, or SERVICE[.NAMESPACE][:PORT].")],
    key: Annotated[str, typer.Option("--key", help="The routing key; without: where a plain request goes.")] = "",
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="As curl takes it; repeatable.")] = None,
    method: Annotated[str, typer.Option("--request", "-X", help="The method.")] = "GET",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the context's.")] = "",
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for routers' logs.")] = 5.0,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
    data_dir: DataDirOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Send a probing request and say where on its way the routing key was lost. Exit code 1 when it was."""
    from sandlane.cli.trace import show_trace

    arrived = show_trace(kubeconfig, data_dir, target, header or [], key, namespace, method, wait, output, fail=fail)
    raise typer.Exit(0 if arrived else 1)
