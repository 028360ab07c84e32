"""A Job as the decision needs it, out of what Kubernetes shows: bodies in the shapes that real clusters have."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siorg_job.run_summary import RunReport, one_line
from siorg_operator.control.past import Past
from siorg_operator.decide.jobs import (
    CANNOT_START,
    JobRecord,
    combine,
    job_of_pod,
    job_record,
    owner_uid,
    pod_record,
    read_summary,
)
from siorg_operator.decide.manifests import drain_job
from siorg_operator.decide.state import Ending, Job, JobState, Summary
from siorg_runtime.redaction import Redactor
from support.operator_values import CREDENTIALS, NOW, UID, at, rfc3339, template_of, worker

JOB_UID = "5d3c7f2e-3a52-4d4b-9a53-0d5c1f4f3a99"
DRAINED = {
    "version": "0.1.0",
    "reason": "exhausted",
    "exit_code": 0,
    "started_at": "2026-11-24T11:59:20.000Z",
    "duration_seconds": 30.5,
    "claimed": 51,
    "completed": 47,
    "conflict": 1,
    "skipped": 1,
    "failed": 1,
    "retried": 1,
    "released": 0,
    "requests": 12,
    "request_errors": 2,
    "siorg_seconds": 9.1,
}


def a_job(*, conditions: list[dict[str, Any]] | None = None, **status: Any) -> dict[str, Any]:
    """A Job of ours as the API server shows it, made 60 s ago."""
    made = drain_job(worker(), slot=3, round=12, credentials=CREDENTIALS, decision="")
    made["metadata"] |= {"uid": JOB_UID, "creationTimestamp": rfc3339(at(-60)), "resourceVersion": "8"}
    status = {"startTime": rfc3339(at(-60)), "active": 1, "ready": 0, **status}
    return {**made, "status": status | ({} if conditions is None else {"conditions": conditions})}


def condition(kind: str, reason: str = "", message: str = "", *, status: str = "True", when: float = -10) -> dict[str, Any]:
    told = {"reason": reason, "message": message} if reason else {}
    moment = rfc3339(at(when))
    return {"type": kind, "status": status, "lastProbeTime": moment, "lastTransitionTime": moment, **told}


def complete(when: float = -10) -> dict[str, Any]:
    both = [
        condition("SuccessCriteriaMet", "CompletionsReached", when=when),
        condition("Complete", "CompletionsReached", when=when),
    ]
    return a_job(conditions=both, completionTime=rfc3339(at(when)), succeeded=1, active=0)


def failed(
    reason: str = "BackoffLimitExceeded", message: str = "Job has reached the specified backoff limit", **more: Any
) -> dict[str, Any]:
    both = [condition("FailureTarget", reason, message), condition("Failed", reason, message)]
    return a_job(conditions=both, failed=1, active=0, **more)


def a_pod(
    state: dict[str, Any] | None = None,
    *,
    name: str = "pod",
    phase: str = "Pending",
    scheduled: bool | None = True,
    **metadata: Any,
) -> dict[str, Any]:
    """A pod of that Job, made 60 s ago and scheduled 55 s ago unless told otherwise."""
    conditions = []
    if scheduled is not None:
        why = {} if scheduled else {"reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}
        moment = rfc3339(at(-55))
        conditions = [{"type": "PodScheduled", "status": str(scheduled), "lastTransitionTime": moment, **why}]
    statuses = [] if state is None else [{"name": "worker", "ready": False, "restartCount": 0, "state": state}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": rfc3339(at(-60)),
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": JOB_UID, "controller": True}],
            **metadata,
        },
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": statuses},
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message} if message else {"reason": reason}}


def running(since: float = -40) -> dict[str, Any]:
    return {"running": {"startedAt": rfc3339(at(since))}}


def terminated(code: int, message: str = "", reason: str = "", *, since: float = -40, until: float = -10) -> dict[str, Any]:
    told = {"message": message} if message else {}
    why = reason or ("Completed" if code == 0 else "Error")
    return {
        "terminated": {
            "exitCode": code,
            "reason": why,
            "startedAt": rfc3339(at(since)),
            "finishedAt": rfc3339(at(until)),
            **told,
        }
    }


def seen(job: dict[str, Any], *pods: dict[str, Any], now: datetime = NOW) -> Job:
    record = job_record(job)
    assert record is not None
    return combine(record, [pod_record(pod) for pod in pods], now)


def record_of(job: dict[str, Any]) -> JobRecord:
    record = job_record(job)
    assert record is not None
    return record


def words(reason: str, code: int, **counts: Any) -> str:
    """A termination message."""
    return json.dumps({"reason": reason, "exit_code": code, "duration_seconds": 31.0, **counts})


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_a_job_belongs_to_its_controller() -> None:
    assert owner_uid(a_job()) == UID
    assert owner_uid({"metadata": {}}) is None
    stranger = {"kind": "CronJob", "uid": "u", "controller": True}
    mere_owner = {"kind": "SiorgSyncWorker", "uid": "u"}
    assert owner_uid({"metadata": {"ownerReferences": [stranger, mere_owner]}}) is None


def test_a_pod_belongs_to_its_job() -> None:
    assert job_of_pod(a_pod()) == JOB_UID
    assert job_of_pod({"metadata": {"ownerReferences": None}}) is None


@pytest.mark.parametrize("given_labels", [None, {}, {"siorg.waterswamp.dev/slot": "0"}])
def test_a_job_without_our_labels_is_none_of_ours(given_labels: dict[str, str] | None) -> None:
    assert job_record({"metadata": {"name": "x", "labels": given_labels}}) is None


@pytest.mark.parametrize(("slot", "round_"), [("x", "1"), ("1", "-1"), ("", ""), ("1", "1.5")])
def test_a_job_whose_place_cannot_be_read_is_none_of_ours(slot: str, round_: str) -> None:
    place = {"siorg.waterswamp.dev/slot": slot, "siorg.waterswamp.dev/round": round_}
    assert job_record({"metadata": {"name": "x", "labels": place}}) is None


def test_knows_the_place_the_template_and_the_time_of_a_job() -> None:
    job = seen(a_job())
    assert (job.slot, job.round, job.template, job.created_at) == (3, 12, template_of(), at(-60))
    assert job.name.endswith("-3-12")


# -- unfinished -------------------------------------------------------------------------------------------------------


def test_a_job_that_was_just_made_is_pending() -> None:
    bare = a_job()
    del bare["status"]
    job = seen(bare, now=at(-30))
    assert (job.state, job.unfinished, job.stuck, job.ending, job.finished_at) == (JobState.PENDING, True, None, None, None)


@pytest.mark.parametrize(
    "pod",
    [
        a_pod(scheduled=None),
        a_pod(),
        a_pod(waiting("ContainerCreating")),
        a_pod(waiting("PodInitializing")),
        a_pod(waiting("CrashLoopBackOff")),
    ],
    ids=["new", "scheduled", "creating", "initializing", "another word"],
)
def test_a_pod_on_its_way_makes_no_trouble(pod: dict[str, Any]) -> None:
    job = seen(a_job(), pod)
    assert (job.state, job.started_at, job.stuck) == (JobState.PENDING, None, None)


def test_a_running_pod_makes_it_active() -> None:
    job = seen(a_job(ready=1), a_pod(running(), phase="Running"))
    assert (job.state, job.started_at) == (JobState.ACTIVE, at(-40))


def test_a_suspended_job_is_pending_and_not_stuck_however_long() -> None:
    suspended = a_job(conditions=[condition("Suspended", "JobSuspended")], active=0)
    suspended["spec"]["suspend"] = True
    job = seen(suspended, now=at(90_000))
    assert (job.state, job.stuck) == (JobState.PENDING, None)


@pytest.mark.parametrize("kind", ["FailureTarget", "SuccessCriteriaMet"])
def test_a_job_that_will_have_ended_has_not_yet(kind: str) -> None:
    # Its pods are still being removed: https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
    job = seen(a_job(conditions=[condition(kind, "DeadlineExceeded")]), a_pod(running(), phase="Running"))
    assert (job.state, job.finished_at) == (JobState.ACTIVE, None)


def test_a_condition_that_does_not_hold_is_none() -> None:
    assert seen(a_job(conditions=[condition("Failed", status="False"), condition("Complete", status="Unknown")])).unfinished


def test_of_several_pods_one_that_runs_makes_it_active() -> None:
    dead = a_pod(terminated(1), name="first", phase="Failed")
    job = seen(a_job(), dead, a_pod(running(-20), name="second", phase="Running"))
    assert (job.state, job.started_at, job.ending, job.summary) == (JobState.ACTIVE, at(-20), None, None)


# -- ended well -------------------------------------------------------------------------------------------------------


def test_a_job_that_drained_the_queue() -> None:
    job = seen(complete(), a_pod(terminated(0, json.dumps(DRAINED)), phase="Succeeded"))
    assert (job.state, job.ending, job.message) == (JobState.SUCCEEDED, Ending.DONE, "")
    assert (job.started_at, job.finished_at) == (at(-40), at(-10))
    assert job.summary == Summary("exhausted", 0, 30.5, 47, 1, 1, 1, 1, 0, 51, 12, 2)
    assert job.summary.ended == 50


def test_a_job_whose_pod_is_gone_is_done_all_the_same() -> None:
    job = seen(complete())
    assert (job.state, job.ending, job.summary, job.started_at) == (JobState.SUCCEEDED, Ending.DONE, None, None)


def test_reads_the_summary_that_the_job_writes() -> None:
    report = RunReport(claimed=5, completed=3, retried=2, requests=4, request_errors=1)
    told = read_summary("a line before\n" + one_line(report.summary("stopped", 0)) + "\n")
    assert told is not None
    assert (told.reason, told.exit_code, told.claimed, told.completed, told.retried) == ("stopped", 0, 5, 3, 2)
    assert (told.requests, told.request_errors) == (4, 1)


# -- ended badly ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "ending"),
    [
        ("siorg_unavailable", Ending.SIORG_UNAVAILABLE),
        ("siorg_rate_limited", Ending.SIORG_RATE_LIMITED),
        ("database_unavailable", Ending.DATABASE_UNAVAILABLE),
        ("something else", Ending.FAILED),
    ],
)
def test_exit_75_says_what_was_unavailable(reason: str, ending: Ending) -> None:
    policy = "Container worker for pod sync/x failed with exit code 75 matching FailJob rule at index 1"
    job = seen(failed("PodFailurePolicy", policy), a_pod(terminated(75, words(reason, 75, request_errors=3)), phase="Failed"))
    assert (job.state, job.ending, job.message) == (JobState.FAILED, ending, f"exit code 75, {reason}")
    assert job.summary is not None
    assert job.summary.request_errors == 3


def test_exit_75_without_a_summary_is_a_failure() -> None:
    job = seen(failed("PodFailurePolicy"), a_pod(terminated(75, "no json"), phase="Failed"))
    assert (job.ending, job.message) == (Ending.FAILED, "exit code 75: no json")


def test_exit_2_tells_the_end_of_the_log() -> None:
    log = "…\nWORKER_LEASE_SECS: is too small; value: '1'; allowed: 2 to 3600\n"
    job = seen(failed("PodFailurePolicy"), a_pod(terminated(2, log), phase="Failed"))
    assert job.ending is Ending.WRONG_SETTINGS
    assert job.message == "exit code 2: WORKER_LEASE_SECS: is too small; value: '1'; allowed: 2 to 3600"


def test_a_crash_tells_the_last_line_of_its_log() -> None:
    job = seen(failed(), a_pod(terminated(1, "Traceback:\n  …\nValueError: no\n"), phase="Failed"))
    assert (job.state, job.ending, job.message) == (JobState.FAILED, Ending.FAILED, "exit code 1: ValueError: no")


def test_a_job_that_was_killed_for_its_memory_says_so() -> None:
    job = seen(failed(), a_pod(terminated(137, reason="OOMKilled"), phase="Failed"))
    assert (job.ending, job.message) == (Ending.FAILED, "exit code 137, OOMKilled")


def test_a_run_that_failed_tells_its_reason() -> None:
    job = seen(failed(), a_pod(terminated(1, words("error", 1)), phase="Failed"))
    assert (job.ending, job.message) == (Ending.FAILED, "exit code 1, error")


def test_a_failed_job_without_pods_tells_what_kubernetes_says() -> None:
    job = seen(failed())
    assert (job.ending, job.message) == (Ending.FAILED, "Job has reached the specified backoff limit")


def test_a_pod_that_was_evicted_leaves_kubernetes_words() -> None:
    evicted = a_pod(None, phase="Failed")
    assert seen(failed(), evicted).message == "Job has reached the specified backoff limit"


def test_the_deadline_is_an_end_of_its_own() -> None:
    past = failed("DeadlineExceeded", "Job was active longer than specified deadline")
    assert seen(past).ending is Ending.DEADLINE
    assert seen(past).message == "Job was active longer than specified deadline"
    worked = seen(past, a_pod(terminated(0, words("stopped", 0, completed=9)), phase="Succeeded"))
    assert (worked.ending, worked.summary and worked.summary.completed) == (Ending.DEADLINE, 9)


def test_a_job_that_the_operator_ended_was_stuck() -> None:
    ended = failed("DeadlineExceeded", "Job was active longer than specified deadline")
    ended["metadata"]["annotations"]["siorg.waterswamp.dev/stuck"] = "ImagePullBackOff: no such image"
    job = seen(ended)
    assert (job.state, job.ending, job.message) == (JobState.FAILED, Ending.STUCK, "ImagePullBackOff: no such image")


def test_a_job_that_is_being_ended_stays_unfinished_until_it_is() -> None:
    annotated = a_job()
    annotated["metadata"]["annotations"]["siorg.waterswamp.dev/stuck"] = "ImagePullBackOff: no such image"
    for pods in ([a_pod(waiting("ImagePullBackOff"))], []):  # its pod goes first
        job = seen(annotated, *pods)
        assert job.state is JobState.PENDING
        assert job.stuck is not None
        assert (job.stuck.reason, job.stuck.message) == ("ImagePullBackOff", "no such image")


def test_of_several_pods_the_newest_that_ended_speaks() -> None:
    first = a_pod(terminated(1, "first", until=-30), name="first", phase="Failed")
    second = a_pod(terminated(1, "second", until=-12), name="second", phase="Failed")
    assert seen(failed(), second, first).message == seen(failed(), first, second).message == "exit code 1: second"


def test_a_message_is_one_line_of_limited_length_that_can_be_printed() -> None:
    job = seen(failed(), a_pod(terminated(1, "\x1b[31mred\x1b[0m\t\x00 " + "xxxx " * 900), phase="Failed"))
    assert 290 < len(job.message) <= 300
    assert job.message.startswith("exit code 1: [31mred [0m xxxx xxxx")
    assert job.message.endswith("xxxx …")
    assert job.message.isprintable()


@pytest.mark.parametrize("room", range(4, 40, 5))
def test_of_a_secret_that_a_message_holds_nothing_stays_wherever_it_is_cut(room: int) -> None:
    token = "tok_abcdefghijklmnopqrstuvwxyz0123456789"
    redactor = Redactor()
    before = "Error: " + "x" * (278 - room) + " "
    ended = a_pod(terminated(1, f"{before}{token} was refused"), phase="Failed")
    record = job_record(failed())
    assert record is not None
    not_known_yet = combine(record, [pod_record(ended)], NOW).message
    redactor.remember(token)
    known = combine(record, [pod_record(ended)], NOW, redactor.text).message
    for message in (redactor.text(not_known_yet), known):
        assert token[:4] not in message
        assert len(message) <= 300
    stuck = a_pod(waiting("CreateContainerConfigError", f"{before}{token} is no key"))
    job = Past().jobs([(record_of(a_job()), [pod_record(stuck)])], NOW, redactor.text)[0]
    assert job.stuck is not None
    assert token[:4] not in job.stuck.message


def test_what_stands_where_secrets_stand_is_taken_out_before_it_is_cut() -> None:
    log = "x" * 250 + " postgresql://siorg:hunter2hunter2hunter2@db.example/siorg"
    assert "hunter2" not in seen(failed(), a_pod(terminated(1, log), phase="Failed")).message


# -- what comes late --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ago", "state"), [(4, JobState.PENDING), (5, JobState.FAILED)])
def test_a_job_ended_before_its_pods_end_is_known_is_unfinished_a_moment_longer(ago: float, state: JobState) -> None:
    both = [condition("Failed", "BackoffLimitExceeded", when=-ago)]
    assert seen(a_job(conditions=both)).state is state


def test_and_so_is_one_whose_pod_still_seems_to_run() -> None:
    job = seen(complete(when=-2), a_pod(running(), phase="Running"))
    assert (job.state, job.finished_at, job.ending) == (JobState.ACTIVE, None, None)


def test_what_the_pod_told_is_enough() -> None:
    assert seen(complete(when=-1), a_pod(terminated(0, json.dumps(DRAINED)))).state is JobState.SUCCEEDED


def test_no_pod_will_tell_of_one_that_met_its_deadline() -> None:
    both = [condition("Failed", "DeadlineExceeded", when=-1)]
    assert seen(a_job(conditions=both)).state is JobState.FAILED


def test_a_clock_that_is_ahead_keeps_no_job_alive() -> None:
    assert seen(complete(when=3600)).state is JobState.SUCCEEDED


# -- stuck ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", sorted(CANNOT_START))
def test_a_container_that_cannot_start(reason: str) -> None:
    job = seen(a_job(), a_pod(waiting(reason, 'Back-off pulling image "x"\n')))
    assert job.stuck is not None
    assert (job.stuck.reason, job.stuck.message, job.stuck.since) == (reason, 'Back-off pulling image "x"', at(-55))


def test_a_pod_that_no_node_takes() -> None:
    job = seen(a_job(), a_pod(scheduled=False))
    assert job.stuck is not None
    assert (job.stuck.reason, job.stuck.since) == ("Unschedulable", at(-55))
    assert job.stuck.message == "0/3 nodes are available: 3 Insufficient cpu."


def test_a_gated_pod_is_not_stuck() -> None:
    pod = a_pod(scheduled=False)
    pod["status"]["conditions"][0]["reason"] = "SchedulingGated"
    assert seen(a_job(), pod).stuck is None


def test_a_pod_on_its_way_out_is_not_stuck() -> None:
    leaving = a_pod(waiting("ImagePullBackOff"), deletionTimestamp=rfc3339(at(-1)))
    assert seen(a_job(), leaving, a_pod(name="successor")).stuck is None


def test_a_job_with_a_running_pod_is_not_stuck() -> None:
    job = seen(a_job(), a_pod(waiting("ImagePullBackOff")), a_pod(running(), name="second"))
    assert (job.state, job.stuck) == (JobState.ACTIVE, None)


def test_a_finished_job_is_not_stuck() -> None:
    assert seen(failed("DeadlineExceeded"), a_pod(waiting("ImagePullBackOff"))).stuck is None


@pytest.mark.parametrize(("seconds", "reason"), [(844, None), (845, "ContainerCreating")])
def test_a_container_that_is_not_made_for_a_quarter_of_an_hour_never_will_be(seconds: float, reason: str | None) -> None:
    # A volume that is missing: Kubernetes says so in events alone.
    job = seen(a_job(), a_pod(waiting("ContainerCreating")), now=at(seconds))
    assert (job.stuck and job.stuck.reason) == reason


@pytest.mark.parametrize(("seconds", "reason"), [(844, None), (845, "PodInitializing")])
def test_nor_will_one_that_waits_so_long_for_an_init_container(seconds: float, reason: str | None) -> None:
    job = seen(a_job(), a_pod(waiting("PodInitializing")), now=at(seconds))
    assert (job.stuck and job.stuck.reason) == reason
    assert reason is None or "init container" in (job.stuck.message if job.stuck else "")


def with_init(pod: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    done = {"name": "first", "state": terminated(0)}
    pod["status"]["initContainerStatuses"] = [done, {"name": "vault-agent", "state": state}]
    return pod


@pytest.mark.parametrize("reason", sorted(CANNOT_START))
def test_an_init_container_that_cannot_start_stops_the_pod(reason: str) -> None:
    job = seen(a_job(), with_init(a_pod(waiting("PodInitializing")), waiting(reason, "no such image")))
    assert job.stuck is not None
    assert (job.stuck.reason, job.stuck.message) == (reason, "init container vault-agent: no such image")


def test_an_init_container_that_runs_makes_no_trouble() -> None:
    assert seen(a_job(), with_init(a_pod(waiting("PodInitializing")), running())).stuck is None


def test_a_sidecar_that_cannot_start_does_not_matter_once_the_container_has_run() -> None:
    done = with_init(a_pod(terminated(0, json.dumps(DRAINED))), waiting("ImagePullBackOff"))
    assert seen(a_job(), done).stuck is None


def look(past: Past, now: datetime, *pods: dict[str, Any], job: dict[str, Any] | None = None) -> Job:
    (found,) = past.jobs([(record_of(job or a_job()), [pod_record(pod) for pod in pods])], now, str)
    return found


def since(job: Job) -> datetime | None:
    return None if job.stuck is None else job.stuck.since


def test_the_grace_of_a_stuck_pod_begins_when_it_is_first_seen_stuck_not_when_a_node_took_it() -> None:
    past = Past()
    assert since(look(past, at(-10), a_pod(waiting("ContainerCreating")))) is None
    assert since(look(past, at(0), a_pod(waiting("ErrImagePull")))) == at(0)
    assert since(look(past, at(20), a_pod(waiting("ImagePullBackOff")))) == at(0)


def test_one_that_went_on_its_way_is_seen_anew() -> None:
    past = Past()
    look(past, at(0), a_pod(waiting("ErrImagePull")))
    look(past, at(10), a_pod(waiting("ContainerCreating")))
    assert since(look(past, at(60), a_pod(waiting("CreateContainerError")))) == at(60)


def test_a_successor_has_a_grace_of_its_own() -> None:
    past = Past()
    look(past, at(0), a_pod(waiting("ErrImagePull"), name="first"))
    assert since(look(past, at(40), a_pod(waiting("ErrImagePull"), name="second"))) == at(40)


def test_of_a_pod_that_no_node_takes_its_condition_tells_since_when() -> None:
    assert since(look(Past(), at(0), a_pod(scheduled=False))) == at(-55)


def test_a_job_that_began_is_remembered_when_its_deadline_removes_the_pod() -> None:
    past = Past()
    look(past, at(0), a_pod(running(), phase="Running"))
    assert look(past, at(10), job=failed("DeadlineExceeded")).started_at == at(-40)
    assert look(past, at(20), job=failed("DeadlineExceeded")).started_at == at(-40)


def test_and_of_one_that_never_began_nothing_is_told() -> None:
    past = Past()
    look(past, at(0), a_pod(waiting("PodInitializing")))
    assert look(past, at(10), job=failed("DeadlineExceeded")).started_at is None


@pytest.mark.parametrize(("active", "seconds", "reason"), [(0, -1, None), (0, 0, "NoPod"), (1, 90_000, None)])
def test_a_job_for_which_no_pod_is_made_within_a_minute_is_told(active: int, seconds: float, reason: str | None) -> None:
    # A quota: its Job controller knows of no pod either. One that it knows of and we do not see is left alone.
    job = seen(a_job(active=active), now=at(seconds))
    assert (job.stuck and job.stuck.reason) == reason


def test_but_it_has_a_quarter_of_an_hour_since_it_starts_by_itself_when_the_quota_is_mended() -> None:
    job = seen(a_job(active=0), now=at(0))
    assert job.stuck is not None
    assert (job.stuck.since - job.created_at).total_seconds() == 900


# -- anything ---------------------------------------------------------------------------------------------------------

_TEXT = st.one_of(
    st.text(max_size=30), st.sampled_from(["", "\ud800", "[" * 4000, "9" * 5000, "NaN", "1e999", json.dumps(DRAINED)])
)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from([*DRAINED, "x"]), inner, max_size=6)),
    max_leaves=8,
)


@settings(max_examples=500)
@given(st.one_of(_TEXT, _JSON.map(json.dumps), st.dictionaries(st.sampled_from(sorted(DRAINED)), _JSON).map(json.dumps)))
def test_any_last_words_make_a_summary_or_none(text: str) -> None:
    told = read_summary(text)
    if told is not None:
        assert min(told.completed, told.failed, told.requests) >= 0
        assert told.reason.isprintable()
        told.reason.encode()


def test_a_summary_needs_a_reason_and_an_exit_code() -> None:
    for text in ("", "{}", "[]", '"x"', '{"reason": "x"}', '{"reason": 5, "exit_code": 0}', '{"reason": "x", "exit_code": true}'):
        assert read_summary(text) is None
    assert read_summary('{"reason": "x", "exit_code": 0, "completed": -5, "failed": "9", "requests": null}') == Summary(
        "x", 0, 0.0
    )


_MOMENTS = st.none() | st.sampled_from([rfc3339(at(-9)), rfc3339(at(3600)), "2026-11-24T11:59:20.123456Z"])
_CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Failed", "Complete", "PodScheduled", "Suspended", "FailureTarget"]),
            "status": st.sampled_from(["True", "False", "Unknown"]),
        },
        optional={"reason": _TEXT, "message": _TEXT, "lastTransitionTime": _MOMENTS},
    ),
    max_size=3,
)
_STATES = st.fixed_dictionaries(
    {},
    optional={
        "waiting": st.fixed_dictionaries(
            {}, optional={"reason": _TEXT | st.sampled_from(sorted(CANNOT_START)), "message": _TEXT}
        ),
        "running": st.fixed_dictionaries({}, optional={"startedAt": _MOMENTS}),
        "terminated": st.fixed_dictionaries(
            {"exitCode": st.integers(-1, 255)},
            optional={"reason": _TEXT, "message": _TEXT, "startedAt": _MOMENTS, "finishedAt": _MOMENTS},
        ),
    },
)
_POD_STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "phase": _TEXT,
        "conditions": st.none() | _CONDITIONS,
        "containerStatuses": st.none()
        | st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["worker", "sidecar"])}, optional={"state": _STATES}), max_size=2
        ),
    },
)


@settings(max_examples=500)
@given(
    st.none()
    | st.fixed_dictionaries(
        {}, optional={"conditions": st.none() | _CONDITIONS, "completionTime": _MOMENTS, "active": st.integers()}
    ),
    st.lists(st.none() | _POD_STATUSES, max_size=3),
)
def test_whatever_kubernetes_shows_is_a_job(status: Any, pods: list[Any]) -> None:
    bodies = [{**a_pod(name=f"pod-{n}"), "status": one} for n, one in enumerate(pods)]
    job = seen({**a_job(), "status": status}, *bodies)
    assert job.unfinished == (job.finished_at is None) == (job.ending is None)
    assert (job.message == "") or job.state is JobState.FAILED
    assert len(job.message) <= 300
    job.message.encode()
    assert job.stuck is None or job.state is JobState.PENDING
