"""Plays recorded scenarios against a server: the steps, the placeholders, and what of an answer is compared."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import secrets
import shlex
import subprocess
import tempfile
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.conformance.values import ABSENT, Mismatch, change, first_diff, lookup
from support.conformance.wire import Answer, Client, Skip, Watch, Webhook

TIMEOUT = 15.0
UID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
STAMP = re.compile(r"\b20(?:2[3-9]|[3-9]\d)-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
AGE = re.compile(r"(?<![\w.-])(?:\d+[ydhms])+(?![\w.-])")
DROPPED = {"selfLink", "storageVersionHash"}
KINDS = ("request", "wait", "watch", "events", "assert", "webhook", "reviews", "hook", "kubectl")


@dataclass
class Runner:
    """Runs the steps of one scenario in its own namespace and API group."""

    client: Client
    hooks: dict[str, str]
    binary: str

    def __post_init__(self) -> None:
        tag = "c" + "".join(secrets.choice("bcdfghjklmnpqrstvwxz") for _ in range(9))
        self.vars: dict[str, str] = {"NS": f"ns-{tag}", "GROUP": f"{tag}.conformance.test", "TAG": tag}
        self.watches: dict[str, Watch] = {}
        self.webhooks: dict[str, Webhook] = {}
        self.created: list[str] = []

    # -- placeholders and normalization ---------------------------------------------------
    def fill(self, value: Any) -> Any:
        """Replace `${name}` placeholders in every string."""
        if isinstance(value, str):
            return re.sub(r"\$\{(\w+)\}", lambda m: str(self.vars[m[1]]), value)
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            return {self.fill(key): self.fill(item) for key, item in value.items()}
        return value

    def text(self, value: str) -> str:
        """Mask what differs from run to run inside a string."""
        for name in ("NS", "GROUP", "TAG"):
            value = value.replace(self.vars[name], f"${{{name}}}")
        return STAMP.sub("<time>", UID.sub("<uid>", value))

    def normal(self, value: Any, key: str = "", managed: bool = False) -> Any:
        """Mask what differs from run to run in a JSON value."""
        if isinstance(value, list):
            return [self.normal(item, key, managed) for item in value]
        if isinstance(value, dict):
            if value.get("kind") == "Status" and value.get("apiVersion") == "v1":
                value = {
                    k: v for k, v in value.items() if k in ("kind", "status", "reason", "code", "message", "details")
                }
                if "details" in value:
                    value["details"] = {k: v for k, v in value["details"].items() if k != "retryAfterSeconds"}
                if causes := value.get("details", {}).get("causes"):
                    causes = [{k: c[k] for k in ("field", "reason") if k in c} for c in causes]
                    value["details"]["causes"] = sorted(causes, key=lambda c: (c.get("field", ""), c.get("reason", "")))
            if managed and isinstance(value.get("managedFields"), list):
                entries = [{k: v for k, v in entry.items() if k != "time"} for entry in value["managedFields"]]
                value = value | {"managedFields": sorted(entries, key=lambda e: json.dumps(e, sort_keys=True))}
            out = {
                self.text(k): self.normal(v, k, managed)
                for k, v in value.items()
                if k not in DROPPED
                and (managed or k != "managedFields")
                and not (k == "creationTimestamp" and v is None)
            }
            prefix = out.get("generateName")
            if prefix and isinstance(out.get("name"), str) and out["name"].startswith(prefix) and out["name"] != prefix:
                out["name"] = prefix + "<suffix>"
            return out
        if key == "nodePort" and isinstance(value, int) and value:
            return "<port>"
        if not isinstance(value, str):
            return value
        if key in ("resourceVersion", "continue", "uid") and value not in ("", "0"):
            return {"resourceVersion": "<rv>", "continue": "<continue>", "uid": "<uid>"}[key]
        if key in ("clusterIP", "clusterIPs") and value not in ("", "None"):
            return f"<ip{ipaddress.ip_address(value).version}>"
        return AGE.sub("<age>", self.text(value)) if key == "cells" else self.text(value)

    def view(self, step: dict[str, Any], doc: Any) -> Any:
        """The part of an answer that a step compares."""
        doc = self.normal(doc, managed=bool(step.get("managedFields")))
        for pointer in step.get("drop", []):
            change(doc, pointer, lambda _: ABSENT)
        for pointer, pattern in step.get("relax", {}).items():
            change(doc, pointer, lambda v, p=pattern: "<matches>" if re.search(p, str(v)) else v)
        failure = isinstance(doc, dict) and doc.get("kind") == "Status" and doc.get("status") == "Failure"
        return {p: lookup(doc, p) for p in step["pick"]} if "pick" in step and not failure else doc

    # -- steps ----------------------------------------------------------------------------
    def send(self, step: dict[str, Any], line: str) -> Answer:
        """Send the request of a step."""
        method, _, path = self.fill(line).partition(" ")
        if query := self.fill(step.get("query", {})):
            path += "?" + urllib.parse.urlencode(query)
        headers = self.fill(step.get("headers", {}))
        body = None
        if "body" in step or "raw" in step:
            headers.setdefault("Content-Type", "application/json")
            body = (self.fill(step["raw"]) if "raw" in step else json.dumps(self.fill(step["body"]))).encode()
        answer = self.client.request(method, path, headers, body)
        name = lookup(answer.body, "/metadata/name")
        if (
            answer.code == 201
            and f"/namespaces/{self.vars['NS']}/" not in path
            and name is not ABSENT
            and "dryRun" not in path
        ):
            self.created.append(path.partition("?")[0] + (f"/{name}" if method == "POST" else ""))
        return answer

    def compare(self, step: dict[str, Any], got: Any) -> None:
        """Check the outcome of a step, or record it."""
        if step.get("compare") == "nothing":
            return
        if found := first_diff(step.get("expect", "<nothing was recorded>"), got):
            raise Mismatch(found)

    def keep(self, step: dict[str, Any], doc: Any, what: str) -> None:
        """Save the values that a step names."""
        for name, pointer in step.get("save", {}).items():
            if (value := lookup(doc, pointer)) == ABSENT:
                raise Mismatch(f"nothing at {pointer} in {what} {json.dumps(doc)[:300]}")
            self.vars[name] = str(value)

    def step(self, step: dict[str, Any]) -> None:
        """Run one step."""
        if "request" in step or "wait" in step:
            until = self.fill(step.get("until", {}))
            end = time.monotonic() + step.get("timeout", TIMEOUT)
            while True:
                answer = self.send(step, step.get("request") or step["wait"])
                unmet = [
                    f"{k} is {json.dumps(v)[:200]}"
                    for k, v in ((k, answer.code if k == "code" else lookup(answer.body, k)) for k in until)
                    if not (v == until[k] or (until[k] == "<present>" and v != ABSENT))
                ]
                if not unmet:
                    break
                if time.monotonic() > end:
                    raise Mismatch(f"waited in vain for {json.dumps(until)}: HTTP {answer.code}, {'; '.join(unmet)}")
                time.sleep(0.1)
            self.keep(step, answer.body, f"HTTP {answer.code}")
            if "request" not in step:
                return
            got: dict[str, Any] = {"code": answer.code}
            if warnings := [self.text(w) for w in answer.headers.get_all("Warning", [])]:
                got["warnings"] = warnings
            got |= {"headers": {h: answer.headers.get(h, ABSENT) for h in step["show"]}} if "show" in step else {}
            body = self.view(step, answer.body)
            self.compare(step, got if step.get("body_matters") is False else got | {"body": body})
        elif "watch" in step:
            path = (
                self.fill(step["path"])
                + "?"
                + urllib.parse.urlencode({"watch": "true"} | self.fill(step.get("query", {})))
            )
            self.watches[step["watch"]] = Watch(self.client, path, self.fill(step.get("headers", {})))
        elif "events" in step:
            events = self.collect(step, self.watches[step["events"]])
            self.keep(step, events, "the events")
            self.compare(step, [{"type": e["type"], "object": self.view(step, e["object"])} for e in events])
        elif "assert" in step:
            left, op, right = self.fill(step["assert"]).split(" ")
            holds = {"==": left == right, "!=": left != right, "<": op != "<" or int(left) < int(right)}[op]
            if not holds:
                raise Mismatch(f"{step['assert']} does not hold: {left} {op} {right}")
        elif "webhook" in step:
            hook = self.webhooks[step["webhook"]] = Webhook(step["respond"])
            self.vars |= {step["webhook"] + "_url": hook.url, step["webhook"] + "_ca": hook.ca}
        elif "reviews" in step:
            hook = self.webhooks[step["reviews"]]
            self.compare(step, [self.view(step, request) for request in hook.requests if not request.get("dryRun")])
        elif "kubectl" in step:
            end = time.monotonic() + step.get("timeout", 60)
            while True:
                got = self.kubectl(step)
                settled = got == step["expect"]
                if settled or not step.get("retry") or time.monotonic() > end:
                    break
                time.sleep(0.3)
            self.compare(step, got)
        elif "hook" in step:
            if step["hook"] not in self.hooks:
                raise Skip(f"needs --hook {step['hook']}=COMMAND")
            subprocess.run(shlex.split(self.fill(self.hooks[step["hook"]])), check=True, capture_output=True)
        else:
            raise ValueError(f"unknown step {step}")

    def collect(self, step: dict[str, Any], watch: Watch) -> list[Any]:
        """Take events off a watch: `count` of them, or up to one that fulfils `until`, or to the end (`closed`)."""
        end, taken = time.monotonic() + step.get("timeout", TIMEOUT), []
        until = self.fill(step.get("until", {}))
        while True:
            closed = watch.closed
            while watch.events:
                event = watch.events.pop(0)
                if event["type"] == "BOOKMARK" and not step.get("bookmarks"):
                    continue
                taken.append(event)
                if (until and all(lookup(event, p) == v for p, v in until.items())) or len(taken) == step.get("count"):
                    return taken
            if step.get("closed") and closed:
                return taken
            if closed or time.monotonic() > end:
                why = "the watch ended" if closed else "timed out"
                raise Mismatch(f"{why} after {len(taken)} events: {json.dumps(taken)[:1500]}")
            time.sleep(0.02)

    def scenario(self, doc: dict[str, Any]) -> None:
        """Run a scenario, and clean up."""
        at = "namespace"
        try:
            made = self.client.request(
                "POST",
                "/api/v1/namespaces",
                {"Content-Type": "application/json"},
                json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.vars["NS"]}}).encode(),
            )
            if made.code != 201:
                raise Mismatch(f"the namespace could not be made: HTTP {made.code} {json.dumps(made.body)[:300]}")
            self.created.append(f"/api/v1/namespaces/{self.vars['NS']}")
            for number, step in enumerate(doc["steps"]):
                kind = next(k for k in step if k in KINDS)
                at = f"step {number} ({kind} {step[kind]})"
                self.step(step)
        except Mismatch as error:
            raise Mismatch(f"{at}: {error}") from None
        except (
            OSError,
            http.client.HTTPException,
            subprocess.SubprocessError,
            LookupError,
            ValueError,
            TypeError,
        ) as error:
            raise Mismatch(f"{at}: {type(error).__name__}: {error}") from None
        finally:
            for watch in self.watches.values():
                watch.stop()
            for hook in self.webhooks.values():
                hook.httpd.shutdown()
                hook.httpd.server_close()
            for path in reversed(self.created):
                try:
                    self.client.request("DELETE", path)
                except (OSError, http.client.HTTPException):
                    pass

    def kubectl(self, step: dict[str, Any]) -> dict[str, Any]:
        """Run kubectl; output is compared line by line with runs of spaces collapsed."""
        stdin = self.fill(step.get("stdin", ""))
        with tempfile.TemporaryDirectory() as home:
            Path(home, "config").write_text(json.dumps(self.client.config))
            env = {"HOME": home, "KUBECONFIG": f"{home}/config", "KUBECTL_EXTERNAL_DIFF": "diff -u -N"}
            done = subprocess.run(
                [self.binary, "-n", self.vars["NS"], *self.fill(step["kubectl"])],
                text=True,
                capture_output=True,
                input=stdin if isinstance(stdin, str) else json.dumps(stdin),
                timeout=120,
                env=os.environ | env,
            )
        lines = []
        for line in (done.stdout + (done.stderr if step.get("stderr") else "")).splitlines():
            line = AGE.sub("<age>", re.sub(r"  +", "  ", self.text(line)).rstrip())
            if re.search(step.get("keep", ""), line) and not line.startswith(("diff -u", "--- ", "+++ ")):
                lines.append(re.sub(step.get("mask", "(?!)"), "<masked>", line))
        return {"rc": done.returncode, "out": lines}
