"""Options that several commands have, and how a command fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where the local cluster lives; default $SANDLANE_DATA_DIR or ~/.sandlane."),
]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="The Service's namespace.")]
ContextNamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Default: the context's.")]
KubeconfigOption = Annotated[Path | None, typer.Option("--kubeconfig", help="The cluster to talk to.")]


def fail(message: object, code: int = 1) -> NoReturn:
    """Say what is wrong and exit."""
    print(message, file=sys.stderr)
    raise typer.Exit(code)
