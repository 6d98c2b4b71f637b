"""Defaults and validation of Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and CronJobs."""

from __future__ import annotations

import re
from typing import Any
from zoneinfo import available_timezones

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, go_struct
from sandlane.local.apiserver.kinds.names import check_selector, dns_label, selector_matches
from sandlane.local.apiserver.kinds.pod_rules import check_template
from sandlane.local.apiserver.kinds.pod_warnings import warn_template
from sandlane.local.apiserver.kinds.pods import default_template

_STRATEGY = "type rollingUpdate"
_PERCENT = re.compile(r"[0-9]+%", re.ASCII)
_CRON_FIELD = re.compile(r"[0-9*/,\-A-Za-z?]+", re.ASCII)
_JOB_LABELS = ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name")


def _unset(target: Object, key: str, value: Any) -> None:
    if target.get(key) is None:
        target[key] = value


_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


# -- defaults -----------------------------------------------------------------------------------------------


def default_deployment(obj: Object) -> None:
    """Defaults of a Deployment."""
    spec = obj.setdefault("spec", {})
    _unset(spec, "replicas", 1)
    default_template(spec.setdefault("template", {}))
    strategy = spec.setdefault("strategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        _unset(rolling, "maxUnavailable", "25%")
        _unset(rolling, "maxSurge", "25%")
    _unset(spec, "revisionHistoryLimit", 10)
    _unset(spec, "progressDeadlineSeconds", 600)


def default_replica_set(obj: Object) -> None:
    """Defaults of a ReplicaSet."""
    spec = obj.setdefault("spec", {})
    _unset(spec, "replicas", 1)
    if spec.get("template"):
        default_template(spec["template"])


def default_replication_controller(obj: Object) -> None:
    """Defaults of a ReplicationController: labels and selector follow the template."""
    default_replica_set(obj)
    spec = obj["spec"]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        if not obj.setdefault("metadata", {}).get("labels"):
            obj["metadata"]["labels"] = dict(labels)


def default_stateful_set(obj: Object) -> None:
    """Defaults of a StatefulSet."""
    spec = obj.setdefault("spec", {})
    _unset(spec, "replicas", 1)
    default_template(spec.setdefault("template", {}))
    if not spec.get("podManagementPolicy"):
        spec["podManagementPolicy"] = "OrderedReady"
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
        strategy.setdefault("rollingUpdate", {})
    if strategy["type"] == "RollingUpdate" and strategy.get("rollingUpdate") is not None:
        _unset(strategy["rollingUpdate"], "partition", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    for key in ("whenDeleted", "whenScaled"):
        if not retention.get(key):
            retention[key] = "Retain"
    _unset(spec, "revisionHistoryLimit", 10)
    for claim in spec.get("volumeClaimTemplates") or []:
        claim.setdefault("kind", "PersistentVolumeClaim")
        claim.setdefault("apiVersion", "v1")
        if not claim.setdefault("spec", {}).get("volumeMode"):
            claim["spec"]["volumeMode"] = "Filesystem"
        if not claim.setdefault("status", {}).get("phase"):
            claim["status"]["phase"] = "Pending"


def default_daemon_set(obj: Object) -> None:
    """Defaults of a DaemonSet, whose template's own generation is still kept in an annotation."""
    spec = obj.setdefault("spec", {})
    obj.setdefault("metadata", {}).setdefault("annotations", {}).setdefault(_TEMPLATE_GENERATION, "0")
    default_template(spec.setdefault("template", {}))
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        _unset(rolling, "maxUnavailable", 1)
        _unset(rolling, "maxSurge", 0)
    _unset(spec, "revisionHistoryLimit", 10)


def default_job(obj: Object) -> None:
    """Defaults of a Job."""
    _default_job_spec(obj.setdefault("spec", {}))
    metadata = obj.setdefault("metadata", {})
    labels = ((obj["spec"].get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not metadata.get("labels"):
        metadata["labels"] = dict(labels)


def _default_job_spec(spec: Object) -> None:
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    _unset(spec, "parallelism", 1)
    _unset(spec, "backoffLimit", 2**31 - 1 if spec.get("backoffLimitPerIndex") is not None else 6)
    _unset(spec, "completionMode", "NonIndexed")
    _unset(spec, "suspend", False)
    _unset(spec, "manualSelector", False)
    if spec.get("podReplacementPolicy") is None:
        spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    default_template(spec.setdefault("template", {}))
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
        for condition in rule.get("onPodConditions") or []:
            if not condition.get("status"):
                condition["status"] = "True"


def default_cron_job(obj: Object) -> None:
    """Defaults of a CronJob. Its job template gets those of the pod template only."""
    spec = obj.setdefault("spec", {})
    if not spec.get("concurrencyPolicy"):
        spec["concurrencyPolicy"] = "Allow"
    _unset(spec, "suspend", False)
    _unset(spec, "successfulJobsHistoryLimit", 3)
    _unset(spec, "failedJobsHistoryLimit", 1)
    default_template(spec.setdefault("jobTemplate", {}).setdefault("spec", {}).setdefault("template", {}))


def prepare_daemon_set(obj: Object) -> None:
    """The first generation of the template, or the one that the author gives."""
    annotations = obj["metadata"].setdefault("annotations", {})
    text = annotations.get(_TEMPLATE_GENERATION, "")
    annotations[_TEMPLATE_GENERATION] = text if text.isdecimal() and int(text) else "1"


def prepare_daemon_set_update(new: Object, old: Object) -> None:
    """The template's generation rises with the template, whatever the client sent."""
    text = (old["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, "1")
    generation = int(text) if text.isdecimal() else 1
    if not equal_json(new["spec"].get("template"), old["spec"].get("template")):
        generation += 1
    new["metadata"].setdefault("annotations", {})[_TEMPLATE_GENERATION] = str(generation)


def prepare_job(obj: Object) -> None:
    """A Job without a selector of its own gets one, and labels, from its uid."""
    spec, metadata = obj["spec"], obj["metadata"]
    if spec.get("manualSelector") or not metadata.get("uid"):
        return
    uid, name = metadata["uid"], metadata.get("name", "")
    values = (uid, name, uid, name)
    template = spec.setdefault("template", {}).setdefault("metadata", {}).setdefault("labels", {})
    same = not metadata.get("labels") or metadata["labels"] == template
    template |= dict(zip(_JOB_LABELS, values, strict=True))
    if same:  # labels that the Job has from its template
        metadata["labels"] = dict(template)
    selector = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    selector.setdefault("batch.kubernetes.io/controller-uid", uid)


# -- validation ---------------------------------------------------------------------------------------------


def _check_selector_and_template(faults: Faults, spec: Object, kind: str = "deployment") -> None:
    selector = spec.get("selector")
    template = spec.get("template") or {}
    if selector is None:
        if kind != "daemonset":  # which says only that nothing is selected
            faults.required("spec.selector")
    else:
        check_selector(faults, selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            faults.invalid("spec.selector", selector, f"empty selector is invalid for {kind}")
    labels = (template.get("metadata") or {}).get("labels")
    if not selector_matches(selector, labels or {}):
        faults.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    claims = [(claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()]
    check_template(faults, template, "spec.template", claims)


def _check_always(faults: Faults, spec: Object) -> None:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy in ("OnFailure", "Never"):
        faults.not_supported("spec.template.spec.restartPolicy", policy, ("Always",))


def _check_count(faults: Faults, field: str, value: Any) -> None:
    """A number or a percentage, not below zero."""
    if isinstance(value, str):
        if not _PERCENT.fullmatch(value):
            text = (
                "a valid percent string must be a numeric string followed by an ending '%' "
                "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            )
            faults.invalid(field, value, text)
    else:
        faults.non_negative(field, value)


def _amount(value: Any) -> int:
    if isinstance(value, str):
        return int(value[:-1]) if _PERCENT.fullmatch(value) else 1
    return int(value or 0)


def check_deployment(faults: Faults, obj: Object) -> None:
    """A Deployment's spec."""
    spec = obj["spec"]
    faults.non_negative("spec.replicas", spec.get("replicas"))
    _check_selector_and_template(faults, spec)
    _check_always(faults, spec)
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "Recreate":
        if rolling is not None:
            faults.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    elif strategy.get("type") == "RollingUpdate":
        at = "spec.strategy.rollingUpdate"
        for key in ("maxUnavailable", "maxSurge"):
            _check_count(faults, f"{at}.{key}", (rolling or {}).get(key))
        if not _amount((rolling or {}).get("maxUnavailable")) and not _amount((rolling or {}).get("maxSurge")):
            text = "may not be 0 when `maxSurge` is 0"
            faults.invalid(f"{at}.maxUnavailable", (rolling or {}).get("maxUnavailable"), text)
        unavailable = (rolling or {}).get("maxUnavailable")
        if isinstance(unavailable, str) and _amount(unavailable) > 100:
            faults.invalid(f"{at}.maxUnavailable", unavailable, "must not be greater than 100%")
    else:
        faults.not_supported("spec.strategy", go_struct(strategy, _STRATEGY), ("Recreate", "RollingUpdate"))
    faults.non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    faults.non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    faults.non_negative("spec.progressDeadlineSeconds", deadline)
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        faults.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def check_replica_set(faults: Faults, obj: Object) -> None:
    """A ReplicaSet's spec."""
    spec = obj["spec"]
    faults.non_negative("spec.replicas", spec.get("replicas"))
    faults.non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    _check_selector_and_template(faults, spec)
    _check_always(faults, spec)


def check_replication_controller(faults: Faults, obj: Object) -> None:
    """A ReplicationController's spec; its selector is a plain map."""
    spec = obj["spec"]
    faults.non_negative("spec.replicas", spec.get("replicas"))
    selector = spec.get("selector") or {}
    if not selector:
        faults.required("spec.selector")
    template = spec.get("template")
    if template is None:
        faults.required("spec.template")
        return
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector_matches({"matchLabels": selector}, labels):
        faults.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    check_template(faults, template, "spec.template")
    _check_always(faults, spec)


def check_stateful_set(faults: Faults, obj: Object) -> None:
    """A StatefulSet's spec."""
    spec = obj["spec"]
    for detail in dns_label(spec["serviceName"]) if spec.get("serviceName") else ():
        faults.invalid("spec.serviceName", spec["serviceName"], detail)
    if spec.get("podManagementPolicy") not in ("OrderedReady", "Parallel"):
        text = "must be 'OrderedReady' or 'Parallel'"
        faults.invalid("spec.podManagementPolicy", spec.get("podManagementPolicy"), text)
    strategy = spec.get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "OnDelete" and rolling is not None:
        text = "only allowed for updateStrategy 'RollingUpdate'"
        faults.invalid("spec.updateStrategy.rollingUpdate", go_struct(rolling, "partition maxUnavailable"), text)
    elif strategy.get("type") == "RollingUpdate":
        faults.non_negative("spec.updateStrategy.rollingUpdate.partition", (rolling or {}).get("partition"))
    elif strategy.get("type") != "OnDelete":
        text = "must be 'RollingUpdate' or 'OnDelete'"
        faults.invalid("spec.updateStrategy", go_struct(strategy, _STRATEGY), text)
    faults.non_negative("spec.replicas", spec.get("replicas"))
    faults.non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    _check_selector_and_template(faults, spec, "statefulset")
    _check_always(faults, spec)


def check_daemon_set(faults: Faults, obj: Object) -> None:
    """A DaemonSet's spec."""
    spec = obj["spec"]
    _check_selector_and_template(faults, spec, "daemonset")
    _check_always(faults, spec)
    faults.non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") not in ("RollingUpdate", "OnDelete"):
        faults.not_supported("spec.updateStrategy", go_struct(strategy, _STRATEGY), ("RollingUpdate", "OnDelete"))
    for key in ("maxUnavailable", "maxSurge"):
        _check_count(faults, f"spec.updateStrategy.rollingUpdate.{key}", (strategy.get("rollingUpdate") or {}).get(key))


def _check_job_spec(faults: Faults, spec: Object, field: str) -> None:
    for key in ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        faults.non_negative(f"{field}.{key}", spec.get(key))
    faults.one_of(f"{field}.completionMode", spec.get("completionMode"), ("NonIndexed", "Indexed"))
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        faults.required(f"{field}.completions", "when completion mode is Indexed")
    template = spec.get("template") or {}
    check_template(faults, template, f"{field}.template")
    policy = (template.get("spec") or {}).get("restartPolicy", "")
    if policy == "Always":
        faults.required(f"{field}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')


def check_job(faults: Faults, obj: Object) -> None:
    """A Job's spec."""
    spec = obj["spec"]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    selector, uid = spec.get("selector"), obj["metadata"].get("uid")
    if (
        selector is not None
        and not spec.get("manualSelector")
        and uid
        and selector
        not in [{"matchLabels": {key: uid}} for key in ("batch.kubernetes.io/controller-uid", "controller-uid")]
    ):
        faults.invalid("spec.selector", selector, "`selector` not auto-generated")
    _check_job_spec(faults, spec, "spec")
    if selector is None:
        faults.required("spec.selector")
    elif not selector_matches(selector, labels):
        faults.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def check_cron_job(faults: Faults, obj: Object) -> None:
    """A CronJob's spec."""
    spec = obj["spec"]
    schedule = spec.get("schedule", "")
    fields = schedule.split()
    if not schedule:
        faults.required("spec.schedule")
    elif "TZ" in schedule:
        text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        faults.invalid("spec.schedule", schedule, text)
    elif not schedule.startswith("@") and (len(fields) != 5 or not all(_CRON_FIELD.fullmatch(each) for each in fields)):
        faults.invalid(
            "spec.schedule", schedule, f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
        )
    zone = spec.get("timeZone")
    if zone is not None and zone not in available_timezones():
        faults.invalid("spec.timeZone", zone, f"unknown time zone {zone}")
    faults.non_negative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    policies = ("Allow", "Forbid", "Replace")
    faults.one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies, required=True)
    for key in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        faults.non_negative(f"spec.{key}", spec.get(key))
    if len(obj["metadata"].get("name", "")) > 52:
        faults.invalid("metadata.name", obj["metadata"]["name"], "must be no more than 52 characters")
    _check_job_spec(faults, (spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec")


def check_same_selector(faults: Faults, new: Object, old: Object) -> None:
    """A workload's selector may not change."""
    before, after = old["spec"].get("selector"), new["spec"].get("selector")
    faults.immutable("spec.selector", after, same=equal_json(before, after))


_STATEFUL_SET_TEXT = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_STATEFUL_SET_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def check_stateful_set_update(faults: Faults, new: Object, old: Object) -> None:
    """Of a StatefulSet's spec only a few fields may change."""
    before, after = copy_json(old["spec"]), copy_json(new["spec"])
    for key in _STATEFUL_SET_MUTABLE:
        before.pop(key, None)
        after.pop(key, None)
    if not equal_json(before, after):
        faults.forbidden("spec", _STATEFUL_SET_TEXT)


def check_job_update(faults: Faults, new: Object, old: Object) -> None:
    """A Job's selector, template and completion mode may not change; its template may while it is suspended."""
    before, after = old["spec"], new["spec"]
    for key in ("selector", "completionMode"):
        faults.immutable(f"spec.{key}", after.get(key), same=equal_json(before.get(key), after.get(key)))
    if not (before.get("suspend") and not (old.get("status") or {}).get("startTime")):
        same = equal_json(before.get("template"), after.get("template"))
        faults.immutable("spec.template", after.get("template"), same=same)
    if before.get("completionMode") != "Indexed":
        same = equal_json(before.get("completions"), after.get("completions"))
        faults.immutable("spec.completions", after.get("completions"), same=same)


def warn_workload(faults: Faults, obj: Object) -> None:
    """Warnings about a workload's pod template."""
    spec = obj.get("spec") or {}
    field = "spec.template."
    if "jobTemplate" in spec:
        spec, field = (spec["jobTemplate"] or {}).get("spec") or {}, "spec.jobTemplate.spec.template."
    warn_template(faults, spec.get("template") or {}, field)
