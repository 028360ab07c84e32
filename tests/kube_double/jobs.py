"""What Kubernetes defaults and checks in Jobs and CronJobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kube_double.names import labels_faults
from kube_double.pods import default_pod_spec, pod_spec_faults
from kube_double.refused import Body, Fault, invalid, required, unsupported

_MARKS = ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name")
_FIXED = ("completionMode", "podFailurePolicy", "selector", "successPolicy", "template", "managedBy", "backoffLimitPerIndex")
_NUMBERS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")


def default_job_spec(spec: Body) -> None:
    """Fill in, in place, what the API server does for a Job and for a CronJob's template alike."""
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    failure_policy = spec.get("podFailurePolicy")
    spec.setdefault("podReplacementPolicy", "Failed" if failure_policy else "TerminatingOrFailed")
    for rule in (failure_policy or {}).get("rules") or ():
        for condition in rule.get("onPodConditions") or ():
            condition.setdefault("status", "True")
    template = spec.get("template")
    if isinstance(template, dict):
        template.setdefault("metadata", {})
        default_pod_spec(template.setdefault("spec", {}))


def default_job(body: Body) -> None:
    """A Job itself: its selector and the labels that tie its pods to it."""
    spec = body.setdefault("spec", {})
    default_job_spec(spec)
    spec.setdefault("manualSelector", False)
    template = spec.setdefault("template", {}).setdefault("metadata", {})
    if not spec["manualSelector"]:
        uid, name = body["metadata"]["uid"], body["metadata"].get("name", "")
        spec.setdefault("selector", {}).setdefault("matchLabels", {})[_MARKS[0]] = uid
        template.setdefault("labels", {}).update(zip(_MARKS, (uid, name, uid, name), strict=True))
    if template.get("labels") and not body["metadata"].get("labels"):
        # The template's labels and the Job's own are one map there, which gets the marks, too.
        body["metadata"]["labels"] = dict(template["labels"])


