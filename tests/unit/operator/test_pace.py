"""How soon something is begun anew that should last."""

from __future__ import annotations

from siorg_operator.cluster.pace import Pace


def test_what_ends_at_once_is_begun_anew_later_and_later_and_what_lasted_at_once() -> None:
    now = 100.0
    pace = Pace(1.0, 30.0, 2.0, clock=lambda: now)
    pauses = []
    for lasted in (0, 0, 1.9, 0, 0, 0, 0, 2.0, 0):
        pauses.append(pace.pause())
        now += pauses[-1] + lasted
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30, 0]
