"""Alive and ready, judged by what was noted. Over HTTP: ``test_http.py``."""

from __future__ import annotations

from collections.abc import Iterable
from operator import methodcaller

from hypothesis import given
from hypothesis import strategies as st

from siorg_operator.cluster.connection import REQUEST_SECONDS
from siorg_operator.serving.health import EVERYTHING, PASS_SECONDS, Health

Step = tuple[float, methodcaller]

LEADING = methodcaller("leading", ["jobs", "pods"])
BEAT, STANDBY = (methodcaller(name) for name in ("beat", "standing_by"))
ASKED, ANSWERED, OTHER = methodcaller("asked", "jobs"), methodcaller("answered", "jobs"), methodcaller("answered", "pods")
QUEUED, BEGUN, ENDED = (methodcaller(f"request_{what}") for what in ("queued", "began", "ended"))
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
HUNG = "the pass over siorg/b is stuck: no progress for 195 s (limit 180 s)"
SILENCE = "the pass over siorg/a is stuck: no progress for {} s (limit 180 s)"
REQUEST, PASSED = (QUEUED, BEGUN, ENDED), methodcaller("pass_ended", "b")
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
    "a slow pass, whose requests end": (
        [*LEADER, (100.0, began("a")), *[(at, step) for at in (250.0, 400.0) for step in REQUEST], (580.0, BEAT)],
        580.0,
        None,
        None,
    ),
    "a pass that waits for a thread, while another's requests end": (
        [
            *LEADER,
            (100.0, began("a")),
            (100.0, QUEUED),
            (100.0, began("b")),
            (200.0, QUEUED),
            (250.0, BEGUN),
            (290.0, ENDED),
            (300.0, PASSED),
            (470.0, BEAT),
        ],
        470.0,
        None,
        None,
    ),
    "a pass that waits for a thread, where none gets free": (
        [*LEADER, (100.0, began("siorg/a")), (100.0, QUEUED), (281.0, BEAT)],
        281.0,
        SILENCE.format(181),
        SILENCE.format(181),
    ),
    "a pass that waits for something else, while another's requests end": (
        [
            *LEADER,
            (100.0, began("siorg/a")),
            (100.0, began("b")),
            *[(at, step) for at in (200.0, 281.0) for step in REQUEST],
            (281.0, BEAT),
        ],
        281.0,
        SILENCE.format(181),
        SILENCE.format(181),
    ),
    "a leader before its first listings": ([(100.0, LEADING)], 110.0, None, UNLISTED),
    "a leader with some of its first listings": ([(100.0, LEADING), (101.0, ANSWERED)], 110.0, None, UNLISTED),
    "a leader that stood by for an hour": ([*ELECTING, *[(3700.0, step) for _, step in LEADER]], 3719.0, None, None),
    "watches without news": ([*LEADER, (9e5, BEAT)], 9e5, None, None),
    "a watch that waits for its answer": ([*WATCHING, (270.0, BEAT)], 270.0, None, None),
    "a watch that has none, however often it is asked for": ([*WATCHING, (270.0, ASKED), (271.0, BEAT)], 271.0, None, BLIND),
    "a watch that has one at last": ([*WATCHING, (271.0, ANSWERED), (271.0, BEAT)], 271.0, None, None),
    "watches that fail together, whatever is answered in between": (
        [*LEADER, (110.0, methodcaller("asked", EVERYTHING)), (200.0, ASKED), (201.0, ANSWERED), (231.0, BEAT)],
        231.0,
        None,
        "all that is watched: no list or watch was answered for 121 s (limit 120 s; the log says why)",
    ),
    "a kind that is not watched": ([*LEADER, (100.0, methodcaller("asked", "v1")), (900.0, BEAT)], 900.0, None, None),
    "a standby": (ELECTING, 110.0, None, None),
    "a standby needs no beat": ([(0.0, STANDBY), (1e6, TRIED)], 1e6, None, None),
    "a standby that is refused": ([*ELECTING, (105.0, REFUSED)], 110.0, None, UNREACHED),
    "a standby whose election stands still": (ELECTING, 161.0, None, SILENT),
    "a standby that has not asked": ([(100.0, STANDBY)], 110.0, None, "standby: not asked for the Lease yet"),
}


def test_the_slowest_request_that_is_allowed_is_no_stuck_pass() -> None:
    assert PASS_SECONDS > 2 * REQUEST_SECONDS


def test_judgments() -> None:
    found = {name: judged(steps, now) for name, (steps, now, _, _) in TABLE.items()}
    assert found == {name: (not_alive, not_ready) for name, (_, _, not_alive, not_ready) in TABLE.items()}


PASS = (began("a"), began("b"), methodcaller("pass_ended", "a"))
STEPS = st.sampled_from([LEADING, BEAT, ASKED, ANSWERED, OTHER, STANDBY, TRIED, REFUSED, *PASS])


@given(st.lists(st.tuples(st.floats(0, 1e4), STEPS)), st.floats(0, 1e4))
def test_whatever_happened_can_be_judged_and_what_is_not_alive_is_not_ready(steps: list[Step], now: float) -> None:
    not_alive, not_ready = judged(steps, now)
    assert not_alive is None or not_ready == not_alive
