"""The decision driven through whole days of a small world: a queue, Jobs that share it, trouble that comes and goes.

Nothing here sleeps: the world goes from one event to the next. The first cases are those of reference/operators.md, part B,
for which other formulas launch up to three times as many Jobs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from siorg_operator.api.resource import SiorgSyncWorker, Status
from siorg_operator.decide.job_failures import Pacing
from siorg_operator.decide.manifests import job_name
from siorg_operator.decide.plan import Plan, plan
from siorg_operator.decide.state import Ending, Job, JobState, QueueState, Reading, Stuck, Summary
from siorg_operator.decide.status import compose
from support.operator_values import CREDENTIALS, at, carried_out, template_of, with_status, worker

HOUR = 3600.0
_LEASE_SECONDS = 60.0
_PATIENCE_SECONDS = 30.0  # of a Job with SIORG, before it gives up
_ASKS_AGAIN_SECONDS = 7.5  # a Job that waits for SIORG


@dataclass(slots=True)
class Run:
    """A Job of the world: its pod is on its way, then it takes item after item until the queue is empty."""

    name: str
    slot: int
    round: int
    created: float
    next: float
    template: str
    started: float | None = None
    ended: float | None = None
    ending: Ending = Ending.DONE
    stuck: bool = False
    busy: bool = False
    done: int = 0
    waits_since: float = 0.0

    def seen(self) -> Job:
        """As the operator sees it."""
        if self.ended is None:
            state = JobState.PENDING if self.started is None else JobState.ACTIVE
        else:
            state = JobState.SUCCEEDED if self.ending is Ending.DONE else JobState.FAILED
        told = None
        if self.ended is not None and self.started is not None and self.ending is not Ending.FAILED:
            errors = 1 if self.ending is Ending.SIORG_UNAVAILABLE else 0
            lived = self.ended - self.started
            told = Summary("", 0, lived, {"completed": self.done}, requests=self.done + errors, request_errors=errors)
        stuck = Stuck("ImagePullBackOff", "no such image", at(int(self.created)))
        return Job(
            name=self.name,
            slot=self.slot,
            round=self.round,
            state=state,
            created_at=at(int(self.created)),
            template=self.template,
            started_at=None if self.started is None else at(int(self.started)),
            finished_at=None if self.ended is None else at(int(self.ended)),
            ending=None if self.ended is None else self.ending,
            stuck=stuck if self.stuck and self.ended is None else None,
            summary=told,
        )


@dataclass
class World:
    """A queue, its Jobs, and the operator that looks at them: at its interval, and when something wakes it."""

    resource: SiorgSyncWorker
    arrivals: list[tuple[float, int]]
    start_seconds: Callable[[], float] = lambda: 20.0
    item_seconds: Callable[[], float] = lambda: 1.0
    notified: bool = True
    """Whether new items wake the operator, as LISTEN does."""
    siorg_down: Callable[[float], bool] = lambda now: False
    crashes: Callable[[float], bool] = lambda now: False
    """Whether a Job that takes an item now dies of it."""
    cannot_start: Callable[[float], bool] = lambda now: False
    now: float = 0.0
    queue: int = 0
    completed: dict[str, float] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    all_runs: list[Run] = field(default_factory=list)
    launches: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    passes: int = 0
    _look_at: float = 0.0
    _woken: bool = False
    _dying: set[str] = field(default_factory=set)
    _remembers: tuple[Any, ...] = ()

    # -- what happens -------------------------------------------------------------------------------------------------

    def until(self, end: float) -> None:
        """Go from event to event up to ``end``."""
        while True:
            comes = [
                self._look_at,
                *(when for when, _ in self.arrivals[:1]),
                *(run.next for run in self.runs if run.ended is None),
            ]
            if self._woken:
                comes.append(self.now + 0.1)  # passes have a spacing
            if min(comes) > end:
                self.now = end
                return
            self.now = max(min(comes), self.now)
            while self.arrivals and self.arrivals[0][0] <= self.now:
                self.queue += self.arrivals.pop(0)[1]
                self._woken |= self.notified
            for run in self.runs:
                if run.ended is None and run.next <= self.now:
                    self._go_on(run)
            if self._woken or self.now >= self._look_at:
                self._look()

    def to_rest(self, *, within: float) -> None:
        """Until nothing waits and nothing runs."""
        deadline = self.now + within
        while self.queue or self.arrivals or any(run.ended is None for run in self.runs):
            assert self.now < deadline, f"no rest within {within:g} s: {self.queue} wait, {self.reasons}"
            self.until(min(self.now + 30.0, deadline))

    def _go_on(self, run: Run) -> None:
        if run.started is None and self.cannot_start(self.now):
            run.stuck, run.next = True, float("inf")
            self._woken = True
        elif run.started is None:
            run.started, run.stuck = self.now, False
            self._woken = True
            self._take(run)
        elif run.name in self._dying:
            self._end(run, Ending.FAILED)
            self._come_back(1, _LEASE_SECONDS)
        elif run.busy and self.siorg_down(self.now):
            if self.now < run.waits_since + _PATIENCE_SECONDS:
                run.next = min(self.now + _ASKS_AGAIN_SECONDS, run.waits_since + _PATIENCE_SECONDS)
                return
            self.queue += 1  # given back unharmed
            self._end(run, Ending.SIORG_UNAVAILABLE)
        else:
            if run.busy:
                self.completed[f"{run.name}-x7k2p"] = self.now
            run.done += run.busy
            self._take(run)

    def _take(self, run: Run) -> None:
        """Claim an item, or end."""
        run.busy = self.queue > 0
        if not run.busy:
            self._end(run, Ending.DONE)
            return
        self.queue -= 1
        run.waits_since = self.now
        if self.crashes(self.now):
            self._dying.add(run.name)
            run.next = self.now + 1.0
        else:
            run.next = self.now + max(self.item_seconds(), 0.01)

    def _come_back(self, items: int, after: float) -> None:
        self.arrivals = sorted([*self.arrivals, (self.now + after, items)])

    def _end(self, run: Run, ending: Ending) -> None:
        run.ended, run.ending, run.next = self.now, ending, float("inf")
        self._woken = True

    # -- the operator -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._woken = False
        self.passes += 1
        completed = {pod: self.now - moment for pod, moment in self.completed.items()}
        queue = QueueState(Reading(self.queue, due=self.queue, completed_by=completed), CREDENTIALS)
        jobs = [run.seen() for run in self.runs]
        decided = plan(self.resource, queue, jobs, at(self.now), Pacing())
        self.reasons[decided.reason] += 1
        self._carry_out(decided)
        newest = max((job.finished_at for job in jobs if job.finished_at), default=None)
        at_rest = decided.depth == 0 and decided.unfinished == 0
        trouble = decided.recovering if decided.backoff is None else decided.backoff.failures
        remembers = (trouble, decided.size.rates.items, newest, decided.remove, at_rest)
        if remembers != self._remembers:  # nothing else of the status has a say in later decisions
            status = Status.model_validate(compose(self.resource, queue, carried_out(decided), jobs, at(self.now)))
            self.resource, self._remembers = self.resource.model_copy(update={"status": status}), remembers
        waits = decided.poll_seconds if decided.wake_seconds is None else min(decided.poll_seconds, decided.wake_seconds)
        self._look_at = self.now + max(waits, 0.1)

    def _carry_out(self, decided: Plan) -> None:
        for launch in decided.launches:
            name = job_name(self.resource, launch.slot, launch.round)
            assert all(run.name != name for run in self.all_runs), "a name was given twice"
            starts = self.now + self.start_seconds()
            run = Run(name, launch.slot, launch.round, self.now, starts, template_of(self.resource))
            self.runs.append(run)
            self.all_runs.append(run)
            self.launches.append(self.now)
            if decided.launch_reason == "Probe":
                self.probes.append(self.now)
        assert len(self.unfinished) <= max(self.resource.spec.scaling.max_jobs, 0) or not decided.launches
        slots = [run.slot for run in self.unfinished]
        assert len(set(slots)) == len(slots)
        for removal in decided.end:
            (run,) = [run for run in self.unfinished if run.name == removal.name]
            assert run.started is None
            self._end(run, Ending.STUCK)
        self.runs = [run for run in self.runs if run.name not in {job.name for job in decided.remove}]

    # -- what came of it ----------------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> list[Run]:
        """Jobs that are there or on their way."""
        return [run for run in self.runs if run.ended is None]

    @property
    def empty_handed(self) -> int:
        """Jobs that found nothing."""
        return sum(run.ending is Ending.DONE and run.ended is not None and run.done == 0 for run in self.all_runs)


def every(seconds: float, items: int, *, times: int) -> list[tuple[float, int]]:
    return [(1.0 + n * seconds, items) for n in range(times)]


def scaled(**scaling: Any) -> SiorgSyncWorker:
    return worker(scaling=scaling)


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
    assert (len(world.launches), world.empty_handed, world.queue, world.unfinished) == (launches, 0, 0, [])
    assert sum(run.ended - run.created for run in world.all_runs if run.ended is not None) <= job_seconds


@pytest.mark.parametrize("poll", [5, 30])
def test_a_backlog_of_1000_with_10_jobs(poll: int) -> None:
    world = World(scaled(maxJobs=10, pollIntervalSeconds=poll), [(0.0, 1000)], lambda: 19.0)
    world.to_rest(within=119)
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
    assert Counter(world.launches).most_common(1)[0][1] == 10
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
    lives = 5 + _PATIENCE_SECONDS + 2
    bounds = [(pause, pause * 1.2 + lives) for pause in (*[5] * 8, 10, 20, 40, 80, 160, 320, 600, 600, 600)]
    assert 17 <= len(probes) <= 18
    assert all(low <= gap <= high for gap, (low, high) in zip(gaps(probes), bounds, strict=False)), gaps(probes)
    # Back at full speed once one has found it alive.
    world.until(600 + HOUR + 600 * 1.2 + 60)
    assert len([run for run in world.unfinished if run.started is not None]) == 10


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
    world.until(back + 15)
    assert len([run for run in world.unfinished if run.started is not None]) == 10
    assert list(Counter(world.launches[10 + len(world.probes) :]).values()) == [1, 2, 4, 2]


@pytest.mark.parametrize(("up", "down"), [(5, 40), (20, 40), (60, 60), (240, 60)])
def test_a_siorg_that_comes_and_goes_is_no_storm(up: float, down: float) -> None:
    world = World(scaled(maxJobs=10), [(0.0, 100_000)], lambda: 2.0, siorg_down=lambda now: now % (up + down) < down)
    world.until(HOUR)
    assert len(world.launches) <= 200
    assert len(world.probes) <= 20


def test_siorg_down_with_a_queue_that_is_filled_now_and_then() -> None:
    world = World(
        scaled(maxJobs=10, pollIntervalSeconds=5), every(30, 5, times=120), lambda: 5.0, lambda: 0.5,
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
    assert [run.ending for run in world.all_runs if run.ended is not None] == [Ending.FAILED]
    assert len(world.unfinished) == 10


def test_an_image_that_cannot_be_pulled_is_tried_at_most_16_times_an_hour() -> None:
    world = World(scaled(maxJobs=5, itemsPerJob=1), [(0.0, 100)], lambda: 2.0, cannot_start=lambda now: True)
    world.until(HOUR)
    assert len(world.launches) <= 5 + 15
    assert len(world.unfinished) <= 1


def test_a_corrected_image_is_used_at_once() -> None:
    world = World(scaled(maxJobs=5, itemsPerJob=1), [(0.0, 100)], lambda: 2.0, cannot_start=lambda now: now < 1000)
    world.until(1000)
    job = world.resource.spec.job.model_copy(update={"image": "registry.example/siorg-job:2"})
    world.resource = world.resource.model_copy(update={"spec": world.resource.spec.model_copy(update={"job": job})})
    world.until(1000 + 5)
    assert world.launches[-4:] == [pytest.approx(1000, abs=5)] * 4  # what is stuck keeps its slot for a while


def test_trouble_outlives_the_jobs_behind_it() -> None:
    world = World(scaled(maxJobs=5), [(0.0, 1000)], lambda: 2.0, siorg_down=lambda now: True)
    world.until(700)
    world.runs = []  # their time to live was over
    launched = len(world.launches)
    world.until(720)
    assert world.resource.status.backoff is not None
    assert len(world.launches) - launched <= 1


def test_a_success_that_is_not_kept_ends_trouble_for_good() -> None:
    dies = iter([True])
    resource = worker(scaling={"maxJobs": 5}, job={"successfulJobsHistoryLimit": 0})
    world = World(resource, every(120, 200, times=10), lambda: 2.0, lambda: 0.1, crashes=lambda now: next(dies, False))
    world.until(1500)
    bursts = Counter(int(moment // 120) for moment in world.launches if moment > 240)
    assert set(bursts.values()) == {4}  # and not one probe after the other


# -- anything ---------------------------------------------------------------------------------------------------------


def anything(seed: int) -> World:
    """A world in which everything goes wrong for a while, and then no more."""
    pick = random.Random(seed)
    most = pick.randint(1, 12)
    scaling: dict[str, Any] = {
        "maxJobs": most,
        "minJobs": pick.randint(0, most),
        "itemsPerJob": pick.choice([1, 5, 20, 100]),
        "maxLaunchesPerStep": pick.choice([1, 3, 10]),
        "pollIntervalSeconds": pick.choice([10, 30, 120]),
    }
    if pick.random() < 0.5:
        scaling["targetDrainSeconds"] = pick.choice([5, 60, 600])
    history = {"successfulJobsHistoryLimit": pick.choice([0, 1, 3]), "failedJobsHistoryLimit": pick.choice([1, 3])}
    slow, quick = pick.choice([1.0, 10.0, 60.0]), pick.choice([0.05, 0.5, 2.0])
    windows = {name: (pick.uniform(0, 300), pick.choice([0.0, 0.0, 60.0, 300.0])) for name in ("siorg", "crash", "image")}

    def trouble(name: str, chance: float) -> Callable[[float], bool]:
        begin, lasts = windows[name]
        return lambda now: begin <= now < begin + lasts and pick.random() < chance

    arrivals = sorted((pick.uniform(0, 400), pick.randint(1, 60)) for _ in range(pick.randint(1, 6)))
    return World(
        worker(scaling=scaling, job=history),
        arrivals,
        lambda: pick.uniform(0.5, slow),
        lambda: pick.uniform(0.01, quick),
        notified=pick.random() < 0.7,
        siorg_down=trouble("siorg", 1.0),
        crashes=trouble("crash", pick.choice([0.02, 0.3, 1.0])),
        cannot_start=trouble("image", pick.choice([0.3, 1.0])),
    )


@pytest.mark.parametrize("seed", range(0, 400, 100))
def test_everything_comes_to_rest_with_an_empty_queue(seed: int) -> None:
    for one in range(seed, seed + 100):
        world = anything(one)
        items = sum(count for _, count in world.arrivals)
        world.to_rest(within=2 * HOUR)
        launched = len(world.launches)
        assert sum(run.done for run in world.all_runs) == items, f"seed {one}"
        world.until(world.now + 2 * world.resource.spec.scaling.poll_interval_seconds + 1)
        assert len(world.launches) == launched, f"seed {one}: a Job for nothing"
        assert world.unfinished == [], f"seed {one}"


def test_the_operator_may_forget_everything_but_what_status_holds() -> None:
    # A restart: the same world, a new resource object with the status that was written.
    world = anything(7)
    for _ in range(100):
        world.until(world.now + 20)
        world.resource = with_status(world.resource, world.resource.status.body())
    world.to_rest(within=HOUR)
