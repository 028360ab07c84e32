"""The real operator through hours of a small world: a queue, Jobs that share it, trouble that comes and goes as a test says.

Nothing here sleeps: the world goes from one event to the next. The first cases are those of reference/operators.md, part B,
for which other formulas launch up to three times as many Jobs. Worlds in which everything goes wrong: ``tests/unit/simulation``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from support.simulation.scene import Scene as World
from support.simulation.scene import close_all

HOUR = 3600.0
_PATIENCE_SECONDS = 30.0  # of a Job with SIORG, before it gives up
_ON_THE_WAY = 4.0  # seconds at most that the Job controller, the scheduler and the kubelet take beside a container's start


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_all()


def every(seconds: float, items: int, *, times: int) -> list[tuple[float, int]]:
    return [(1.0 + n * seconds, items) for n in range(times)]


def scaled(**scaling: Any) -> dict[str, Any]:
    return scaling


def bursts(moments: Iterable[float]) -> list[int]:
    """How many follow one another at once."""
    found: list[int] = []
    last = -HOUR
    for moment in moments:
        if moment - last < 0.2:
            found[-1] += 1
        else:
            found.append(1)
        last = moment
    return found


def gaps(moments: Iterable[float]) -> list[float]:
    return [after - before for before, after in pairwise(moments)]


# -- the cases of the reference ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("notified", [True, False])
@pytest.mark.parametrize(
    ("poll", "arrivals", "start", "item", "launches", "job_seconds"),
    [(10, every(60, 1, times=60), 20.0, 5.0, 60, HOUR), (5, every(600, 300, times=6), 30.0, 1.0, 36, 2880)],
    ids=["one item a minute", "bursts of 300 each 10 minutes"],
)
def test_an_hour_of_work(
    poll: int, arrivals: list[tuple[float, int]], start: float, item: float, launches: int, job_seconds: float, notified: bool
) -> None:
    resource = scaled(itemsPerJob=50, maxJobs=10, pollIntervalSeconds=poll)
    world = World(resource, list(arrivals), lambda: start, lambda: item, notified=notified)
    world.until(HOUR + 60)
    assert (len(world.launches), world.empty_handed, world.queue.claimable, world.unfinished) == (launches, 0, 0, [])
    assert sum(job.finished_at - job.made for job in world.all_jobs) <= job_seconds + _ON_THE_WAY * launches


@pytest.mark.parametrize("poll", [5, 30])
def test_a_backlog_of_1000_with_10_jobs(poll: int) -> None:
    world = World(scaled(maxJobs=10, pollIntervalSeconds=poll), [(0.0, 1000)], lambda: 19.0)
    world.to_rest(within=119 + _ON_THE_WAY)
    assert (len(world.launches), world.empty_handed) == (10, 0)


def test_a_burst_that_trickles_in_is_one_burst() -> None:
    trickle = [(1.0 + n * 0.01, 1) for n in range(300)]
    world = World(scaled(itemsPerJob=50, maxJobs=10), trickle, lambda: 30.0)
    world.to_rest(within=HOUR)
    assert (len(world.launches), world.empty_handed) == (6, 0)


def test_at_rest_it_only_polls() -> None:
    world = World(scaled(pollIntervalSeconds=30), [(0.0, 100)])
    world.to_rest(within=HOUR)
    passes, launches = world.passes, len(world.launches)
    world.until(world.now + HOUR)
    assert world.passes - passes <= HOUR / 30 + 1
    assert len(world.launches) == launches


def test_a_burst_is_taken_up_in_steps() -> None:
    world = World(scaled(maxJobs=100, maxLaunchesPerStep=10, itemsPerJob=1), [(0.0, 100)], lambda: 60.0)
    world.until(59)
    assert Counter(world.decisions).most_common(1)[0][1] == 10
    assert len(world.launches) == 100


# -- trouble ----------------------------------------------------------------------------------------------------------


def test_siorg_down_for_an_hour() -> None:
    world = World(
        scaled(maxJobs=10, itemsPerJob=10), [(0.0, 100_000)], lambda: 5.0, lambda: 1.0,
        siorg_down=lambda now: 600 <= now < 600 + HOUR,
    )  # fmt: skip
    world.until(600 + HOUR)
    probes = [moment for moment in world.launches if moment > 601]
    assert probes == world.probes
    # 5 s for five minutes, doubling up to 600 s, each up to a fifth longer; and what a probe lives.
    lives = 5 + _PATIENCE_SECONDS + 2 + _ON_THE_WAY
    bounds = [(pause, pause * 1.2 + lives) for pause in (*[5] * 8, 10, 20, 40, 80, 160, 320, 600, 600, 600)]
    assert 17 <= len(probes) <= 18
    assert all(low <= gap <= high for gap, (low, high) in zip(gaps(probes), bounds, strict=False)), gaps(probes)
    # Back at full speed once one has found it alive.
    world.until(600 + HOUR + 600 * 1.2 + 60)
    assert world.working == 10


def test_a_night_without_siorg_takes_few_jobs() -> None:
    world = World(scaled(maxJobs=10), [(0.0, 100_000)], lambda: 2.0, siorg_down=lambda now: now >= 60)
    world.until(60 + 8 * HOUR)
    assert len(world.launches) <= 10 + 65
    assert world.launches[10:] == world.probes


@pytest.mark.parametrize("lasts", range(100, 280, 6))
def test_all_work_again_within_15_seconds_of_the_end_of_a_short_absence(lasts: int) -> None:
    back = 60 + lasts
    world = World(scaled(maxJobs=10), [(0.0, 100_000)], lambda: 0.1, lambda: 0.2, siorg_down=lambda now: 60 <= now < back)
    world.until(back)
    assert world.launches[10:] == world.probes
    world.until(back + 15 + 3 * _ON_THE_WAY)  # three times more Jobs follow those that have completed an item
    assert world.working == 10
    found = bursts(world.launches[10 + len(world.probes) :])  # 1, 2, 4, 2, where none of them is quick
    assert sum(found) == 9
    assert len(found) >= 3


@pytest.mark.parametrize(("up", "down"), [(5, 40), (20, 40), (60, 60), (240, 60)])
def test_a_siorg_that_comes_and_goes_is_no_storm(up: float, down: float) -> None:
    world = World(scaled(maxJobs=10), [(0.0, 100_000)], lambda: 2.0, siorg_down=lambda now: now % (up + down) < down)
    world.until(HOUR)
    assert len(world.launches) <= 200
    assert len(world.probes) <= 20


def test_siorg_down_with_a_queue_that_is_filled_now_and_then() -> None:
    world = World(
        scaled(maxJobs=10, pollIntervalSeconds=30), every(30, 5, times=120), lambda: 5.0, lambda: 0.5,
        siorg_down=lambda now: now < HOUR,
    )  # fmt: skip
    world.until(HOUR)
    assert len(world.launches) <= 20  # new work is no reason to try again sooner
    world.to_rest(within=1200)
    assert world.empty_handed == 0


@pytest.mark.parametrize("jobs", [1, 10])
def test_jobs_that_always_crash_are_launched_at_most_18_times_an_hour(jobs: int) -> None:
    # One burst of maxJobs, then probes after 10, 20, 40, 80, 160 and each 300 s: at most 17 of them.
    world = World(scaled(maxJobs=jobs, itemsPerJob=1), [(0.0, 5000)], lambda: 2.0, crashes=lambda now: True)
    world.until(HOUR)
    assert len(world.launches) <= jobs + 17
    assert len(world.probes) == len(world.launches) - jobs
    longest = gaps(world.launches)[-3:]
    assert all(300 <= gap <= 300 * 1.2 + 10 for gap in longest)


def test_crashes_that_stop_are_forgotten() -> None:
    world = World(scaled(maxJobs=5), [(0.0, 5000)], lambda: 2.0, crashes=lambda now: now < 900)
    world.until(900 + 360 + 60)
    assert len(world.unfinished) == 5
    world.to_rest(within=HOUR)


def test_one_crash_among_many_jobs_holds_nothing_back_for_long() -> None:
    dies = iter([*[False] * 200, True])
    world = World(scaled(maxJobs=10, itemsPerJob=10), [(0.0, 100_000)], lambda: 2.0, crashes=lambda now: next(dies, False))
    world.until(400)
    assert [job.failed for job in world.all_jobs if job.finished] == [1]
    assert len(world.unfinished) == 10


def test_an_image_that_cannot_be_pulled_is_tried_at_most_16_times_an_hour() -> None:
    world = World(scaled(maxJobs=5, itemsPerJob=1), [(0.0, 100)], lambda: 2.0, cannot_start=lambda now: True)
    world.until(HOUR)
    assert len(world.launches) <= 5 + 15
    assert len(world.unfinished) <= 1


def test_a_corrected_image_is_used_at_once() -> None:
    world = World(scaled(maxJobs=5, itemsPerJob=1), [(0.0, 100)], lambda: 2.0, cannot_start=lambda now: now < 1000)
    world.until(1000)
    world.edit_job(image="registry.example/siorg-job:2")
    world.until(1000 + 5)
    assert world.launches[-4:] == [pytest.approx(1000, abs=5)] * 4  # what is stuck keeps its slot for a while


def test_trouble_outlives_the_jobs_behind_it() -> None:
    world = World(scaled(maxJobs=5), [(0.0, 1000)], lambda: 2.0, siorg_down=lambda now: True)
    world.until(700)
    world.forget_finished()  # their time to live was over
    launched = len(world.launches)
    world.until(720)
    assert world.status["backoff"]
    assert len(world.launches) - launched <= 1


def test_a_success_that_is_not_kept_ends_trouble_for_good() -> None:
    dies = iter([True])
    world = World(
        scaled(maxJobs=5), every(120, 200, times=10), lambda: 2.0, lambda: 0.1, crashes=lambda now: next(dies, False),
        successfulJobsHistoryLimit=0,
    )  # fmt: skip
    world.until(1500)
    bursts = Counter(int(moment // 120) for moment in world.launches if moment > 240)
    assert set(bursts.values()) == {4}  # and not one probe after the other
