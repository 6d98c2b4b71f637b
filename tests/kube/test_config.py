"""Configurations: kubeconfig files, clusters from inside, and credential plugins."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from sandlane.kube import config as module
from sandlane.kube.clock import timestamp
from sandlane.kube.config import Config, from_kubeconfig, load_config
from sandlane.kube.errors import ConfigError
from sandlane.kube.exec_plugin import ExecPlugin
from sandlane.testing.clock import ManualClock


def kubeconfig(path: Path, *, user: Any = None, cluster: Any = None, context: Any = None, name: str = "c") -> Path:
    """A file with one context."""
    content = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": f"k-{name}", "user": f"u-{name}"} | (context or {})}],
        "clusters": [{"name": f"k-{name}", "cluster": {"server": f"https://{name}"} | (cluster or {})}],
        "users": [{"name": f"u-{name}", "user": user or {}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


async def authorization(config: Config) -> str:
    """The header that it gives."""
    return dict(await config.headers()).get("authorization", "")


def test_data_and_files(tmp_path: Path) -> None:
    """Inline data win over files; files are relative to the kubeconfig."""
    (tmp_path / "ca.pem").write_bytes(b"file")
    inline = base64.b64encode(b"inline").decode()
    both = {"certificate-authority": "ca.pem", "certificate-authority-data": inline}
    assert from_kubeconfig(kubeconfig(tmp_path / "a", cluster=both)).ca == b"inline"
    assert from_kubeconfig(kubeconfig(tmp_path / "b", cluster={"certificate-authority": "ca.pem"})).ca == b"file"
    options = {"tls-server-name": "x", "proxy-url": "http://p", "insecure-skip-tls-verify": True}
    found = from_kubeconfig(kubeconfig(tmp_path / "c", cluster=options, context={"namespace": "n"}))
    assert (found.tls_server_name, found.proxy_url, found.insecure, found.namespace) == ("x", "http://p", True, "n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not YAML"),
        ("- a", "not a kubeconfig"),
        ("current-context: x", "no context named 'x'"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: k}}]", "no cluster named 'k'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: str, message: str) -> None:
    """With the file."""
    file = tmp_path / "config"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        from_kubeconfig(file)
    with pytest.raises(ConfigError, match="cannot read"):
        from_kubeconfig(tmp_path / "none")


@pytest.mark.parametrize(
    ("user", "cluster", "message"),
    [
        ({"client-certificate-data": "?"}, {}, "not base64"),
        ({"client-certificate": "none"}, {}, "cannot read client-certificate"),
        ({"exec": {"command": "x", "args": 7}}, {}, "exec"),
        ({"auth-provider": {"name": "gcp"}}, {}, "exec plugin"),
        ({}, {"server": ""}, "names no server"),
    ],
)
def test_mistakes_of_users_and_clusters(tmp_path: Path, user: Any, cluster: Any, message: str) -> None:
    """Each says what is wrong."""
    with pytest.raises(ConfigError, match=message):
        from_kubeconfig(kubeconfig(tmp_path / "a", user=user, cluster=cluster))


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The given file, $KUBECONFIG (several files are one), the Pod's own, the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no cluster given"):
        load_config()
    kubeconfig(tmp_path / ".kube" / "config", name="home")
    assert load_config().server == "https://home"

    account = tmp_path / "account"
    account.mkdir()
    for file, text in (("token", "t"), ("ca.crt", "ca"), ("namespace", "mine\n")):
        (account / file).write_text(text)
    monkeypatch.setattr(module, "IN_CLUSTER", account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    inside = load_config()
    assert (inside.server, inside.namespace, inside.ca) == ("https://[fd00::1]:443", "mine", b"ca")

    one, two = kubeconfig(tmp_path / "one", name="one"), kubeconfig(tmp_path / "two", name="two")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{one}:{two}")
    assert load_config().server == "https://one"
    assert load_config(context="two").server == "https://two"
    assert load_config(two).server == "https://two"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="no such file"):
        load_config()


async def test_a_token_file_is_read_again(tmp_path: Path) -> None:
    """Once a minute; when it cannot be read, the last good content stays."""
    clock = ManualClock()
    file = tmp_path / "token"
    file.write_text("one\n")
    config = Config(server="https://x", token="plain", token_file=file, clock=clock)
    assert await authorization(config) == "Bearer one"
    file.write_text("two\n")
    assert await authorization(config) == "Bearer one"
    clock.freeze_past(61)
    assert await authorization(config) == "Bearer two"
    file.unlink()
    clock.freeze_past(61)
    assert await authorization(config) == "Bearer two"
    with pytest.raises(ConfigError, match="token file"):
        await Config(server="https://x", token_file=file).headers()


def plugin(tmp_path: Path, status: Any, *, version: str = "v1", script: str = "") -> ExecPlugin:
    """A plugin that notes each call and prints a status."""
    api = f"client.authentication.k8s.io/{version}"
    (tmp_path / "printed.json").write_bytes(
        msgspec.json.encode({"apiVersion": api, "kind": "ExecCredential", "status": status})
    )
    program = tmp_path / "plugin.sh"
    body = script or f"cat {tmp_path}/printed.json"
    program.write_text(f'#!/bin/sh\necho "$KUBERNETES_EXEC_INFO" >> {tmp_path}/calls\n{body}\n')
    program.chmod(0o755)
    return ExecPlugin(
        command=str(program), api_version=api, provide_cluster_info=True, env=({"name": "A", "value": "b"},)
    )


def calls(tmp_path: Path) -> list[Any]:
    """What the plugin was told, call by call."""
    file = tmp_path / "calls"
    return [msgspec.json.decode(line) for line in file.read_bytes().splitlines()] if file.exists() else []


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_a_plugin_is_asked_again_when_its_credential_expires(tmp_path: Path, version: str) -> None:
    """Not before; it is told the cluster."""
    clock = ManualClock()
    expires = timestamp(clock.now() + timedelta(minutes=10))
    command = plugin(tmp_path, {"token": "t", "expirationTimestamp": expires}, version=version)
    config = Config(server="https://x", ca=b"ca", plugin=command, plugin_config={"a": 1}, clock=clock)
    for _ in range(3):
        assert await authorization(config) == "Bearer t"
    assert len(calls(tmp_path)) == 1
    told = calls(tmp_path)[0]
    assert told["apiVersion"] == f"client.authentication.k8s.io/{version}"
    assert told["spec"]["cluster"]["server"] == "https://x"
    assert told["spec"]["cluster"]["config"] == {"a": 1}
    assert told["spec"]["interactive"] is False
    clock.freeze_past(580)
    await authorization(config)
    assert len(calls(tmp_path)) == 2
    assert config.expire()
    await authorization(config)
    assert len(calls(tmp_path)) == 3


async def test_a_credential_without_expiry_is_kept(tmp_path: Path) -> None:
    """Until it is refused."""
    clock = ManualClock()
    config = Config(server="https://x", plugin=plugin(tmp_path, {"token": "t"}), clock=clock)
    await authorization(config)
    clock.freeze_past(1e6)
    await authorization(config)
    assert len(calls(tmp_path)) == 1


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo broken >&2; exit 3", "broken"),
        ("echo nonsense", "no ExecCredential"),
        ("echo '{\"status\": null}'", "no ExecCredential"),
        ('echo \'{"apiVersion":"client.authentication.k8s.io/v1beta1","status":{"token":"t"}}\'', "v1beta1"),
        ('echo \'{"apiVersion":"client.authentication.k8s.io/v1","status":{}}\'', "neither a token"),
    ],
)
async def test_plugins_that_fail_are_named(tmp_path: Path, script: str, message: str) -> None:
    """With what they said."""
    config = Config(server="https://x", plugin=plugin(tmp_path, {}, script=script))
    with pytest.raises(ConfigError, match=message) as caught:
        await config.headers()
    assert "plugin.sh" in str(caught.value)


async def test_plugins_that_cannot_be_run(tmp_path: Path) -> None:
    """An old version, one that needs a terminal, one that is not installed."""
    old = ExecPlugin(command="x", api_version="client.authentication.k8s.io/v1alpha1")
    for command, message in (
        (old, "v1alpha1"),
        (ExecPlugin(command=str(tmp_path / "none"), install_hint="get it"), "get it"),
    ):
        with pytest.raises(ConfigError, match=message):
            await Config(server="https://x", plugin=command).headers()
