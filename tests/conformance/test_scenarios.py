"""What a real kube-apiserver answered, ours answers: recorded scenarios, over HTTPS and through kubectl.

`scenarios/` and `kubectl_cases.json` are recorded. `own/` follows from the Kubernetes API conventions and documentation; a real
server (without streaming lists) gave the same answers.
`known_gaps.txt` lists the scenarios that do not pass yet; a listed one that passes fails here, so that the list only shrinks.
One listed as `sometimes:NAME` shows a race that is known and not mended yet.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.conformance.cluster import Cluster
from support.conformance.replay import Runner
from support.conformance.values import Mismatch
from support.conformance.wire import Client, Skip

HERE = Path(__file__).parent
KUBECTL = str(Path(sys.executable).with_name("kubectl"))
GAPS = {
    line.partition(" ")[0] for line in (HERE / "known_gaps.txt").read_text().splitlines() if line[:1] not in ("", "#")
}


def _cases() -> list[Any]:
    cases = []
    folders = [*sorted((HERE / "scenarios").glob("*.json")), *sorted((HERE / "own").glob("*.json"))]
    for path in [*folders, HERE / "kubectl_cases.json"]:
        for scenario in json.loads(path.read_text())["scenarios"]:
            marks = [pytest.mark.xfail(strict=True, reason="a known gap")] if scenario["name"] in GAPS else []
            if f"sometimes:{scenario['name']}" in GAPS:
                marks = [pytest.mark.xfail(strict=False, reason="a race in the controllers that is known")]
            cases.append(pytest.param(scenario, id=scenario["name"], marks=marks))
    return cases


CASES = _cases()


@pytest.mark.parametrize("scenario", CASES)
def test_answers_as_recorded(cluster: Cluster, scenario: dict[str, Any]) -> None:
    """A request that was sent to a real API server gets the answer that the real one gave."""
    client = Client("", None, str(cluster.kubeconfig), False)
    runner = Runner(client, {"compact": cluster.compact}, KUBECTL)
    try:
        runner.scenario(scenario)
    except Skip as reason:
        pytest.skip(str(reason))
    except Mismatch as difference:
        pytest.fail(f"{scenario['name']}: {scenario['promise']}\n{difference}", pytrace=False)
    finally:
        client.close()


def test_gaps_are_scenarios() -> None:
    """Each listed gap is the name of a scenario."""
    assert {case.id for case in CASES} >= {gap.removeprefix("sometimes:") for gap in GAPS}
