"""Warnings of Pods and of templates of Pods."""

from __future__ import annotations

from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.pod_warnings import warn_template


def test_references_without_a_name_are_told_twice_over() -> None:
    """Two secrets without a name: each is empty, and the second repeats the first."""
    faults = Faults()
    warn_template(faults, {"spec": {"containers": [], "imagePullSecrets": [{}, {}]}}, "spec.template.")
    assert faults.warnings == [
        'spec.template.spec.imagePullSecrets[1].name: duplicate name ""',
        'spec.template.spec.imagePullSecrets[0].name: invalid empty name ""',
        'spec.template.spec.imagePullSecrets[1].name: invalid empty name ""',
    ]
