"""Alive and ready, judged by what was noted. Over HTTP: ``test_http.py``."""

from __future__ import annotations

from collections.abc import Iterable
from operator import methodcaller

from hypothesis import given
from hypothesis import strategies as st

from siorg_operator.serving.health import Health

Step = tuple[float, methodcaller]

LEADING = methodcaller("leading", ["jobs", "pods"])
BEAT, STANDBY = (methodcaller(name) for name in ("beat", "standing_by"))
ASKED, ANSWERED, OTHER = methodcaller("asked", "jobs"), methodcaller("answered", "jobs"), methodcaller("answered", "pods")
TRIED, REFUSED = (methodcaller("lease_tried", reached=reached) for reached in (True, False))


def began(key: str) -> methodcaller:
    return methodcaller("pass_began", key)


def judged(steps: Iterable[Step], now: float) -> tuple[str | None, str | None]:
    """Why it is not alive, and why it is not ready, at ``now``."""
    time = 0.0
    health = Health(clock=lambda: time)
    for time, step in steps:  # noqa: B007 - the clock reads it
        step(health)
    time = now
    return health.why_not_alive(), health.why_not_ready()


LEADER = [(100.0, LEADING), (100.0, OTHER), (100.0, ASKED), (100.0, ANSWERED)]
WATCHING = [*LEADER, (150.0, ASKED)]
ELECTING = [(100.0, STANDBY), (100.0, TRIED)]
PASSES = [(105.0, began("siorg/b")), (110.0, began("siorg/a")), (299.0, began("siorg/c"))]
STUCK = "the event loop is stuck: no sign of life for {} s (limit 20 s)"
HUNG = "the pass over siorg/b is stuck: it began 195 s ago (limit 180 s)"
UNLISTED = "what is watched has not been listed yet"
BLIND = "jobs: no list or watch was answered for 121 s (limit 120 s; the log says why)"
UNREACHED = "standby: the Lease cannot be asked for: no answer, or a refusal (the log says which)"
SILENT = "standby: the API server has not been asked for the Lease for 61 s (limit 60 s)"

TABLE: dict[str, tuple[list[Step], float, str | None, str | None]] = {
    # what happened, now, why it is not alive, why it is not ready
    "starting": ([], 1e6, None, "the operator is starting"),
    "a leader with a fresh beat and its listings": ([*LEADER, (100.0, BEAT)], 120.0, None, None),
    "a loop without a beat": ([*LEADER, (100.0, BEAT)], 120.5, STUCK.format(20), STUCK.format(20)),
    "a loop that never beat, within its time": (LEADER, 119.0, None, None),
    "a loop that never beat": (LEADER, 121.0, STUCK.format(21), STUCK.format(21)),
    "a beat from before it led": ([(1.0, BEAT), *LEADER], 119.0, None, None),
    "a long pass within its limit": ([*LEADER, (100.0, began("a")), (280.0, BEAT)], 280.0, None, None),
    "passes that hang, the oldest of them named": ([*LEADER, *PASSES, (299.0, BEAT)], 300.0, HUNG, HUNG),
    "a pass that ended": (
        [*LEADER, (1.0, began("a")), *[(5.0, methodcaller("pass_ended", "a"))] * 2, (299.0, BEAT)],
        300.0,
        None,
        None,
    ),
    "a leader before its first listings": ([(100.0, LEADING)], 110.0, None, UNLISTED),
    "a leader with some of its first listings": ([(100.0, LEADING), (101.0, ANSWERED)], 110.0, None, UNLISTED),
    "a leader that stood by for an hour": ([*ELECTING, *[(3700.0, step) for _, step in LEADER]], 3719.0, None, None),
    "watches without news": ([*LEADER, (9e5, BEAT)], 9e5, None, None),
    "a watch that waits for its answer": ([*WATCHING, (270.0, BEAT)], 270.0, None, None),
    "a watch that has none, however often it is asked for": ([*WATCHING, (270.0, ASKED), (271.0, BEAT)], 271.0, None, BLIND),
    "a watch that has one at last": ([*WATCHING, (271.0, ANSWERED), (271.0, BEAT)], 271.0, None, None),
    "a kind that is not watched": ([*LEADER, (100.0, methodcaller("asked", "v1")), (900.0, BEAT)], 900.0, None, None),
    "a standby": (ELECTING, 110.0, None, None),
    "a standby needs no beat": ([(0.0, STANDBY), (1e6, TRIED)], 1e6, None, None),
    "a standby that is refused": ([*ELECTING, (105.0, REFUSED)], 110.0, None, UNREACHED),
    "a standby whose election stands still": (ELECTING, 161.0, None, SILENT),
    "a standby that has not asked": ([(100.0, STANDBY)], 110.0, None, "standby: not asked for the Lease yet"),
}


def test_judgments() -> None:
    found = {name: judged(steps, now) for name, (steps, now, _, _) in TABLE.items()}
    assert found == {name: (not_alive, not_ready) for name, (_, _, not_alive, not_ready) in TABLE.items()}


PASS = (began("a"), began("b"), methodcaller("pass_ended", "a"))
STEPS = st.sampled_from([LEADING, BEAT, ASKED, ANSWERED, OTHER, STANDBY, TRIED, REFUSED, *PASS])


@given(st.lists(st.tuples(st.floats(0, 1e4), STEPS)), st.floats(0, 1e4))
def test_whatever_happened_can_be_judged_and_what_is_not_alive_is_not_ready(steps: list[Step], now: float) -> None:
    not_alive, not_ready = judged(steps, now)
    assert not_alive is None or not_ready == not_alive
