"""Any resource, queue, Jobs and clock that the operator may ever see, and some that it may not: for hypothesis."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.job_failures import Pacing
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import (
    DEPARTURES,
    OUTCOMES,
    Ending,
    Job,
    JobState,
    QueueState,
    Reading,
    Stuck,
    Summary,
    Unreadable,
    Verification,
    Verifications,
)
from support.operator_values import CREDENTIALS, NOW, rfc3339, template_of, worker

_COUNTS = st.one_of(st.integers(0, 20), st.integers(0, 2000), st.integers(0, 2**63 - 1))
_NUMBERS = st.one_of(st.floats(), st.integers(-5, 10_000).map(float), st.sampled_from([0.0, 1e-320, 1e308, -1.0]))
_SECONDS = st.one_of(st.integers(-7200, 300), st.integers(-(10**9), 10**9))  # around now, or under a clock that is far off
_TIMES = st.one_of(
    _SECONDS.map(lambda seconds: NOW + timedelta(seconds=seconds)),
    st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)),
)
_AGES = st.floats(0, 1e12)
_TEMPLATES = st.sampled_from([template_of(), "another", ""])

_SUMMARIES = st.builds(
    Summary,
    reason=st.sampled_from(["exhausted", "siorg_unavailable", "¿?"]),
    exit_code=st.integers(-1, 255),
    duration_seconds=_NUMBERS,
    outcomes=st.dictionaries(st.sampled_from(OUTCOMES), _COUNTS),
    **dict.fromkeys(("claimed", "requests", "request_errors"), _COUNTS),
)
_STUCK_REASONS = ["ImagePullBackOff", "Unschedulable", "NoPod"]
_STUCK = st.builds(Stuck, st.sampled_from(_STUCK_REASONS), st.text(max_size=5), st.none() | _TIMES)
JOBS = st.lists(
    st.builds(
        Job,
        name=st.sampled_from([f"siorg-aaaaa-{n}" for n in range(40)]),
        slot=st.one_of(st.integers(0, 8), st.integers(0, 2**31)),
        round=st.one_of(st.integers(0, 3), st.integers(0, 2**40)),
        state=st.sampled_from(JobState),
        created_at=_TIMES,
        template=_TEMPLATES,
        started_at=st.none() | _TIMES,
        finished_at=st.none() | _TIMES,
        ending=st.none() | st.sampled_from(Ending),
        message=st.text(max_size=20),
        stuck=st.none() | _STUCK,
        summary=st.none() | _SUMMARIES,
        uid=st.sampled_from(["", "one", "another"]),
        stopped=st.sampled_from([False, False, True]),
    ),
    max_size=12,
)
_VERIFICATIONS = st.builds(
    Verification,
    finished_at=_TIMES,
    age_seconds=_AGES,
    **dict.fromkeys(("organizations", "rows", "drift", "enqueued"), _COUNTS),
    departures=st.dictionaries(st.sampled_from(DEPARTURES), _COUNTS),
)
READINGS = st.builds(
    Reading,
    **dict.fromkeys(("claimable", "due", "scheduled", "processing", "failed", "conflict", "held"), _COUNTS),
    held_oldest_seconds=st.none() | _NUMBERS,
    oldest_due_seconds=st.none() | _NUMBERS,
    next_due_seconds=st.none() | _NUMBERS,
    sync_enabled=st.sampled_from([True, True, True, False]),
    siorg_paused_seconds=st.one_of(st.just(0.0), st.just(0.0), _NUMBERS),
    max_connections=st.none() | st.integers(-1, 500),
    other_connections=st.integers(-1, 500),
    verifications=st.builds(
        Verifications,
        newest=st.none() | _VERIFICATIONS,
        incomplete_seconds=st.none() | _AGES,
        incomplete_reason=st.text(max_size=5),
        unreadable=st.sampled_from(["", "", "no right"]),
    ),
)
_UNREADABLE = [Unreadable(Reason.DATABASE_UNAVAILABLE, "away"), Unreadable(Reason.SECRET_MISSING, "")]
QUEUE_STATES = st.builds(
    QueueState,
    reading=st.integers(0, 4).flatmap(lambda kind: READINGS if kind < 3 else st.sampled_from(_UNREADABLE)),
    secrets_hash=st.sampled_from([CREDENTIALS, CREDENTIALS, "", None]),
    siorg_token_error=st.sampled_from([None, None, None, "the Secret is not there"]),
)


@st.composite
def resources(draw: st.DrawFn) -> SiorgSyncWorker:
    most = draw(st.integers(0, 20) | st.integers(0, 1000))
    backoff = {
        "reason": draw(st.sampled_from([*Ending, "Nonsense"])),
        "streak": draw(_COUNTS),
        "since": rfc3339(draw(_TIMES)),
        "lastFailureTime": rfc3339(draw(_TIMES)),
        "template": draw(_TEMPLATES),
    }
    believable = st.floats(0, 1e308, exclude_max=True) | st.sampled_from([0.0, 0.5, 20.0])
    status: dict[str, Any] = {"rate": draw(believable), "requestRate": draw(believable), "jobs": {}}
    if draw(st.booleans()):
        status["backoff"] = backoff
    if draw(st.booleans()):
        status["jobs"] = {"lastFinishedTime": rfc3339(draw(_TIMES))}
    scaling: dict[str, Any] = {
        "maxJobs": most,
        "minJobs": draw(st.integers(0, most)),
        "itemsPerJob": draw(st.integers(1, 100) | st.integers(1, 1_000_000)),
        "maxLaunchesPerStep": draw(st.integers(1, 1000)),
        "pollIntervalSeconds": draw(st.integers(1, 3600)),
    }
    if draw(st.booleans()):
        scaling["targetDrainSeconds"] = draw(st.integers(1, 604_800))
    return worker(
        status=status,
        suspend=draw(st.sampled_from([False, False, False, True])),
        whenSuspended=draw(st.sampled_from(["Drain", "Stop"])),
        mode=draw(st.sampled_from(["Active", "Active", "Observe"])),
        scaling=scaling,
        siorg={"maxRequestsPerSecond": draw(st.integers(0, 10_000))},
        job={"successfulJobsHistoryLimit": draw(st.integers(0, 3)), "failedJobsHistoryLimit": draw(st.integers(1, 3))},
    )


PACINGS = st.sampled_from([None, Pacing(), Pacing(stuck_grace=0, failing_base=0, siorg_base=0, healthy_after=0)])
NOWS = st.sampled_from([NOW, NOW, datetime(1000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])