def job_spec_faults(spec: Body, field: str = "spec") -> list[Fault]:
    """What is wrong with a Job's spec."""
    faults: list[Fault] = []
    for key in _NUMBERS:
        value = spec.get(key)
        if value is not None and value < 0:
            faults.append(invalid(f"{field}.{key}", value, "must be greater than or equal to 0"))
    template = spec.get("template") or {}
    faults += labels_faults((template.get("metadata") or {}).get("labels") or {}, f"{field}.template.labels")
    pod = template.get("spec") or {}
    faults += pod_spec_faults(pod, f"{field}.template.spec")
    if pod.get("restartPolicy") == "Always":
        faults.append(required(f"{field}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    elif spec.get("podFailurePolicy") and pod.get("restartPolicy") != "Never":
        faults.append(invalid(f"{field}.template.spec.restartPolicy", pod.get("restartPolicy"),
                              'only "Never" is supported when podFailurePolicy is specified'))  # fmt: skip
    for at, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        faults += _rule_faults(rule, f"{field}.podFailurePolicy.rules[{at}]", pod)
    return faults


def _rule_faults(rule: Body, field: str, pod: Body) -> list[Fault]:
    faults: list[Fault] = []
    actions = ("Count", "FailIndex", "FailJob", "Ignore")
    if not rule.get("action"):
        names = " ".join(f'"{each}"' for each in actions)
        faults.append(required(f"{field}.action", f"valid values: [{names}]"))
    elif rule["action"] not in actions:
        faults.append(unsupported(f"{field}.action", rule["action"], actions))
    exit_codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if exit_codes is not None and conditions:
        what = "Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"
        faults.append(Fault(field, "FieldValueInvalid", what))
    if exit_codes is None and not conditions:
        what = "Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
        faults.append(Fault(field, "FieldValueInvalid", what))
    if exit_codes is not None:
        if exit_codes.get("operator") not in ("In", "NotIn"):
            faults.append(unsupported(f"{field}.onExitCodes.operator", exit_codes.get("operator"), ("In", "NotIn")))
        values = exit_codes.get("values") or []
        if not values:
            faults.append(invalid(f"{field}.onExitCodes.values", values, "at least one value is required"))
        if exit_codes.get("operator") == "In" and 0 in values:
            faults.append(invalid(f"{field}.onExitCodes.values[{values.index(0)}]", 0, "must not be 0 for the In operator"))
        name = exit_codes.get("containerName")
        containers = [*(pod.get("containers") or ()), *(pod.get("initContainers") or ())]
        if name is not None and name not in {container.get("name") for container in containers}:
            faults.append(invalid(f"{field}.onExitCodes.containerName", name,
                                  "must be one of the container or initContainer names in the pod template"))  # fmt: skip
    return faults


def job_update_faults(new: Body, old: Body) -> list[Fault]:
    """What of a Job may not change."""
    faults = []
    was, now = old["spec"], new["spec"]
    for key in _FIXED:
        if was.get(key) == now.get(key):
            continue
        if key == "template" and was.get("suspend") and not old.get("status", {}).get("startTime"):
            continue
        faults.append(invalid(f"spec.{key}", now.get(key), "field is immutable"))
    if was.get("completions") != now.get("completions"):
        indexed = was.get("completionMode") == "Indexed" and now.get("completions") == now.get("parallelism")
        if not indexed:
            tandem = now.get("completionMode") == "Indexed"
            why = "can only be modified in tandem with spec.parallelism" if tandem else "field is immutable"
            faults.append(invalid("spec.completions", now.get("completions"), why))
    return faults


_CRON_NAMES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_RANGES: tuple[tuple[int, int, Mapping[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: at for at, name in enumerate(_MONTHS, 1)}),
    (0, 6, {name: at for at, name in enumerate(_DAYS)}),
)


def default_cron_job(body: Body) -> None:
    spec = body.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template = spec.get("jobTemplate")
    if isinstance(template, dict):
        template.setdefault("metadata", {})
        inner = template.setdefault("spec", {})
        default_cron_job_template(inner)


def default_cron_job_template(spec: Body) -> None:
    """A CronJob's template gets the pod's defaults only: the Job's own come when a Job is made from it."""
    template = spec.get("template")
    if isinstance(template, dict):
        template.setdefault("metadata", {})
        default_pod_spec(template.setdefault("spec", {}))


def cron_job_faults(body: Body) -> list[Fault]:
    """What is wrong with a CronJob."""
    faults: list[Fault] = []
    name = body["metadata"].get("name") or ""
    if len(name) > 52:
        faults.append(invalid("metadata.name", name, "must be no more than 52 characters"))
    spec = body["spec"]
    schedule = spec.get("schedule") or ""
    if not schedule:
        faults.append(required("spec.schedule"))
    else:
        if "TZ" in schedule:
            faults.append(invalid("spec.schedule", schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
        problem = _cron_problem(schedule)
        if problem:
            faults.append(invalid("spec.schedule", schedule, problem))
    allowed = ("Allow", "Forbid", "Replace")
    if spec.get("concurrencyPolicy") not in allowed:
        faults.append(unsupported("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), allowed))
    zone = spec.get("timeZone")
    if zone is not None:
        faults += _zone_faults(zone)
    for key in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        value = spec.get(key)
        if value is not None and value < 0:
            faults.append(invalid(f"spec.{key}", value, "must be greater than or equal to 0"))
    template = spec.get("jobTemplate") or {}
    return faults + job_spec_faults(template.get("spec") or {}, "spec.jobTemplate.spec")


def _zone_faults(zone: str) -> list[Fault]:
    if not zone:
        return [invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")]
    if zone == "Local":
        what = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [invalid("spec.timeZone", zone, what)]
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return [invalid("spec.timeZone", zone, f"unknown time zone {zone}")]
    return []


def _cron_problem(schedule: str) -> str:
    if schedule.startswith("@"):
        known = schedule in _CRON_NAMES or re.fullmatch(r"@every [0-9]+(ns|us|ms|s|m|h).*", schedule)
        return "" if known else f"unrecognized descriptor: {schedule}"
    fields = [part for part in schedule.split() if not part.startswith(("TZ=", "CRON_TZ="))]
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    try:
        for text, (low, high, names) in zip(fields, _CRON_RANGES, strict=True):
            for part in text.split(","):
                _check_cron_range(part, low, high, names)
    except ValueError as error:
        return str(error)
    return ""


def _check_cron_range(text: str, low: int, high: int, names: Mapping[str, int]) -> None:
    span, *steps = text.split("/")
    ends = span.split("-")
    if ends[0] in ("*", "?"):
        first, last = low, high
    else:
        first = _cron_number(ends[0], names)
        last = _cron_number(ends[1], names) if len(ends) == 2 else first
        if len(ends) > 2:
            raise ValueError(f"too many hyphens: {text}")
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {text}")
    step = _cron_number(steps[0], {}) if steps else 1
    if steps and len(ends) == 1:
        last = high
    if first < low:
        raise ValueError(f"beginning of range ({first}) below minimum ({low}): {text}")
    if last > high:
        raise ValueError(f"end of range ({last}) above maximum ({high}): {text}")
    if first > last:
        raise ValueError(f"beginning of range ({first}) beyond end of range ({last}): {text}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {text}")


def _cron_number(text: str, names: Mapping[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)
