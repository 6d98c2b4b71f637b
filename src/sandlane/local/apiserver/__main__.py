"""`python -m sandlane.local.apiserver --data-dir DIR --listen HOST:PORT`: the embedded API server as a process.

Keeps its state, its certificate authority and the administrator's token in DIR, and writes DIR/kubeconfig.
SIGTERM ends it in good order; SIGUSR1 makes it forget its history, as compaction does: older watches and lists start again.
"""

from __future__ import annotations

import sandlane.slim  # isort: skip  # noqa: F401 - before structlog

import argparse
import asyncio
import base64
import ipaddress
import random  # noqa: TID251 - the seam: this process' randomness
import secrets
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from sandlane.kube.clock import SystemClock
from sandlane.local.apiserver.auth.authenticator import Authenticator
from sandlane.local.apiserver.auth.signer import ClientSigner
from sandlane.local.apiserver.auth.tokens import load_key
from sandlane.local.apiserver.auth.user import ADMIN
from sandlane.local.apiserver.http import HttpFront
from sandlane.local.apiserver.kubelet import KubeletProxy
from sandlane.local.apiserver.pki import ClusterPki, write_private
from sandlane.local.apiserver.server import ApiServer
from sandlane.local.apiserver.store.journal import Journal, JournalError
from sandlane.local.apiserver.store.objects import ObjectStore


def kubeconfig(server: str, ca: bytes, token: str) -> bytes:
    """A kubeconfig of the administrator (JSON, which is YAML)."""
    data = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "sandlane",
                "cluster": {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()},
            }
        ],
        "users": [{"name": "sandlane", "user": {"token": token}}],
        "contexts": [{"name": "sandlane", "context": {"cluster": "sandlane", "user": "sandlane"}}],
        "current-context": "sandlane",
    }
    return msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n"


def admin_token(path: Path) -> str:
    """The administrator's token, made at the first start."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text().strip()


async def run(data: Path, host: str, port: int, service_cidr: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    clock = SystemClock()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        store = ObjectStore(Journal(data / "state.db"))
        stack.callback(store.close)
        loop.add_signal_handler(signal.SIGUSR1, store.forget_history)
        pki = ClusterPki(data / "pki", clock.now())
        token = admin_token(data / "admin.token")
        server = ApiServer(
            store,
            clock=clock,
            rng=random.Random(secrets.randbits(256)),
            service_cidr=service_cidr,
            address=f"{host}:{port}",
            token_key=load_key(data / "pki" / "sa.key"),
        )
        server.tokens.known[token] = ADMIN
        stack.push_async_callback(server.close)
        if port:  # clients that are started at the same time need not wait for us to serve
            write_private(data / "kubeconfig", kubeconfig(f"https://{host}:{port}", pki.ca_pem, token))
        await server.prepare()
        front = HttpFront(server, Authenticator(server.tokens).authenticate)
        kubelet = KubeletProxy(store, token, stack)
        server.logs, front.upgrade = kubelet.logs, kubelet.upgrade
        service = str(ipaddress.ip_network(service_cidr)[1])  # the Service `kubernetes`
        bound = await front.serve(stack, host, port, pki.serving_context(host, service))
        if not port:
            write_private(data / "kubeconfig", kubeconfig(f"https://{host}:{bound}", pki.ca_pem, token))
        print(f"serving at https://{host}:{bound}", flush=True)
        async with asyncio.TaskGroup() as group:
            signing = group.create_task(ClientSigner(store, server.registry, server.writer, pki, clock).run())
            await stop.wait()
            signing.cancel()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT; HOST must be a loopback address")
    parser.add_argument("--service-cidr", default="10.96.0.0/16")
    args = parser.parse_args()
    host, _, port = args.listen.rpartition(":")
    if not host.startswith("127."):
        parser.error(f"--listen {args.listen}: the host must be in 127.0.0.0/8")
    args.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        asyncio.run(run(args.data_dir, host, int(port), args.service_cidr))
    except JournalError as error:
        sys.exit(f"cannot start: {error}")
    except OSError as error:
        sys.exit(f"cannot start: {args.listen}: {error.strerror or error}")


if __name__ == "__main__":
    main()
