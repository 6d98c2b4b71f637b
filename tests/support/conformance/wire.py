"""The wire: an HTTP client for one API server, watches in the background, an admission webhook listener."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Skip(Exception):
    """The scenario needs something that this run was not given."""


@dataclass
class Answer:
    """One HTTP answer."""

    code: int
    headers: http.client.HTTPMessage
    body: Any


class Client:
    """A small HTTP client for one server, with a bearer token or a client certificate."""

    def __init__(self, server: str, token: str | None, kubeconfig: str | None, insecure: bool) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._link: http.client.HTTPConnection | None = None
        self.config: dict[str, Any] = {"clusters": [{"name": "c", "cluster": {}}], "users": [{"name": "u", "user": {}}]}
        if kubeconfig:
            try:
                self.config = json.loads(Path(kubeconfig).read_text())
            except ValueError:
                sys.exit("the kubeconfig must be JSON: kubectl config view --raw --minify -o json")
        cluster, user = self.config["clusters"][0]["cluster"], self.config["users"][0]["user"]
        self.server = cluster["server"] = (server or cluster.get("server", "")).rstrip("/")
        if token:
            user.clear()
            user["token"] = token
        self.config |= {
            "kind": "Config",
            "apiVersion": "v1",
            "current-context": "x",
            "contexts": [
                {
                    "name": "x",
                    "context": {"cluster": self.config["clusters"][0]["name"], "user": self.config["users"][0]["name"]},
                }
            ],
        }
        self.headers = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
        if "certificate-authority-data" in cluster and not insecure:
            self.context.load_verify_locations(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        elif self.server.startswith("https"):
            self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
            cluster["insecure-skip-tls-verify"] = True
            cluster.pop("certificate-authority-data", None)
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(
                    base64.b64decode(user["client-certificate-data"])
                    + b"\n"
                    + base64.b64decode(user["client-key-data"])
                )
                pem.flush()
                self.context.load_cert_chain(pem.name)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        url = urllib.parse.urlsplit(self.server)
        if url.scheme == "https":
            return http.client.HTTPSConnection(url.netloc, timeout=timeout, context=self.context)
        return http.client.HTTPConnection(url.netloc, timeout=timeout)

    def open(
        self, method: str, path: str, headers: dict[str, str], timeout: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send one request on its own connection; the caller reads the answer and closes."""
        link = self._connection(timeout)
        link.request(method, urllib.parse.urlsplit(self.server).path + path, headers=self.headers | headers)
        return link, link.getresponse()

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request on the connection that is kept and read its answer, parsed when it is JSON."""
        path = urllib.parse.urlsplit(self.server).path + path
        for kept in (self._link is not None, False):
            self._link = self._link or self._connection(60)
            try:
                self._link.request(method, path, body=body, headers=self.headers | (headers or {}))
                response = self._link.getresponse()
                break
            except (ConnectionError, http.client.HTTPException):
                self.close()
                if not kept:  # a kept connection may have been closed meanwhile
                    raise
        text = response.read().decode(errors="replace")
        try:
            return Answer(response.status, response.headers, json.loads(text))
        except ValueError:
            return Answer(response.status, response.headers, text)


class Watch:
    """A watch in the background; its events are kept in order."""

    def __init__(self, client: Client, path: str, headers: dict[str, str]) -> None:
        self.events: list[dict[str, Any]] = []
        self.closed = False
        self.started = threading.Event()
        self.link: http.client.HTTPConnection | None = None
        self.thread = threading.Thread(target=self._read, args=(client, path, headers), daemon=True)
        self.thread.start()
        self.started.wait(5)

    def _read(self, client: Client, path: str, headers: dict[str, str]) -> None:
        try:
            self.link, response = client.open("GET", path, headers, timeout=120)
            with closing(self.link), response:
                self.started.set()
                if response.status != 200:
                    self.events.append(
                        {"type": f"HTTP {response.status}", "object": json.loads(response.read() or b"{}")}
                    )
                while response.status == 200 and (line := response.readline()):
                    self.events.append(json.loads(line))
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            if not self.closed:
                self.events.append({"type": "BROKEN", "object": str(error)})
        self.closed = True
        self.started.set()

    def stop(self) -> None:
        """Close the connection."""
        self.closed = True
        if self.link and self.link.sock:
            try:
                self.link.sock.shutdown(2)
            except OSError:
                pass
        self.thread.join(5)


class Webhook:
    """An https AdmissionReview listener on 127.0.0.1 that gives one prepared response."""

    def __init__(self, respond: dict[str, Any]) -> None:
        outer, self.requests = self, []
        self.requests: list[dict[str, Any]]

        class Handler(http.server.BaseHTTPRequestHandler):
            """Answers every POST."""

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(review["request"])
                reply = dict(respond, uid=review["request"]["uid"])
                if "patch" in reply:
                    reply |= {
                        "patchType": "JSONPatch",
                        "patch": base64.b64encode(json.dumps(reply["patch"]).encode()).decode(),
                    }
                data = json.dumps(
                    {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": reply}
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        with tempfile.TemporaryDirectory() as folder:
            pem = f"{folder}/pem"
            try:
                subprocess.run(
                    [
                        "openssl",
                        "req",
                        "-x509",
                        "-newkey",
                        "rsa:2048",
                        "-nodes",
                        "-days",
                        "2",
                        "-subj",
                        "/CN=127.0.0.1",
                        "-addext",
                        "subjectAltName=IP:127.0.0.1",
                        "-keyout",
                        pem,
                        "-out",
                        pem + ".crt",
                    ],
                    check=True,
                    capture_output=True,
                )
            except (OSError, subprocess.CalledProcessError):
                raise Skip("webhook scenarios need the openssl command") from None
            self.ca = base64.b64encode(Path(pem + ".crt").read_bytes()).decode()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem + ".crt", pem)
        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.socket = context.wrap_socket(self.httpd.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.httpd.server_address[1]}"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()
