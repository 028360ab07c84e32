from dataclasses import replace

from siorg_job.drain.run import Linger
from siorg_job.settings import Settings

SETTINGS = replace(
    Settings.from_environment({"DATABASE_URL": "postgresql://u:p@h/d"}), worker_linger_secs=10.0, worker_poll_interval_secs=5.0
)


def test_a_run_waits_for_what_falls_due_within_the_linger_and_for_nothing_else() -> None:
    linger = Linger(SETTINGS, forever=False)
    for due, pause in ((None, None), (10.1, None), (10.0, 10.0), (0.001, 0.02)):
        assert linger.pause(due, now=0.0) == pause, due


def test_a_due_row_that_somebody_else_holds_is_waited_for_as_long_as_the_linger() -> None:
    linger = Linger(SETTINGS, forever=False)
    assert linger.pause(0.0, now=100.0) == 0.02  # it may have fallen due this moment
    assert linger.pause(0.0, now=101.0) == 0.2
    assert linger.pause(0.0, now=110.0) == 0.2
    assert linger.pause(0.0, now=110.1) is None
    linger.claimed()
    assert linger.pause(0.0, now=110.2) == 0.02
    assert linger.pause(1.0, now=110.3) == 1.0  # the row was let go, and something else waits
    assert linger.pause(0.0, now=111.3) == 0.02


def test_forever_there_is_always_a_next_poll() -> None:
    linger = Linger(SETTINGS, forever=True)
    for due, pause in ((None, 5.0), (100.0, 5.0), (2.0, 2.0), (0.0, 0.05)):
        assert linger.pause(due, now=0.0) == pause, due
