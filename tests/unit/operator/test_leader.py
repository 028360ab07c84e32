"""What a replica does about the Lease, decided from what it read and its own clock. Threads: ``tests/cluster/test_leader.py``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from siorg_operator.cluster.connection import REQUEST_SECONDS
from siorg_operator.cluster.lease import Observed, answer_seconds, held, leads_until, observe, released, remaining

DURATION = 15.0
AT = datetime(2026, 11, 24, 12, 0, 0, 1500, tzinfo=UTC)
TIME = "2026-11-24T12:00:00.001500Z"


def lease(holder: str | None = "other", seconds: int | None = 15, **fields: Any) -> dict[str, Any]:
    return {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": TIME, **fields}


TABLE: list[tuple[Observed | None, float, float]] = [
    # what was seen, now, seconds to wait; 0: take or renew
    (None, 100.0, 0.0),
    (Observed({}, 100.0), 100.0, 0.0),
    (Observed(lease(""), 100.0), 100.0, 0.0),
    (Observed(lease(None), 100.0), 100.0, 0.0),
    (Observed(lease("me"), 100.0), 101.0, 0.0),
    (Observed(lease(), 100.0), 100.0, 15.0),
    (Observed(lease(), 100.0), 114.5, 0.5),
    (Observed(lease(), 100.0), 115.0, 0.0),
    (Observed(lease(), 100.0), 9e9, 0.0),
    # a holder that promised itself longer, or shorter, than we would
    (Observed(lease(seconds=60), 100.0), 159.0, 1.0),
    (Observed(lease(seconds=60), 100.0), 160.0, 0.0),
    (Observed(lease(seconds=1), 100.0), 114.0, 1.0),
    (Observed(lease(seconds=None), 100.0), 115.0, 0.0),
    # what the other machine's clock says is not looked at
    (Observed(lease(renewTime="1970-01-01T00:00:00.000000Z"), 100.0), 101.0, 14.0),
    (Observed(lease(renewTime="2999-01-01T00:00:00.000000Z"), 100.0), 115.0, 0.0),
]


def test_for_how_long_anothers_lease_is_respected() -> None:
    assert [remaining(observed, "me", DURATION, now) for observed, now, _ in TABLE] == [seconds for *_, seconds in TABLE]


def test_a_lease_runs_from_when_it_was_seen_to_change() -> None:
    observed = observe(None, lease(), 100.0)
    assert observe(observed, lease(), 110.0) is observed
    renewed = observe(observed, lease(renewTime="any other"), 110.0)
    assert (observed.since, renewed.since) == (100.0, 110.0)
    assert remaining(renewed, "me", DURATION, 115.0) == 10.0


@given(st.lists(st.floats(0.1, 30.0), min_size=1, max_size=20), st.lists(st.booleans(), min_size=20, max_size=20))
def test_nobody_takes_a_lease_that_was_seen_to_be_renewed_within_its_duration(steps: list[float], renewals: list[bool]) -> None:
    now, changed, renewed = 0.0, 0.0, 0
    observed = observe(None, lease(renewTime="0"), now)
    for step, renews in zip(steps, renewals, strict=False):
        now += step
        if renews:
            renewed, changed = renewed + 1, now
        observed = observe(observed, lease(renewTime=str(renewed)), now)
        assert (remaining(observed, "me", DURATION, now) == 0) == (changed + DURATION - now <= 0)


def test_until_when_a_leader_may_act() -> None:
    table = [
        # asked, answered, until when; of a lease of 15 s with a renew deadline of 10 s
        (100.0, 100.0, 110.0),
        (100.0, 103.0, 113.0),
        (100.0, 105.0, 114.0),  # another one may lead from 115 on
        (100.0, 113.0, 114.0),
    ]
    assert [leads_until(asked, answered, DURATION, 10.0) for asked, answered, _ in table] == [until for *_, until in table]


SECONDS = st.floats(0.5, 600.0)


@given(SECONDS, SECONDS, st.floats(0, 1))
def test_answers_that_all_take_the_longest_that_is_waited_for_end_no_leader_and_no_two_lead(
    renew: float, longer: float, part: float
) -> None:
    duration = renew + longer
    slow = answer_seconds(duration, renew) * part
    assert 2 * slow <= leads_until(0.0, slow, duration, renew) < duration
    assert answer_seconds(duration, renew) >= min(renew / 2, REQUEST_SECONDS)


def test_what_a_holder_writes() -> None:
    new = {"holderIdentity": "me", "leaseDurationSeconds": 15, "acquireTime": TIME, "renewTime": TIME, "leaseTransitions": 0}
    assert held({}, "me", DURATION, AT) == new
    mine = {**new, "acquireTime": "before", "renewTime": "before", "leaseTransitions": 7, "strategy": "Newest"}
    assert held(mine, "me", DURATION, AT) == {**mine, "renewTime": TIME}
    others = {**mine, "holderIdentity": "other", "leaseDurationSeconds": 60}
    assert held(others, "me", DURATION, AT) == {**new, "leaseTransitions": 8, "strategy": "Newest"}
    assert held(released(mine, AT), "me", DURATION, AT)["leaseTransitions"] == 8
    assert released(mine, AT) == {
        "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": TIME, "renewTime": TIME, "leaseTransitions": 7,
        "strategy": "Newest",
    }  # fmt: skip
