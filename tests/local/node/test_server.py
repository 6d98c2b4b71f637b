"""What the node's server answers: logs of real containers, commands in them, connections to them."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandlane.local.node.portforward import PROTOCOL
from sandlane.local.node.server import node_app
from sandlane.local.node.spdy import DICTIONARY, Data, Ping, Reader, Writer

from .conftest import PYTHON, RunningNode

TOKEN = "the token"


class Served:
    """A node's server, and how to ask it."""

    def __init__(self, node: RunningNode, url: str, session: aiohttp.ClientSession) -> None:
        self.node = node
        self.url = url
        self.session = session

    async def logs(self, name: str = "web", **query: str) -> tuple[int, str]:
        """Status and text of a question for the log of `app`."""
        async with self.session.get(f"{self.url}/containerLogs/rides/{name}/app", params=query) as answer:
            return answer.status, await answer.text()

    async def execute(self, *command: str, send: tuple[bytes, ...] = (), **query: str) -> tuple[dict[int, bytes], Any]:
        """Run a command in `app`; what came on each stream, and the status at its end."""
        params = [*(("command", word) for word in command), *query.items()]
        url = f"{self.url}/exec/rides/web/app"
        streams: dict[int, bytes] = {}
        async with self.session.ws_connect(url, params=params, protocols=("v5.channel.k8s.io",)) as socket:
            assert socket.protocol == "v5.channel.k8s.io"
            for message in send:
                await socket.send_bytes(message)
            async for message in socket:
                streams[message.data[0]] = streams.get(message.data[0], b"") + message.data[1:]
        return streams, json.loads(streams.pop(3))


@pytest.fixture
async def served(node: RunningNode) -> AsyncIterator[Served]:
    """A node with its server."""
    runner = web.AppRunner(node_app(node.node, TOKEN, node.clock))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
            yield Served(node, url, session)
    finally:
        await runner.cleanup()


async def test_only_the_cluster_may_ask(served: Served) -> None:
    """Without the cluster's token nothing is answered."""
    async with aiohttp.ClientSession() as session, session.get(f"{served.url}/containerLogs/a/b/c") as answer:
        assert answer.status == 401


async def test_logs(served: Served) -> None:
    """Both streams are in the log; the last lines or the first bytes of it can be asked for."""
    await served.node.run("for i in 1 2 3; do echo line $i; done; echo oops >&2; echo end")
    await served.node.phase("Succeeded")
    assert await served.logs() == (200, "line 1\nline 2\nline 3\noops\nend\n")
    assert await served.logs(tailLines="2") == (200, "oops\nend\n")
    assert await served.logs(tailLines="0") == (200, "")
    assert await served.logs(limitBytes="8") == (200, "line 1\nl")


async def test_times_of_lines(served: Served) -> None:
    """Each line can have its time before it, and a log can begin at a moment; lines that are written later are later."""
    await served.node.run("echo one; sleep 0.3; echo two; printf three")
    await served.node.phase("Succeeded")
    _, text = await served.logs(timestamps="true")
    times, words = zip(*(line.split(" ") for line in text.splitlines()), strict=True)
    assert words == ("one", "two", "three")
    assert all(re.fullmatch(r"2030-01-01T00:\d\d:\d\d\.\d{6}000Z", time) for time in times)
    assert times[0] < times[1] == times[2]
    assert not text.endswith("\n")
    assert await served.logs(sinceTime=times[1][:-4] + "Z") == (200, "two\nthree")
    assert await served.logs(sinceTime="2029-01-01T00:00:00Z", tailLines="1") == (200, "three")
    assert await served.logs(sinceTime="2031-01-01T00:00:00Z") == (200, "")
    assert await served.logs(sinceSeconds="100000") == (200, "one\ntwo\nthree")
    assert (await served.logs(timestamps="true", limitBytes="34"))[1] == f"{times[0]} one"[:34]


async def test_logs_are_followed_to_the_end(served: Served, tmp_path: object) -> None:
    """A followed log grows with the container and ends with it."""
    flag = f"{tmp_path}/go"
    await served.node.run(f"echo first; while ! [ -e {flag} ]; do sleep 0.02; done; echo last")
    await served.node.logged("first")
    url = f"{served.url}/containerLogs/rides/web/app"
    async with served.session.get(url, params={"follow": "true"}) as answer:
        assert await answer.content.readline() == b"first\n"
        open(flag, "w").close()  # noqa: ASYNC230
        assert await answer.content.read() == b"last\n"


