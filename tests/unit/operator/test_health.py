"""Alive and ready, judged by values. Over HTTP: ``test_http.py``."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from siorg_operator.serving.health import Health, HealthState, Judgment, Role, judge


def leader(**known: Any) -> HealthState:
    return HealthState(role=Role.LEADER, **{"since": 100.0, "beat": 100.0, "listed": True, **known})


def standby(**known: Any) -> HealthState:
    return HealthState(role=Role.STANDBY, **{"since": 100.0, "tried": 100.0, "reached": True, **known})


STUCK = "the event loop is stuck: no sign of life for {} s (limit 20 s)"
HUNG = "the pass over siorg/b is stuck: it began 195 s ago (limit 180 s)"
UNLISTED = "what is watched has not been listed yet"
REFUSED = "standby: the Lease cannot be asked for: no answer, or a refusal (the log says which)"
SILENT = "standby: the API server has not been asked for the Lease for 61 s (limit 60 s)"
PASSES = {"siorg/a": 110.0, "siorg/b": 105.0, "siorg/c": 299.0}

TABLE: dict[str, tuple[HealthState, float, str | None, str | None]] = {
    # state, now, why it is not alive, why it is not ready
    "starting": (HealthState(), 1e6, None, "the operator is starting"),
    "a leader with a fresh beat and its listings": (leader(), 120.0, None, None),
    "a loop without a beat": (leader(), 120.5, STUCK.format(20), STUCK.format(20)),
    "a loop that never beat, within its time": (leader(beat=None), 119.0, None, None),
    "a loop that never beat": (leader(beat=None), 121.0, STUCK.format(21), STUCK.format(21)),
    "a beat from before it led": (leader(beat=1.0), 119.0, None, None),
    "a long pass within its limit": (leader(beat=280.0, passes={"a": 100.0}), 280.0, None, None),
    "passes that hang, the oldest of them named": (leader(beat=299.0, passes=PASSES), 300.0, HUNG, HUNG),
    "a leader before its first listings": (leader(listed=False), 110.0, None, UNLISTED),
    "a standby": (standby(), 110.0, None, None),
    "a standby needs no beat": (standby(beat=None, since=0.0, tried=1e6), 1e6, None, None),
    "a standby that is refused": (standby(reached=False), 110.0, None, REFUSED),
    "a standby whose election stands still": (standby(), 161.0, None, SILENT),
    "a standby that has not asked": (
        standby(tried=None, reached=False), 110.0, None, "standby: not asked for the Lease yet"
    ),
}  # fmt: skip


def test_judgments() -> None:
    found = {name: judge(state, now) for name, (state, now, _, _) in TABLE.items()}
    assert found == {name: Judgment(not_alive, not_ready) for name, (_, _, not_alive, not_ready) in TABLE.items()}


@given(
    st.builds(
        HealthState,
        role=st.sampled_from(Role),
        since=st.floats(0, 1e4),
        beat=st.none() | st.floats(0, 1e4),
        passes=st.dictionaries(st.text(), st.floats(0, 1e4)),
        listed=st.booleans(),
        tried=st.none() | st.floats(0, 1e4),
        reached=st.booleans(),
    ),
    st.floats(0, 1e4),
)
def test_every_state_can_be_judged_and_what_is_not_alive_is_not_ready(health: HealthState, now: float) -> None:
    judged = judge(health, now)
    assert judged.not_alive is None or judged.not_ready == judged.not_alive


def test_health_takes_note_of_what_it_is_told() -> None:
    now = 1000.0
    health = Health(clock=lambda: now)
    assert health.judged().not_ready == "the operator is starting"
    health.standing_by()
    health.lease_tried(reached=True)
    assert health.judged() == Judgment()
    now += 3600
    health.leading()
    assert health.judged() == Judgment(not_ready="what is watched has not been listed yet")
    health.listed()
    health.pass_began("siorg/main")
    assert health.judged() == Judgment()
    now += 185
    health.beat()
    assert health.judged().not_alive == "the pass over siorg/main is stuck: it began 185 s ago (limit 180 s)"
    health.pass_ended("siorg/main")
    health.pass_ended("siorg/main")
    assert health.judged() == Judgment()
    now += 25
    assert health.judged().not_alive is not None
