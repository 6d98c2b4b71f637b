"""What a webhook answers is told in the words of kube-apiserver when it is no review."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sandlane.local.apiserver.admission.review import decoded_patch, review
from sandlane.local.apiserver.webhook_calls import CallFailed

V1 = "admission.k8s.io/v1"
GOOD = {"uid": "u", "allowed": True}


class Answering:
    """Gives one answer to whatever is asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    async def post(self, *_: Any) -> bytes:
        """The answer."""
        return self.answer


def ask(answer: Any) -> Any:
    """The response of a webhook that answers so."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    hook = {"admissionReviewVersions": ["v1"], "clientConfig": {}}
    return asyncio.run(review(Answering(body), hook, {"uid": "u"}))  # type: ignore[arg-type]


def reviewed(**response: Any) -> dict[str, Any]:
    """A review with a response."""
    return {"kind": "AdmissionReview", "apiVersion": V1, "response": GOOD | response}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"{", "failed to call webhook: couldn't get version/kind; json parse error: unexpected end of JSON input"),
        (
            {"response": GOOD},
            f"received invalid webhook response: expected webhook response of {V1}, Kind=AdmissionReview, got /, Kind=",
        ),
        (
            reviewed() | {"apiVersion": "admission.k8s.io/v1beta1"},
            "failed to call webhook: converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion",
        ),
        (reviewed() | {"response": None}, "received invalid webhook response: webhook response was absent"),
        (reviewed(uid="x"), 'received invalid webhook response: expected response.uid="u", got "x"'),
        (
            reviewed(patch="W10="),
            "received invalid webhook response: webhook returned response.patch but not response.patchType",
        ),
        (
            reviewed(patchType="JSONPatch"),
            "received invalid webhook response: webhook returned response.patchType but not response.patch",
        ),
        (
            reviewed(allowed="yes"),
            "failed to call webhook: json: cannot unmarshal string into Go struct field AdmissionResponse.response.allowed of type bool",
        ),
    ],
)
def test_no_review(answer: Any, why: str) -> None:
    """An answer that is no review of the version that was asked for says what is wrong with it."""
    with pytest.raises(CallFailed) as error:
        ask(answer)
    assert str(error.value) == why


def test_patches() -> None:
    """A patch is a list of operations in base64."""
    assert decoded_patch(ask(reviewed())) is None
    assert decoded_patch(ask(reviewed(patchType="JSONPatch", patch="W10="))) == []
    with pytest.raises(CallFailed, match="illegal base64"):
        decoded_patch(ask(reviewed(patchType="JSONPatch", patch="%%")))
    with pytest.raises(CallFailed, match="undecodable patch in webhook response: unexpected end"):
        decoded_patch(ask(reviewed(patchType="JSONPatch", patch="Ww==")))