async def test_the_previous_run(served: Served) -> None:
    """The log of the run before the last can be asked for once there is one."""
    await served.node.run("echo run; sleep 0.2; exit 1", spec={"restartPolicy": "Always"})
    await served.node.logged("run")
    code, text = await served.logs(previous="true")
    assert (code, text) == (400, 'previous terminated container "app" in pod "web" not found\n')
    await served.node.state("web", lambda s: s["containerStatuses"][0]["restartCount"] > 0, "a restart")
    assert await served.logs(previous="true") == (200, "run\n")


async def test_no_log_yet(served: Served) -> None:
    """A container that waits has no log, and says what it waits for."""
    await served.node.run(image="unknown")
    await served.node.waiting("ImageNotMapped")
    code, text = await served.logs()
    assert code == 400
    assert text.startswith('container "app" in pod "web" is waiting to start: ImageNotMapped: no program is known')
    assert (await served.logs("other"))[0] == 404


async def attached(served: Served, send: tuple[bytes, ...], until: bytes) -> bytes:
    """What comes from `app` after something was sent to it, up to some text or its end."""
    came = b""
    url = f"{served.url}/attach/rides/web/app"
    async with served.session.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
        for message in send:
            await socket.send_bytes(message)
        async for message in socket:
            came += message.data[1:]
            if message.data[0] == 1 and until and until in came:
                break
    return came


SUCCESS = b'{"metadata":{},"status":"Success"}'


async def test_attach(served: Served) -> None:
    """Input reaches the process and its output comes back; the end of the input of the one client ends `cat`."""
    await served.node.run("echo up; exec cat", stdin=True, stdinOnce=True)
    await served.node.logged("up")
    assert await attached(served, (b"\x00hello\n",), b"hello") == b"hello\n"
    await served.node.phase("Succeeded")
    assert served.node.log() == "up\nhello\n"


async def test_attach_to_a_terminal(served: Served) -> None:
    """A container with a terminal has its size, echoes what is typed, and what it writes is its log."""
    script = "test -t 0 && echo up; read line; stty size; echo got $line; read line; echo $line"
    await served.node.run(script, stdin=True, tty=True)
    await served.node.logged("up")
    typed = b'\x04{"Width":101,"Height":51}', b"\x00hi\n"
    assert await attached(served, typed, b"got hi\r\n") == b"hi\r\n51 101\r\ngot hi\r\n"
    assert await attached(served, (b"\x00bye\n",), b"") == b"bye\r\nbye\r\n" + SUCCESS
    await served.node.phase("Succeeded")


async def test_attach_without_input(served: Served) -> None:
    """Without `stdin` what is sent is dropped, and the output is seen from now on."""
    await served.node.run("echo up; while true; do echo again; sleep 0.05; done")
    await served.node.logged("again")
    assert (await attached(served, (b"\x00no\n",), b"again\nagain")).startswith(b"again")


async def test_exec(viewing: RunningNode, served: Served) -> None:
    """A command sees the container's files and environment; its streams come apart, and its exit code last."""
    spec = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mounts = [{"name": "v", "mountPath": "/sandlane-test"}]
    env = [{"name": "A", "value": "b"}]
    await viewing.run("echo mine >/sandlane-test/x; echo up; exec sleep 100", spec=spec, volumeMounts=mounts, env=env)
    await viewing.logged("up")
    streams, status = await served.execute("/bin/sh", "-c", "cat /sandlane-test/x; hostname; echo $A >&2; exit 3")
    assert streams == {1: b"mine\nweb\n", 2: b"b\n"}
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_exec_with_input(served: Served) -> None:
    """What the client sends is the command's input, until the client closes it."""
    await served.node.run("echo up; exec sleep 100")
    await served.node.logged("up")
    streams, status = await served.execute("cat", send=(b"\0hello ", b"\0world", b"\xff\0"), input="1")
    assert (streams, status["status"]) == ({1: b"hello world"}, "Success")


