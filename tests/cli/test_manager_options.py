"""Options of `sandlane manager`: flags win over the file, the file over defaults."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from sandlane.cli.manager import Options, main, parse
from sandlane.runtime.options import OptionsError


def test_flags_over_file_over_defaults(tmp_path: Path) -> None:
    """Each option comes from the strongest place that names it."""
    file = tmp_path / "config.yaml"
    file.write_text("leaderElect: true\nconcurrentReconciles: 9\nlogLevel: debug\n")
    options = parse(
        [
            *("--config", str(file), "--concurrent-reconciles", "2", "--watch-namespaces", "a,b"),
            *("--no-install", "--kubeconfig", "/k", "--xds-bind-address", ":18000"),
        ]
    )
    assert (options.leader_elect, options.concurrent_reconciles, options.log_level) == (True, 2, "debug")
    assert options.watch_namespaces == ("a", "b")
    assert options.xds_bind_address == ":18000"
    assert options.kube_api_burst == 800
    assert options.kubeconfig == "/k"


def test_every_flag_has_a_field_and_every_field_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """But the file's own name, help, and the structured settings, which are in the file only."""
    with pytest.raises(SystemExit):
        parse(["--help"])
    flags = {word for word in re.findall(r"--([a-z-]+)", capsys.readouterr().out) if not word.startswith("no-")}
    fields = {field.name.replace("_", "-") for field in msgspec.structs.fields(Options)}
    assert flags - {"config", "help"} == fields - {"settings"}
    wanted = """
        metrics-bind-address health-probe-bind-address leader-elect leader-election-id leader-election-namespace webhook-port
        webhook-cert-dir xds-bind-address watch-namespaces kubeconfig kube-api-qps kube-api-burst concurrent-reconciles
        log-format log-level
    """
    assert flags >= set(wanted.split())


def test_unknown_fields_are_refused(tmp_path: Path) -> None:
    """A misspelt field in the file is named."""
    file = tmp_path / "config.yaml"
    file.write_text("leaderElectt: true\n")
    with pytest.raises(OptionsError, match="leaderElectt"):
        parse(["--config", str(file)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaultTtl: 7x", "'7x' is not a duration"),
        ("limits: {containerCeilings: {memory: lots}}", "containerCeilings.memory: 'lots' is not a quantity"),
        ("limits: {containerDefaults: {limit: {cpu: '1'}}}", "containerDefaults.limit: limits and requests"),
        ("limits: {containerDefaults: {limits: {cpu: much}}}", "containerDefaults.limits.cpu: 'much'"),
        ("limits: {requestsPerNamespace: {memory: 1 Gi}}", "requestsPerNamespace.memory: '1 Gi'"),
    ],
)
def test_settings_are_checked_at_the_start(text: str, said: str, tmp_path: Path) -> None:
    """What would only show when a sandbox is planned is refused before."""
    file = tmp_path / "config.yaml"
    file.write_text(f"settings: {{{text}}}\n")
    with pytest.raises(OptionsError, match=said):
        parse(["--config", str(file)])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--allow-unchecked-requesters"),
        (["--webhook-port=1", "--preview-domain=no_domain"], "previewDomain: 'no_domain' is not a domain"),
        (["--webhook-port=1", "--preview-token-file=/nowhere"], "previewTokenFile: "),
        (["--webhook-port=1", "--preview-token-file=/dev/null"], "must hold letters"),
        (["--webhook-port=1", "--preview-service-type=X"], "previewServiceType must be"),
        (["--webhook-port=1", "--webhook-url=https://h", "--webhook-cert-dir=/c"], "excludes --webhook-cert-dir"),
    ],
)
def test_what_cannot_be_is_refused(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without webhooks it must be said that nobody is asked; exit code 2 and the way out."""
    assert main(flags) == 2
    assert said in capsys.readouterr().err
