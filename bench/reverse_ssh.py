"""An `ssh -R` tunnel on loopback with keys of its own (Debian packages `openssh-server` and `openssh-client`)."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from support.tunnel import eventually, free_port, listening

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
QUIET = asyncio.subprocess.DEVNULL


def prepare(folder: Path, port: int) -> None:
    """Keys, and a server's configuration."""
    folder.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", folder / name], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd wants to be confined
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", f"AuthorizedKeysFile {folder}/user.pub",
        "StrictModes no", "UsePAM no", "PermitRootLogin yes", f"PidFile {folder}/pid",
    ]  # fmt: skip
    (folder / "config").write_text("\n".join(lines) + "\n")


@contextlib.asynccontextmanager
async def reverse_tunnel(folder: Path, to: int) -> AsyncIterator[int]:
    """A port of 127.0.0.1 that leads through `ssh -R` to another one. Raises `SystemExit` where there is no OpenSSH."""
    if SSHD is None or not shutil.which("ssh"):
        raise SystemExit("this benchmark needs OpenSSH: apt-get install openssh-server openssh-client")
    port, entry = free_port(), free_port()
    prepare(folder, port)
    server = await asyncio.create_subprocess_exec(SSHD, "-D", "-f", folder / "config", stdout=QUIET, stderr=QUIET)
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ExitOnForwardFailure=yes", "BatchMode=yes"]
    command = ["ssh", "-N", "-p", str(port), "-i", str(folder / "user"), "-R", f"127.0.0.1:{entry}:127.0.0.1:{to}"]
    command += [part for option in options for part in ("-o", option)]
    try:
        await eventually(lambda: listening(port), "sshd listens")
        user = f"{getpass.getuser()}@127.0.0.1"
        client = await asyncio.create_subprocess_exec(*command, user, stdout=QUIET, stderr=QUIET)
        try:
            await eventually(lambda: listening(entry), "ssh -R listens")
            yield entry
        finally:
            client.terminate()
            await client.wait()
    finally:
        server.terminate()
        await server.wait()