async def test_exec_on_a_terminal(served: Served) -> None:
    """With a terminal the command has one, of the client's size."""
    await served.node.run("echo up; exec sleep 100")
    await served.node.logged("up")
    size = b'\x04{"Width":100,"Height":30}'
    send = (size, b"\0stty size; tty | cut -c 1-8; exit\n")
    streams, status = await served.execute("/bin/sh", send=send, input="1", tty="1")
    assert status["status"] == "Success"
    assert b"30 100\r\n/dev/pts" in streams[1]


async def test_exec_that_cannot_start(served: Served) -> None:
    """A command that does not exist is named; a container that does not run is refused."""
    await served.node.run("echo up; exec sleep 100")
    await served.node.logged("up")
    _, status = await served.execute("/no/such")
    assert status["message"] == "cannot start /no/such: No such file or directory"
    await served.node.run("true", name="done")
    await served.node.phase("Succeeded", "done")
    async with served.session.get(f"{served.url}/exec/rides/done/app", params={"command": "ls"}) as answer:
        assert (answer.status, await answer.text()) == (400, "container app does not run\n")


async def test_exec_ends_when_the_client_goes(served: Served) -> None:
    """A command whose client has gone is ended."""
    await served.node.run("echo up; exec sleep 100")
    await served.node.logged("up")
    url = f"{served.url}/exec/rides/web/app"
    async with served.session.ws_connect(
        url, params=[("command", "sh"), ("command", "-c"), ("command", "echo $$; exec sleep 1000")]
    ) as socket:
        pid = int((await socket.receive_bytes())[1:])

    async def ended() -> bool:
        return not os.path.exists(f"/proc/{pid}")  # noqa: ASYNC240

    await served.node.until(ended, "the command has ended")


ECHO = """
import os, socket
server = socket.create_server((os.environ["IP"], 9000))
print("up", flush=True)
while True:
    peer, _ = server.accept()
    while part := peer.recv(65536): peer.sendall(part.upper())
    peer.close()
"""


async def test_port_forward(served: Served) -> None:
    """A connection to the Pod's own address passes bytes both ways until its end; a refused one says so."""
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    await served.node.run(command=[PYTHON, "-S", "-c", ECHO], env=env)
    await served.node.logged("up")
    writer, reader = Writer(), Reader()
    url = f"{served.url}/portForward/rides/web?port=9000"
    got: dict[int, bytes] = {}
    closed: set[int] = set()
    async with served.session.ws_connect(url, protocols=(PROTOCOL,)) as socket:
        assert socket.protocol == PROTOCOL
        for number, port in ((0, "9000"), (1, "9")):
            for stream, kind in ((4 * number + 1, "error"), (4 * number + 3, "data")):
                await socket.send_bytes(
                    writer.open(stream, {"streamtype": kind, "port": port, "requestid": str(number)})
                )
        await socket.send_bytes(writer.data(3, b"hello "))
        await socket.send_bytes(writer.data(3, b"world", fin=True) + writer.ping(1))
        pinged = False
        while len(closed) < 4 or not pinged:
            for frame in reader.feed(await socket.receive_bytes()):
                pinged = pinged or frame == Ping(1)
                if isinstance(frame, Data):
                    got[frame.stream] = got.get(frame.stream, b"") + frame.data
                    closed |= {frame.stream} if frame.fin else set()
    assert got[3] == b"HELLO WORLD"
    assert got[5].startswith(b"error forwarding port 9 to pod web")
    assert (got[1], got[7]) == (b"", b"")


async def test_port_forward_for_libraries(served: Served) -> None:
    """The protocol of client libraries: two channels per port, which begin with the port's number."""
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    await served.node.run(command=[PYTHON, "-S", "-c", ECHO], env=env)
    await served.node.logged("up")
    url = f"{served.url}/portForward/rides/web?port=9&port=9000"
    got = dict.fromkeys(range(4), b"")
    async with served.session.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket:
        await socket.send_bytes(b"\x02hello")
        while not got[2].endswith(b"HELLO"):
            message = await socket.receive_bytes()
            got[message[0]] += message[1:]
    refused, good = (9).to_bytes(2, "little"), (9000).to_bytes(2, "little")
    assert (got[0], got[2], got[3]) == (refused, good + b"HELLO", good)
    assert got[1].startswith(refused + b"error forwarding port 9 to pod web")


def test_the_dictionary_is_the_standards() -> None:
    """Both sides name the dictionary of SPDY/3 by this checksum."""
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2
