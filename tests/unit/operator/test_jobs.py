"""A Job as the decision needs it, out of what Kubernetes shows: bodies in the shapes that real clusters have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siorg_job.run_summary import RunSummary
from siorg_operator.decide.jobs import combine, controller_uid, job_record, read_summary
from siorg_operator.decide.pods import CANNOT_START, pod_record
from siorg_operator.decide.state import Ending, JobState, Stuck, Summary, later
from siorg_runtime.redaction import Redactor
from support.job_objects import (
    DID,
    DRAINED,
    JOB_UID,
    a_job,
    a_pod,
    complete,
    condition,
    failed,
    record_of,
    running,
    seen,
    stuck_because,
    terminated,
    waiting,
    words,
)
from support.operator_values import NOW, UID, at, rfc3339, template_of

# -- whose it is ------------------------------------------------------------------------------------------------------


def test_a_job_and_a_pod_belong_to_their_controllers() -> None:
    assert controller_uid(a_job()) == UID
    assert controller_uid({"metadata": {}}) is None
    stranger = {"kind": "CronJob", "uid": "u", "controller": True}
    mere_owner = {"kind": "SiorgSyncWorker", "uid": "u"}
    assert controller_uid({"metadata": {"ownerReferences": [stranger, mere_owner]}}) is None
    assert controller_uid(a_pod(), "Job") == JOB_UID
    assert controller_uid({"metadata": {"ownerReferences": None}}, "Job") is None


def test_a_job_whose_place_cannot_be_read_is_none_of_ours() -> None:
    slot, round_ = "siorg.waterswamp.dev/slot", "siorg.waterswamp.dev/round"
    places = [None, {}, {slot: "0"}, *({slot: a, round_: b} for a, b in (("x", "1"), ("1", "-1"), ("", ""), ("1", "1.5")))]
    assert [job_record({"metadata": {"name": "x", "labels": place}}) for place in places] == [None] * len(places)


# -- unfinished -------------------------------------------------------------------------------------------------------


def test_a_job_that_was_just_made_is_pending() -> None:
    bare = a_job()
    del bare["status"]
    job = seen(bare, now=at(-30))
    assert (job.slot, job.round, job.template, job.created_at) == (3, 12, template_of(), at(-60))
    assert job.name.endswith("-3-12")
    assert (job.state, job.unfinished, job.stuck, job.ending, job.finished_at) == (JobState.PENDING, True, None, None, None)


def test_a_pod_on_its_way_is_not_stuck() -> None:
    on_their_way = (None, waiting("ContainerCreating"), waiting("PodInitializing"), waiting("CrashLoopBackOff"))
    for pod in (a_pod(scheduled=None), *(a_pod(state) for state in on_their_way)):
        job = seen(a_job(), pod, now=at(-1))
        assert (job.state, job.started_at, job.stuck) == (JobState.PENDING, None, None), pod


def test_a_job_that_will_have_ended_has_not_yet() -> None:
    # Its pods are still being removed: https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
    for kind in ("FailureTarget", "SuccessCriteriaMet"):
        job = seen(a_job(conditions=[condition(kind, "DeadlineExceeded")]), a_pod(running(), phase="Running"))
        assert (job.state, job.finished_at) == (JobState.ACTIVE, None), kind
    assert seen(a_job(conditions=[condition("Failed", status="False"), condition("Complete", status="Unknown")])).unfinished


def test_a_running_pod_makes_it_active_also_beside_one_that_ended() -> None:
    job = seen(a_job(ready=1), a_pod(running(), phase="Running"))
    assert (job.state, job.started_at) == (JobState.ACTIVE, at(-40))
    dead = a_pod(terminated(1), name="first", phase="Failed")
    job = seen(a_job(), dead, a_pod(running(-20), name="second", phase="Running"))
    assert (job.state, job.started_at, job.ending, job.summary) == (JobState.ACTIVE, at(-20), None, None)


def test_a_running_worker_is_not_stuck_whatever_is_in_front_of_it() -> None:
    beside = {"name": "mesh", "restartPolicy": "Always", "state": waiting("ImagePullBackOff")}
    record = pod_record(a_pod(running(), phase="Running", status={"initContainerStatuses": [beside]}))
    assert (record.running, record.stuck, record.on_its_way) == (True, None, None)


# -- ended well -------------------------------------------------------------------------------------------------------


def test_a_job_that_drained_the_queue() -> None:
    job = seen(complete(), a_pod(terminated(0, json.dumps(DRAINED)), phase="Succeeded"))
    assert (job.state, job.ending, job.message) == (JobState.SUCCEEDED, Ending.DONE, "")
    assert (job.started_at, job.finished_at) == (at(-40), at(-10))
    assert job.summary == Summary("exhausted", 0, 30.5, DID, 51, 12, 2)
    assert job.summary.ended == 50
    job = seen(complete())  # its pod is gone: it is done all the same
    assert (job.state, job.ending, job.summary, job.started_at) == (JobState.SUCCEEDED, Ending.DONE, None, None)


def test_reads_the_summary_that_the_job_writes() -> None:
    run = RunSummary(claimed=5, completed=3, retried=2, requests=4, request_errors=1)
    told = read_summary("a line before\n" + run.line("stopped", 0) + "\n")
    assert told is not None
    assert (told.reason, told.exit_code, told.claimed, told.ended, told.outcomes["retried"]) == ("stopped", 0, 5, 3, 2)
    assert (told.requests, told.request_errors) == (4, 1)


# -- ended badly ------------------------------------------------------------------------------------------------------


def dead(code: int, message: str = "", reason: str = "") -> dict[str, Any]:
    return a_pod(terminated(code, message, reason), phase="Failed")


SAID = "Job has reached the specified backoff limit"
SETTINGS = "WORKER_LEASE_SECS: is too small; value: '1'; allowed: 2 to 3600"


@pytest.mark.parametrize(
    ("pods", "ending", "message"),
    [
        ([dead(75, words("siorg_unavailable", 75))], Ending.SIORG_UNAVAILABLE, "exit code 75, siorg_unavailable"),
        ([dead(75, words("siorg_rate_limited", 75))], Ending.SIORG_RATE_LIMITED, "exit code 75, siorg_rate_limited"),
        ([dead(75, words("database_unavailable", 75))], Ending.DATABASE_UNAVAILABLE, "exit code 75, database_unavailable"),
        ([dead(75, words("something else", 75))], Ending.FAILED, "exit code 75, something else"),
        ([dead(75, "no json")], Ending.FAILED, "exit code 75: no json"),
        ([dead(2, f"…\n{SETTINGS}\n")], Ending.WRONG_SETTINGS, f"exit code 2: {SETTINGS}"),
        ([dead(1, "Traceback:\n  …\nValueError: no\n")], Ending.FAILED, "exit code 1: ValueError: no"),
        ([dead(1, words("error", 1))], Ending.FAILED, "exit code 1, error"),
        ([dead(1, "OOMKilled")], Ending.FAILED, "exit code 1: OOMKilled"),  # its own words prove nothing
        ([dead(137, reason="OOMKilled")], Ending.OUT_OF_MEMORY, "exit code 137, OOMKilled"),
        ([], Ending.LOST, "its pod was deleted before it told how it ended"),
        ([a_pod(None, phase="Failed")], Ending.FAILED, SAID),
    ],
)
def test_how_a_job_failed(pods: list[dict[str, Any]], ending: Ending, message: str) -> None:
    job = seen(failed(), *pods)
    assert (job.state, job.ending, job.message) == (JobState.FAILED, ending, message)


def test_the_deadline_is_an_end_of_its_own_and_what_a_failed_job_did_is_known_too() -> None:
    past = failed("DeadlineExceeded", "Job was active longer than specified deadline")
    assert (seen(past).ending, seen(past).message) == (Ending.DEADLINE, "Job was active longer than specified deadline")
    worked = seen(past, a_pod(terminated(0, words("stopped", 0, completed=9, request_errors=3)), phase="Succeeded"))
    assert worked.ending is Ending.DEADLINE
    assert worked.summary == Summary("stopped", 0, 31.0, {"completed": 9}, request_errors=3)


def test_a_job_that_the_operator_ends_stays_unfinished_until_it_is_and_was_stuck() -> None:
    for job in (annotated := a_job(), ended := failed("DeadlineExceeded")):
        job["metadata"]["annotations"]["siorg.waterswamp.dev/stuck"] = "ImagePullBackOff: no such image"
    for pods in ([a_pod(waiting("ImagePullBackOff"))], []):  # its pod goes first
        being_ended = seen(annotated, *pods)
        assert (being_ended.state, being_ended.stuck) == (JobState.PENDING, Stuck("ImagePullBackOff", "no such image", at(-60)))
    over = seen(ended)
    assert (over.state, over.ending, over.message) == (JobState.FAILED, Ending.STUCK, "ImagePullBackOff: no such image")


@pytest.mark.parametrize(
    ("job", "pods", "expected"),
    [
        (a_job(), [a_pod(running(), phase="Running")], (JobState.ACTIVE, None, True)),
        (a_job(), [a_pod(waiting("ImagePullBackOff"))], (JobState.PENDING, None, True)),
        # Kubernetes before 1.31 calls it Failed while its pod still has its grace.
        (failed("DeadlineExceeded"), [a_pod(running(), phase="Running")], (JobState.ACTIVE, None, True)),
        (failed("DeadlineExceeded"), [a_pod(terminated(0, words("stopped", 0)))], (JobState.SUCCEEDED, Ending.DONE, True)),
        (failed("DeadlineExceeded"), [], (JobState.SUCCEEDED, Ending.DONE, True)),  # it never began, or its pod is gone
        (failed("DeadlineExceeded"), [a_pod(terminated(0, words("exhausted", 0)))], (JobState.SUCCEEDED, Ending.DONE, True)),
        (complete(), [], (JobState.SUCCEEDED, Ending.DONE, True)),
        (failed("DeadlineExceeded"), [a_pod(terminated(1, "boom"))], (JobState.FAILED, Ending.FAILED, True)),
        (failed(), [a_pod(terminated(1, "boom"))], (JobState.FAILED, Ending.FAILED, False)),  # that was before it was told
    ],
)
def test_a_job_that_was_told_to_stop(
    job: dict[str, Any], pods: list[dict[str, Any]], expected: tuple[JobState, Ending | None, bool]
) -> None:
    job["metadata"]["annotations"]["siorg.waterswamp.dev/stopped"] = "spec.suspend is true"
    found = seen(job, *pods)
    assert (found.state, found.ending, found.stopped) == expected
    assert found.stuck is None
    assert bool(found.message) == (found.state is JobState.FAILED)


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


def test_of_a_secret_that_a_message_holds_nothing_stays_wherever_it_is_cut() -> None:
    token = "tok_abcdefghijklmnopqrstuvwxyz0123456789"
    for room in range(4, 40, 5):
        redactor = Redactor()
        before = "Error: " + "x" * (278 - room) + " "
        ended = pod_record(dead(1, f"{before}{token} was refused"))
        not_known_yet = combine(record_of(failed()), [ended], NOW).message
        redactor.remember(token)
        known = combine(record_of(failed()), [ended], NOW, redactor.text).message
        stuck = pod_record(a_pod(waiting("CreateContainerConfigError", f"{before}{token} is no key")))
        job = combine(record_of(a_job()), [stuck], NOW, redactor.text)
        assert job.stuck is not None
        for message in (redactor.text(not_known_yet), known, job.stuck.message):
            assert token[:4] not in message, room
            assert len(message) <= 300
    # What stands where secrets stand is taken out before it is cut.
    log = "x" * 250 + " postgresql://siorg:hunter2hunter2hunter2@db.example/siorg"
    assert "hunter2" not in seen(failed(), a_pod(terminated(1, log), phase="Failed")).message


# -- what comes late --------------------------------------------------------------------------------------------------


def test_a_job_ended_before_its_pods_end_is_known_is_unfinished_a_moment_longer() -> None:
    for ago, state in ((4, JobState.PENDING), (5, JobState.FAILED)):
        assert seen(a_job(conditions=[condition("Failed", "BackoffLimitExceeded", when=-ago)])).state is state, ago
    job = seen(complete(when=-2), a_pod(running(), phase="Running"))
    assert (job.state, job.finished_at, job.ending) == (JobState.ACTIVE, None, None)
    assert seen(complete(when=-1), a_pod(terminated(0, json.dumps(DRAINED)))).state is JobState.SUCCEEDED
    # The Job controller removes the pod of one that met its deadline.
    assert seen(a_job(conditions=[condition("Failed", "DeadlineExceeded", when=-1)])).state is JobState.FAILED
    assert seen(complete(when=3600)).state is JobState.SUCCEEDED  # a clock that is ahead keeps no job alive


# -- stuck ------------------------------------------------------------------------------------------------------------


def with_init(pod: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    done = {"name": "first", "state": terminated(0)}
    pod["status"]["initContainerStatuses"] = [done, {"name": "vault-agent", "state": state}]
    return pod


def gated() -> dict[str, Any]:
    pod = a_pod(scheduled=False)
    pod["status"]["conditions"][0]["reason"] = "SchedulingGated"
    return pod


def test_a_pod_that_no_node_takes_and_a_container_or_an_init_container_that_cannot_start() -> None:
    stuck = seen(a_job(), a_pod(scheduled=False)).stuck
    assert stuck == Stuck("Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.", at(-55))
    for reason in CANNOT_START:
        stuck = seen(a_job(), a_pod(waiting(reason, 'Back-off pulling image "x"\n'))).stuck
        assert stuck == Stuck(reason, 'Back-off pulling image "x"', at(-55))
        stuck = seen(a_job(), with_init(a_pod(waiting("PodInitializing")), waiting(reason, "no such image"))).stuck
        assert stuck == Stuck(reason, "init container vault-agent: no such image", at(-55))


@pytest.mark.parametrize(
    ("job", "pods"),
    [
        (a_job(), [gated()]),
        (a_job(), [a_pod(waiting("ImagePullBackOff"), deletionTimestamp=rfc3339(at(-1))), a_pod(name="successor")]),
        (a_job(), [a_pod(waiting("ImagePullBackOff")), a_pod(running(), name="second")]),
        (failed("DeadlineExceeded"), [a_pod(waiting("ImagePullBackOff"))]),
        (a_job(), [with_init(a_pod(waiting("PodInitializing")), running())]),
    ],
    ids=["gated", "on its way out", "another runs", "finished", "init container runs"],
)
def test_what_is_not_stuck(job: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    assert stuck_because(job, *pods) is None


def test_a_container_that_is_not_made_for_a_quarter_of_an_hour_never_will_be() -> None:
    # A volume that is missing, an init container that does not end: Kubernetes says so in events alone.
    for word in ("ContainerCreating", "PodInitializing"):
        pod = a_pod(waiting(word))
        assert (stuck_because(a_job(), pod, now=at(844)), stuck_because(a_job(), pod, now=at(845))) == (None, word)


def test_a_job_for_which_no_pod_is_made_within_a_minute_is_told_and_has_a_quarter_of_an_hour() -> None:
    # A quota: its Job controller knows of no pod either. One that it knows of and we do not see is left alone.
    assert stuck_because(a_job(active=0), now=at(-1)) is None
    assert stuck_because(a_job(active=1), now=at(90_000)) is None
    job = seen(a_job(active=0), now=at(0))
    assert job.stuck is not None
    # It starts by itself when the quota is mended.
    assert (job.stuck.reason, job.stuck.since) == ("NoPod", later(job.created_at, 900))


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
        assert min([*told.outcomes.values(), told.claimed, told.requests]) >= 0
        assert told.reason.isprintable()
        told.reason.encode()


def test_a_summary_needs_a_reason_and_an_exit_code() -> None:
    for text in ("", "{}", "[]", '"x"', '{"reason": "x"}', '{"reason": 5, "exit_code": 0}', '{"reason": "x", "exit_code": true}'):
        assert read_summary(text) is None
    assert read_summary('{"reason": "x", "exit_code": 0, "completed": -5, "failed": "9", "requests": null}') == Summary(
        "x", 0, 0.0, {"completed": 0}
    )


_MOMENTS = st.none() | st.sampled_from([rfc3339(at(-9)), rfc3339(at(3600)), "2026-11-24T11:59:20.123456Z"])


def maybe(always: dict[str, Any] | None = None, **optional: Any) -> Any:
    """Objects of Kubernetes with some of these fields."""
    return st.fixed_dictionaries(always or {}, optional=optional)


_KINDS = {
    "type": st.sampled_from(
        [
            "Failed",
            "Complete",
            "PodScheduled",
            "Suspended",
            "FailureTarget",
            "SuccessCriteriaMet",
            "Ready",
            "DisruptionTarget",
        ]
    ),
    "status": st.sampled_from(["True", "False", "Unknown"]),
}
_CONDITIONS = st.none() | st.lists(maybe(_KINDS, reason=_TEXT, message=_TEXT, lastTransitionTime=_MOMENTS), max_size=3)
_STATES = maybe(
    waiting=maybe(reason=_TEXT | st.sampled_from(sorted(CANNOT_START)), message=_TEXT),
    running=maybe(startedAt=_MOMENTS),
    terminated=maybe({"exitCode": st.integers(-1, 255)}, reason=_TEXT, message=_TEXT, startedAt=_MOMENTS, finishedAt=_MOMENTS),
)
_CONTAINERS = st.lists(maybe({"name": st.sampled_from(["worker", "sidecar"])}, state=_STATES), max_size=2)
_POD_STATUSES = maybe(
    phase=_TEXT | st.sampled_from(["Running", "Failed", "Succeeded"]),
    reason=_TEXT,
    conditions=_CONDITIONS,
    containerStatuses=st.none() | _CONTAINERS,
)


@settings(max_examples=500)
@given(
    st.none() | maybe(conditions=_CONDITIONS, completionTime=_MOMENTS, active=st.integers()),
    st.lists(st.tuples(st.none() | _POD_STATUSES, _MOMENTS), max_size=3),
    st.booleans(),
)
def test_whatever_kubernetes_shows_is_a_job(status: Any, pods: list[tuple[Any, Any]], suspended: Any) -> None:
    bodies = [{**a_pod(name=f"pod-{n}", deletionTimestamp=deleted), "status": one} for n, (one, deleted) in enumerate(pods)]
    shown = {**a_job(), "status": status}
    shown["spec"]["suspend"] = suspended
    job = seen(shown, *bodies)
    assert (job.unfinished or job.state is JobState.LOST) == (job.finished_at is None) == (job.ending is None)
    assert (job.message == "") or job.state is JobState.FAILED
    assert len(job.message) <= 300
    job.message.encode()
    assert job.stuck is None or job.state in {JobState.PENDING, JobState.LOST} or job.last_words
    assert not job.last_words or (job.stuck is not None and job.finished_at is not None)
