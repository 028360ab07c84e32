"""What the status says, when it changes, and which events tell of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kube_double.patches
from kube_double.structure import faults, prune
from siorg_operator.api.crd import crd
from siorg_operator.api.resource import SiorgSyncWorker, Status
from siorg_operator.decide.plan import plan
from siorg_operator.decide.planned import Result
from siorg_operator.decide.reasons import ConditionType, Reason
from siorg_operator.decide.state import Ending, Fault, Job, JobState, QueueState, Stuck, whole_second
from siorg_operator.decide.status import Event, actions, compose, invalid, merge_patch, transitions
from siorg_operator.decide.wording import AS_EXPECTED, NOT_DEGRADED, NOT_VERIFIED
from support.operator_strategies import JOBS, NOWS, QUEUE_STATES, resources
from support.operator_values import (
    NOW,
    active,
    at,
    carried_out,
    ended,
    job,
    pending,
    queue_of,
    rfc3339,
    stuck,
    summary,
    unreadable,
    with_status,
    worker,
)


def say(
    resource: SiorgSyncWorker, queue: QueueState, jobs: Sequence[Job] = (), now: datetime = NOW, refused: str = ""
) -> tuple[dict[str, Any], Result]:
    """The status after one look, of whose launches the cluster refused all but the first when it says so."""
    result = carried_out(plan(resource, queue, jobs, now))
    if refused:
        result = replace(result, launched=result.launched[:1], refused=refused)
    return compose(resource, queue, result, jobs, now), result


def status_of(queue: QueueState, jobs: Sequence[Job] = (), now: datetime = NOW, **spec: Any) -> dict[str, Any]:
    return say(worker(**spec), queue, jobs, now)[0]


def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    (one,) = [one for one in status["conditions"] if one["type"] == kind]
    return dict(one)


def told(status: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


class Story:
    """A resource whose status is written after each look."""

    def __init__(self, **spec: Any) -> None:
        self.resource = worker(**spec)
        self.status: dict[str, Any] = {}

    def look(
        self, queue: QueueState, jobs: Sequence[Job] = (), now: datetime = NOW, **edit: Any
    ) -> tuple[dict[str, Any], list[Event]]:
        """The patch and the events of one look; ``edit``: the spec was changed before it."""
        if edit:
            self.resource = worker(**edit)
        new, result = say(with_status(self.resource, self.status), queue, jobs, now)
        patch = merge_patch(self.status, new)
        happened = [*transitions(self.status, new), *actions(self.resource, self.status, result)]
        self.status = new
        return patch, happened


def reasons(happened: Sequence[Event]) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for event in happened]


# -- the whole --------------------------------------------------------------------------------------------------------


def test_a_first_look_at_an_empty_queue_to_the_letter() -> None:
    def one(kind: str, value: str, reason: str, message: str) -> dict[str, Any]:
        said = {"type": kind, "status": value, "reason": reason, "message": message}
        return said | {"lastTransitionTime": "2026-11-24T12:00:00Z", "observedGeneration": 4}

    assert status_of(queue_of(0), generation=4) == {
        "observedGeneration": 4,
        "conditions": [
            one("Ready", "True", "AsExpected", "The queue is read and Jobs are launched as it needs them"),
            one("InSync", "Unknown", "NotVerified", NOT_VERIFIED),
            one("QueueReachable", "True", "Connected", "The queue is read"),
            one("SiorgAvailable", "Unknown", "NotAskedYet", "No Job has ended yet that tells whether SIORG answers"),
            one("ScalingActive", "True", "Scaling", "Jobs are launched as the queue needs them"),
            one("Degraded", "False", "AsExpected", "Jobs start and end as they should"),
        ],
        "queue": {
            "claimable": 0,
            "due": 0,
            "scheduled": 0,
            "processing": 0,
            "failed": 0,
            "conflict": 0,
            "held": 0,
            "atLeast": False,
        },
        "jobs": {"desired": 0, "active": 0, "pending": 0, "succeeded": 0, "failed": 0, "lastRound": 0},
        "selector": "app.kubernetes.io/component=drain,siorg.waterswamp.dev/worker=siorg",
        "predictedDrainSeconds": 0,
        "lastDecision": {
            "time": "2026-11-24T12:00:00Z",
            "reason": "QueueEmpty",
            "message": "depth 0, 0 unfinished → nothing to do",
            "launched": 0,
        },
    }


def test_a_decision_at_work() -> None:
    queue = queue_of(480, scheduled=7, processing=3, failed=2, conflict=1, held=4, oldest_due_seconds=12.4)
    jobs = [*active(2), *pending(1, first_slot=2), ended(-100, slot=4, summary=summary(60, seconds=30))]
    status = status_of(queue, jobs)
    assert status["queue"] == {
        "claimable": 480, "due": 480, "scheduled": 7, "processing": 3, "failed": 2, "conflict": 1, "held": 4,
        "atLeast": False, "oldestDueSeconds": 12,
    }  # fmt: skip
    # The two that are launched are there by now.
    assert status["jobs"] == {
        "desired": 5, "active": 2, "pending": 3, "succeeded": 1, "failed": 0, "lastRound": 0,
            "lastFinishedTime": rfc3339(at(-100)),
    }  # fmt: skip
    assert status["lastDecision"] == {
        "time": rfc3339(NOW), "reason": "Launched", "launched": 2,
        "message": "depth 480, 50 a Job → 10 wanted, maxJobs 5 → 5, 3 unfinished → launched 2",
    }  # fmt: skip
    assert (status["rate"], status["requestRate"], status["predictedDrainSeconds"]) == (2.0, 2.0, 48)
    assert "backoff" not in status


# -- conditions -------------------------------------------------------------------------------------------------------


WELL = (
    "Ready True AsExpected, InSync Unknown NotVerified, QueueReachable True Connected, SiorgAvailable Unknown NotAskedYet,"
    " ScalingActive True Scaling"
)
NO_TOKEN = "the Secret sync/token of spec.siorg.tokenSecretRef is not there: create it"
SIORG_AWAY = ended(-5, Ending.SIORG_UNAVAILABLE, message="exit code 75, siorg_unavailable")
AWAY = "SIORG does not answer (1 failure in a row, the last at 2026-11-24T11:59:55Z: siorg-p7t5r-0-1"
ADVICE = "No attempt is counted meanwhile; check SIORG and spec.siorg.url if it lasts"
ONCE = "(1 failure in a row, the last at 2026-11-24T10:53:20Z: siorg-p7t5r-0-1)"
SILENT = "the database at db:5432 does not answer: check that it runs"
LONG_AWAY = ended(-4000, Ending.SIORG_UNAVAILABLE)
BOTH = [ended(-5, Ending.FAILED), ended(-4, Ending.SIORG_UNAVAILABLE, slot=1)]
NO_ROOM: dict[str, Any] = {"max_connections": 20, "other_connections": 19}

CHOSEN: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"suspend": True}, {}, "Suspended: spec.suspend is true: what runs drains, nothing is launched"),
    ({"scaling": {"maxJobs": 0}}, {}, "Suspended: spec.scaling.maxJobs is 0: nothing is launched"),
    ({"mode": "Observe"}, {}, "Observe: spec.mode is Observe: decisions are told, nothing is launched"),
    ({}, {"sync_enabled": False}, "SyncDisabled: The database's setting siorg.sync_enabled is false"),
]
CONDITIONS: list[tuple[QueueState, list[Job], dict[str, Any], list[str]]] = [
    # What is told other than of a first look at an empty queue; with a message where it matters.
    (unreadable("AccessDenied"), [], {}, [
        "Ready False AccessDenied: The database at db:5432 does not answer: check that it runs",
        "QueueReachable False AccessDenied: The database at db:5432 does not answer: check that it runs",
        "ScalingActive False DepthUnknown: The queue cannot be read: the database at db:5432 does not answer: check that it runs",
    ]),
    (queue_of(9), [SIORG_AWAY], {}, [
        f"Ready False SiorgUnavailable: {AWAY}: {SIORG_AWAY.message}); one probe Job may leave at 2026-11-24T12:00:02Z. {ADVICE}",
        "SiorgAvailable False SiorgUnavailable",
        "ScalingActive False SiorgUnavailable: Nothing but single probe Jobs is launched: SIORG does not answer (1",
    ]),
    (queue_of(0), [LONG_AWAY], {}, [  # that nobody asked about since is no alarm
        "SiorgAvailable Unknown SiorgUnavailable: SIORG does not answer (1 failure in a row, the last at 2026-11-24T10:53:20Z",
    ]),
    (queue_of(9, siorg_paused_seconds=30.0), [], {}, [
        "Ready False SiorgRateLimited",
        "SiorgAvailable False SiorgRateLimited: SIORG asked for no requests for a while",
        "ScalingActive False SiorgRateLimited: SIORG asked for no requests until 2026-11-24T12:00:30Z",
    ]),
    (queue_of(9), [ended(-5, Ending.SIORG_RATE_LIMITED)], {"mode": "Observe"}, [
        "Ready False SiorgRateLimited",
        "SiorgAvailable False SiorgRateLimited: SIORG wants fewer requests (1 failure in a row",
        "ScalingActive False SiorgRateLimited: SIORG wants fewer requests (1 failure in a row",
    ]),
    (queue_of(9), [stuck(since=-1)], {}, [
        "Ready False PodsStuck",
        "Degraded True PodsStuck: The pod of Job siorg-p7t5r-0-1 cannot start: ImagePullBackOff: ImagePullBackOff of registry",
    ]),
    # Neither lost nor waiting for their admission is a fault: others work in their place, or they will.
    (queue_of(9), [job(0, state=JobState.LOST, stuck=Stuck("NodeLost", "its node", None)), *active(1, first_slot=1)], {}, []),
    (queue_of(9), [job(0, state=JobState.SUSPENDED)], {}, [
        f"{kind} True PendingAdmission: 1 of 1 unfinished Job waits for admission: suspended, by Kueue (kubectl"
        for kind in ("Ready", "ScalingActive")
    ]),
    *((queue_of(depth, token_error=NO_TOKEN), [], {}, [
        f"Ready False SecretMissing: T{NO_TOKEN[1:]}", "ScalingActive False SecretMissing", "Degraded True SecretMissing",
    ]) for depth in (0, 9)),
    # An autoscaler needs minutes for a node. Once the grace is over it is a fault, also where the Job cannot be ended.
    (queue_of(9), [stuck(reason="Unschedulable", since=-299)], {}, [
        f"{kind} AsExpected: {text} (Info: the pod of 1 Job waits for a node, as an autoscaler may make one: siorg-p7t5r-0-1: Un"
        for kind, text in (("Ready True", AS_EXPECTED), ("Degraded False", NOT_DEGRADED))
    ]),
    (queue_of(9), [stuck(reason="Unschedulable", since=-301)], {}, ["Ready False PodsStuck", "Degraded True PodsStuck"]),
    # What failures end with is said as it is now: before a probe may leave, once it may, and while it works.
    *((queue_of(depth), [LONG_AWAY, *at_work], spec, [
        *([f"Ready False SiorgUnavailable: SIORG does not answer {ONCE}; {now}"] if known == "False" else []),
        f"SiorgAvailable {known} SiorgUnavailable: SIORG does not answer {ONCE}; {now}",
        *scaling,
    ]) for depth, at_work, spec, known, now, scaling in (
        (0, [], {}, "Unknown", "nothing waits now, and the next work", []),
        (9, [], {"suspend": True}, "False", "the next Job that is launched is", ["ScalingActive False Suspended"]),
        (9, [], {}, "False", "1 unfinished Job will show", ["ScalingActive False SiorgUnavailable: Nothing but single"]),
        (9, pending(1), {}, "False", "1 unfinished Job will show", ["ScalingActive False SiorgUnavailable: Nothing but single"]),
    )),
    (queue_of(9, **NO_ROOM), [], {}, [
        "Ready False ConnectionBudget: The database server has no room for another Job: (20 connections of the server − 19",
        "ScalingActive False ConnectionBudget",
    ]),
    # The first thing to look at sums up.
    (unreadable(), BOTH, {}, [
        "Ready False DatabaseUnavailable", "QueueReachable False DatabaseUnavailable", "SiorgAvailable False SiorgUnavailable",
        "ScalingActive False DepthUnknown",
    ]),
    (queue_of(9), BOTH, {"suspend": True}, [
        "Ready False SiorgUnavailable", "SiorgAvailable False SiorgUnavailable", "ScalingActive False Suspended",
    ]),
    # What a person chose is no fault.
    *((queue_of(depth, **reading), [], spec, [f"Ready True {said}", f"ScalingActive False {said}"])
      for depth in (0, 500) for spec, reading, said in CHOSEN),
]  # fmt: skip


@pytest.mark.parametrize(("queue", "jobs", "spec", "expected"), CONDITIONS)
def test_conditions(queue: QueueState, jobs: list[Job], spec: dict[str, Any], expected: list[str]) -> None:
    conditions = status_of(queue, jobs, **spec)["conditions"]
    lines = [f"{one['type']} {one['status']} {one['reason']}: {one['message']}" for one in conditions]
    assert [line.split(" ")[0] for line in lines] == list(ConditionType)
    well = [*WELL.split(", "), "Degraded False AsExpected"]
    other = [line for line in lines if line.split(":")[0] not in well or "Info" in line]
    assert [line[: len(start)] for line, start in zip_longest(other, expected, fillvalue="")] == expected


@pytest.mark.parametrize(
    ("ending", "reason", "advice"),
    [
        (Ending.FAILED, "JobsFailing", "See the log of that Job (kubectl logs"),
        (Ending.WRONG_SETTINGS, "JobsFailing", "Correct what the message names"),
        (Ending.DATABASE_UNAVAILABLE, "JobsFailing", "network policies"),
        (Ending.DEADLINE, "JobsFailing", "activeDeadlineSeconds"),
        (Ending.OUT_OF_MEMORY, "JobsFailing", "Z. Raise spec.job.resources.limits.memory"),  # no word of a log
        (Ending.STUCK, "PodsStuck", "pull secrets"),
        (Ending.LOST, "JobsFailing", "See who or what deletes them"),  # nor of one that is gone
    ],
)
def test_jobs_that_fail_say_what_to_do(ending: Ending, reason: str, advice: str) -> None:
    status = status_of(queue_of(9), [ended(-5, ending, message="what happened", lived=5)])
    assert told(status)["Degraded"] == ("True", reason)
    assert told(status)["Ready"] == told(status)["ScalingActive"] == ("False", reason)
    message = condition(status, "Degraded")["message"]
    assert ("what happened" in message, advice in message) == (True, True)


def test_launches_that_the_cluster_refuses_are_a_fault_and_those_that_it_took_are_there() -> None:
    status, result = say(worker(), queue_of(500), refused="exceeded quota: pods")
    assert told(status)["Ready"] == told(status)["ScalingActive"] == ("False", "LaunchFailed")
    assert condition(status, "Ready")["message"] == "Exceeded quota: pods"
    assert status["jobs"]["pending"] == status["lastDecision"]["launched"] == 1
    assert status["lastDecision"]["reason"] == "LaunchFailed"
    assert status["lastDecision"]["message"].endswith("0 unfinished → launched 1; exceeded quota: pods")
    assert result.held_back
    assert reasons(transitions({}, status)) == [("Warning", "LaunchFailed")]


def test_faults_beside_the_drain_are_told_all_of_a_kind_and_the_first_kind_first() -> None:
    done = carried_out(plan(worker(), queue_of(0), [], NOW))
    said = (
        ("CronJob a: no", Reason.CRON_JOB_REFUSED),
        ("no", Reason.REMOVAL_REFUSED),
        ("CronJob b: no", Reason.CRON_JOB_REFUSED),
    )
    status = compose(worker(), queue_of(0), done, [], NOW, [Fault(reason, message) for message, reason in said])
    assert (told(status)["Degraded"], told(status)["Ready"]) == (("True", "CronJobRefused"), ("False", "CronJobRefused"))
    assert condition(status, "Degraded")["message"] == "CronJob a: no. CronJob b: no"
    beside = [Fault(Reason.CRON_JOB_REFUSED, f"CronJob {name}: {'no ' * 400}") for name in "abcdefg"]
    message = condition(compose(worker(), queue_of(0), done, [], NOW, beside), "Degraded")["message"]
    assert [f"CronJob {name}: no" in message for name in "abcdefg"] == [True] * 5 + [False] * 2
    assert message.endswith(". And 2 more")


def test_siorg_is_available_once_a_job_has_had_answers_also_when_that_is_gone() -> None:
    story = Story()
    for jobs in ([ended(summary=summary(5))], []):
        story.look(queue_of(0), jobs)
        assert told(story.status)["SiorgAvailable"] == ("True", "Answering")


# -- transitions ------------------------------------------------------------------------------------------------------


def test_the_time_of_a_transition_moves_with_the_status_alone() -> None:
    story, looks = (
        Story(),
        [(queue_of(0), 0, 0), (unreadable(), 100, 100), (unreadable("AccessDenied"), 200, 100), (queue_of(0), 300, 300)],
    )
    for queue, now, since in looks:
        story.look(queue, now=at(now))
        assert condition(story.status, "QueueReachable")["lastTransitionTime"] == rfc3339(at(since)), now
    assert condition(story.status, "Degraded")["lastTransitionTime"] == rfc3339(at(0))


def test_observed_generation_follows_the_spec() -> None:
    story = Story(generation=1)
    story.look(queue_of(0))
    patch, _ = story.look(queue_of(0), generation=2, scaling={"maxJobs": 9})
    assert patch["observedGeneration"] == 2
    assert {one["observedGeneration"] for one in story.status["conditions"]} == {2}


# -- nothing is written for nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue", "jobs", "again"),
    [
        (queue_of(0, failed=3), [ended(-100, summary=summary(60))], [30.0 * n for n in range(1, 200)]),
        (unreadable(), [], [3]),
        (queue_of(9), [ended(-5, Ending.FAILED)], [3]),
        (queue_of(9), [stuck(since=-1)], [3]),
        (queue_of(100), active(2), [3]),
    ],
    ids=["at rest", "unreadable", "failing", "stuck", "busy"],
)
def test_what_stays_as_it_is_is_written_once(queue: QueueState, jobs: list[Job], again: list[float]) -> None:
    story = Story(scaling={"maxJobs": 2})
    story.look(queue, jobs)
    assert all(story.look(queue, jobs, at(when)) == ({}, []) for when in again)


def test_a_decision_is_that_of_now_with_its_time() -> None:
    story = Story(scaling={"maxJobs": 6})
    looks: list[tuple[QueueState, int, float, dict[str, Any], str]] = [
        (queue_of(300), 0, 0, {}, "depth 300, 50 a Job → 6 wanted, 0 unfinished → launched 6"),
        (queue_of(300), 6, 5, {}, "depth 300, 50 a Job → 6 wanted, 6 unfinished → launched 0"),
        (queue_of(300), 6, 5, {}, "depth 300, 50 a Job → 6 wanted, 6 unfinished → launched 0"),
        (queue_of(300), 6, 9, {"scaling": {"maxJobs": 1}},
            "depth 300, 50 a Job → 6 wanted, maxJobs 1 → 1, 6 unfinished → launched 0"),
        (unreadable(), 6, 10, {}, f"depth unknown, 6 unfinished; held back: the queue cannot be read: {SILENT}"),
    ]  # fmt: skip
    for queue, jobs, made, edit, message in looks:
        story.look(queue, pending(jobs, created_at=NOW), at(made), **edit)
        decision = story.status["lastDecision"]
        assert (decision["time"], decision["message"]) == (rfc3339(at(made)), message)
    story.look(unreadable(), pending(6, created_at=NOW), at(60))
    assert story.status["lastDecision"]["time"] == rfc3339(at(10))


@pytest.mark.parametrize(
    ("before", "after", "written"),
    [(100.0, 110.0, None), (100.0, 130.0, None), (100.0, 140.0, 140), (0.0, 0.4, 1), (3.2, 3.9, None), (0.2, 12.7, 13)],
)
def test_an_age_is_told_again_when_it_has_changed_by_a_quarter(before: float, after: float, written: int | None) -> None:
    story = Story(suspend=True)
    story.look(queue_of(9, oldest_due_seconds=before))
    patch, _ = story.look(queue_of(9, oldest_due_seconds=after), now=at(5))
    assert patch == ({} if written is None else {"queue": {"oldestDueSeconds": written}})


def test_a_rate_and_a_prediction_are_told_again_when_they_have_changed_by_a_quarter() -> None:
    story = Story(scaling={"maxJobs": 1})
    for completed, rate, drain in ((200, 2.0, 500), (210, None, None), (400, 4.0, 250)):
        patch, _ = story.look(queue_of(1000), [*active(1), ended(-50, slot=1, summary=summary(completed, seconds=100))])
        assert (patch.get("rate"), patch.get("predictedDrainSeconds")) == (rate, drain)
        assert (patch == {}) == (rate is None)


def test_what_is_not_known_now_is_not_told_and_the_newest_end_is_remembered() -> None:
    story = Story(suspend=True)
    story.look(queue_of(480, oldest_due_seconds=100.0), [ended(-10), ended(-20, slot=1, summary=summary(5))])
    assert story.look(unreadable())[0]["queue"] is None
    assert {"queue", "predictedDrainSeconds"}.isdisjoint(story.status)
    assert story.status["jobs"]["lastFinishedTime"] == rfc3339(at(-10))
    ahead = with_status(worker(), {"jobs": {"lastFinishedTime": rfc3339(at(400 * 86_400))}})
    told = compose(ahead, queue_of(0), carried_out(plan(ahead, queue_of(0), [], NOW)), [], NOW)
    assert told["jobs"]["lastFinishedTime"] == rfc3339(NOW)  # no longer the last for ever
    story.look(queue_of(480, oldest_due_seconds=100.0))
    assert story.look(queue_of(0))[0]["queue"]["oldestDueSeconds"] is None


def test_rounds_are_used_up_when_their_jobs_go_or_all_is_done() -> None:
    story = Story(scaling={"maxJobs": 1})
    finished = [ended(-100 + n, slot=n, round_=n + 1) for n in range(5)]
    story.look(queue_of(9), [*finished, *active(1, first_slot=9, round_=50)])
    assert story.status["jobs"]["lastRound"] == 2  # of the two that history lets go; a later one may still be on its way
    story.look(queue_of(0), finished)
    assert story.status["jobs"]["lastRound"] == 5
    story.look(queue_of(0))
    assert story.status["jobs"]["lastRound"] == 5


def test_a_backoff_is_remembered_to_the_letter_and_goes_when_it_is_over() -> None:
    story = Story()
    failed = ended(-5, Ending.SIORG_UNAVAILABLE, message="exit code 75, siorg_unavailable")
    _, result = say(story.resource, queue_of(9), [failed])
    assert result.plan.backoff is not None
    story.look(queue_of(9), [failed])
    assert story.status["backoff"] == {
        "reason": "SiorgUnavailable", "streak": 1, "since": rfc3339(at(-5)), "lastFailureTime": rfc3339(at(-5)),
        "retryTime": rfc3339(whole_second(result.plan.backoff.retry_at)),
        "message": f"{failed.name}: exit code 75, siorg_unavailable",
        "template": failed.template,
    }  # fmt: skip
    patch, _ = story.look(queue_of(0), [ended(-1, slot=1, summary=summary(3))])
    assert patch["backoff"] == {"retryTime": None, "recoveredTime": rfc3339(at(-1))}  # an absence may come back
    patch, _ = story.look(queue_of(0), now=at(299))
    assert patch["backoff"] is None


# -- events -----------------------------------------------------------------------------------------------------------


DOWN = ended(-5, Ending.SIORG_UNAVAILABLE, lived=5)
STILL_DOWN = ended(55, Ending.SIORG_UNAVAILABLE, round_=2, lived=5)
UP = ended(200, round_=3, lived=2, summary=summary(5))
STORIES: dict[str, list[tuple[QueueState, list[Job], float, list[str]]]] = {
    # What is seen, the Jobs, when, and what is told.
    "work comes and goes": [
        (queue_of(100), [], 0, ["Normal ScaledUp: Depth 100, 50 a Job → 2 wanted, 0 unfinished → launched 2"]),
        (queue_of(300), active(2), 0, []),  # more of the same
        (queue_of(0), active(2), 0, []),
        (queue_of(0), [ended(slot=0), ended(slot=1)], 0, ["Normal QueueDrained: The queue is empty and every Job has ended"]),
        (queue_of(0), [], 0, []),
    ],
    "the database": [
        (unreadable(), [], 0, ["Warning DatabaseUnavailable: The database at"]),
        (unreadable(), [], 0, []),
        (unreadable("AccessDenied"), [], 0, ["Warning AccessDenied: The database at"]),
        (queue_of(0), [], 0, ["Normal QueueReachable: The queue is read", "Normal ScalingResumed: Jobs are launched as"]),
    ],
    "SIORG": [
        (queue_of(9), [DOWN], 0, ["Warning SiorgUnavailable: SIORG does not answer"]),
        (queue_of(9), [DOWN], 1, []),
        (queue_of(9), [DOWN, STILL_DOWN], 56, []),
        (
            queue_of(0),
            [DOWN, STILL_DOWN, UP],
            201,
            ["Normal SiorgAvailable: SIORG answered", "Normal ScalingResumed: Jobs are"],
        ),
    ],
    "Jobs that fail": [
        (queue_of(9), [ended(-5, Ending.FAILED)], 0, ["Warning JobsFailing: Jobs fail"]),
        (
            queue_of(0),
            [ended(-1, slot=1)],
            0,
            ["Normal ScalingResumed: Jobs are launched as", "Normal Recovered: Jobs start and"],
        ),
    ],
    "a stuck pod": [
        (queue_of(9), [stuck(since=-1)], 0, ["Warning PodsStuck: The pod of Job siorg-p7t5r-0-1 cannot start"]),
        (
            queue_of(9),
            [stuck(since=-31)],
            0,
            ["Warning StuckJobEnded: siorg-p7t5r-0-1: ImagePullBackOff: ImagePullBackOff of"],
        ),
    ],
}


@pytest.mark.parametrize("story", STORIES)
def test_events_tell_of_changes_and_not_of_states(story: str) -> None:
    told = Story()
    assert told.look(queue_of(0))[1] == []
    for queue, jobs, when, expected in STORIES[story]:
        happened = [f"{event.type} {event.reason}: {event.message}" for event in told.look(queue, jobs, at(when))[1]]
        assert [line[: len(start)] for line, start in zip_longest(happened, expected, fillvalue="")] == expected


@pytest.mark.parametrize(
    ("queue", "edit", "event"),
    [
        (queue_of(9), {"suspend": True}, ("Normal", "Suspended")),
        (queue_of(9), {"mode": "Observe"}, ("Normal", "Observe")),
        (queue_of(9, sync_enabled=False), {}, ("Normal", "SyncDisabled")),
        (queue_of(9, max_connections=1), {}, ("Warning", "ConnectionBudget")),
    ],
)
def test_what_keeps_from_scaling_is_told(queue: QueueState, edit: dict[str, Any], event: tuple[str, str]) -> None:
    story = Story()
    story.look(queue_of(9), active(1))
    assert reasons(story.look(queue, active(1) if edit else [], **edit)[1]) == [event]
    assert reasons(story.look(queue, active(1) if edit else [])[1]) == []


def test_each_burst_under_observation_is_not_an_event() -> None:
    story = Story(mode="Observe")
    story.look(queue_of(0))
    assert [reasons(story.look(queue_of(depth))[1]) for depth in (9, 0, 500, 0)] == [[], [], [], []]


def test_a_condition_of_somebody_else_does_no_harm() -> None:
    theirs = {"type": "Theirs", "status": "False", "reason": "X", "lastTransitionTime": rfc3339(NOW)}
    new, _ = say(worker(status={"conditions": [theirs]}), queue_of(0))
    assert transitions({"conditions": [theirs]}, new) == []
    assert reasons(transitions({}, invalid({"conditions": [theirs]}, 1, "wrong", NOW))) == [("Warning", "InvalidSpec")]


# -- a spec that cannot be understood ---------------------------------------------------------------------------------


def test_an_invalid_spec_is_told_and_nothing_else_but_what_is_dated_or_has_to_be_remembered() -> None:
    story = Story()
    story.look(queue_of(480), [ended(-10, Ending.FAILED, summary=summary(9))])
    message = "spec.scaling.maxJobs: is too large; value: 5000; allowed: 0 to 1000"
    new = invalid(story.status, 9, message, at(50))
    assert told(new)["Ready"] == told(new)["ScalingActive"] == ("False", "InvalidSpec")
    assert condition(new, "Ready")["message"] == message
    assert condition(new, "Ready")["observedGeneration"] == new["observedGeneration"] == 9
    assert {told(new)[kind] for kind in ("InSync", "QueueReachable", "SiorgAvailable", "Degraded")} == {
        ("Unknown", "InvalidSpec")
    }
    assert {key for key in story.status if story.status[key] != new.get(key)} == {
        "observedGeneration", "conditions", "queue", "jobs", "predictedDrainSeconds", "lastDecision",
    }  # fmt: skip
    assert {"queue", "predictedDrainSeconds"}.isdisjoint(new)
    assert new["jobs"] == {key: story.status["jobs"][key] for key in ("lastRound", "lastFinishedTime")}
    assert (new["lastDecision"]["time"], new["lastDecision"]["reason"]) == (rfc3339(at(50)), "InvalidSpec")
    assert ("Warning", "InvalidSpec") in reasons(transitions(story.status, new))
    assert merge_patch(new, invalid(new, 9, message, at(99))) == {}
    assert transitions(new, invalid(new, 9, message, at(99))) == []
    new = invalid({}, 1, "spec.database: is missing", NOW)  # it may be the first that is seen
    assert told(new)["Ready"] == ("False", "InvalidSpec")
    assert refused(new) == []


# -- what the API server takes ----------------------------------------------------------------------------------------


_SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]


def refused(status: dict[str, Any]) -> list[Any]:
    """What the API server has against a status, or would prune."""
    sent = json.loads(json.dumps(status, allow_nan=False))
    return [*faults(_SCHEMA, sent), *prune(_SCHEMA, sent)[1]]


@settings(max_examples=300)
@given(resources(), QUEUE_STATES, JOBS, NOWS)
def test_every_status_is_one_that_the_crd_and_the_model_take(
    resource: SiorgSyncWorker, queue: QueueState, jobs: list[Job], now: datetime
) -> None:
    new, result = say(resource, queue, jobs, now)
    assert refused(new) == []
    again = Status.model_validate(new)
    assert again.body() == json.loads(json.dumps(new))  # nothing is lost on the way
    assert all(event.message for event in actions(resource, resource.status.body(), result))
    # Once it is written, the same look writes nothing more unless something was launched.
    written = resource.model_copy(update={"status": again})
    if not result.launched:
        second = carried_out(plan(written, queue, jobs, now))
        if all(getattr(second.plan, name) == getattr(result.plan, name) for name in ("backoff", "recovering", "reason", "size")):
            assert merge_patch(new, compose(written, queue, second, jobs, now)) == {}


# -- merge patches ----------------------------------------------------------------------------------------------------


_VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["a", "b"]), st.lists(st.integers(0, 2), max_size=2)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(st.sampled_from("abcd"), _VALUES, max_size=4)


@settings(max_examples=500)
@given(_OBJECTS, _OBJECTS)
def test_a_patch_makes_the_old_into_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert kube_double.patches.merge_patch(copy.deepcopy(old), merge_patch(old, new)) == new
    assert merge_patch(new, new) == {}
    assert bool(merge_patch(old, new)) == (old != new)
