"""Each arrow of the table in ``siorg_health``'s docstring, and the clocks that give up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from siorg_job.drain.run import GiveUp
from siorg_job.drain.siorg_health import SiorgHealth, State
from siorg_job.drain.suspects import UNIT, Place, Suspects, Where
from siorg_job.fetch.failure import FetchFailure
from siorg_job.siorg.breaker import Breaker, BreakerState
from siorg_job.siorg.errors import AccessRefused, BreakerOpen, RateLimited, SiorgError, SiorgUnavailable, UnusableAnswer
from siorg_queue import DatabaseUnavailable, EntityType, Item, Operation, Outcome, Verdict

NOW = 1000.0  # a monotonic clock; what it shows means nothing
UNAVAILABLE, PAUSED = 60.0, 300.0
Failure = SiorgError | DatabaseUnavailable


class World:
    """The machine with the real breaker, whose clock jumps over its cooldown."""

    def __init__(self, unavailable: float = UNAVAILABLE, paused: float = PAUSED) -> None:
        self.time = 0.0
        self.breaker = Breaker(3, 5.0, 60.0, clock=lambda: self.time)
        self.suspects = Suspects()
        self.health = SiorgHealth(self.breaker, self.suspects, unavailable_seconds=unavailable, paused_seconds=paused)

    def state(self) -> State:
        return self.health.state

    def fails(self, item: Item, error: Failure, *, now: float = NOW, jitter: float = 0.0) -> Verdict | None:
        return self.health.failed(FetchFailure(item, error), now=now, jitter=jitter)

    def limited(self, now: float) -> None:
        self.fails(an_item(), RateLimited("429"), now=now)

    def suspect(self, item: Item | None = None, error: SiorgError | None = None) -> Item:
        """One more item whose fetch failed for a passing reason."""
        item = item or an_item()
        self.breaker.failure(self.breaker.before_request())
        assert self.fails(item, error or SiorgUnavailable("HTTP 500")) is None
        return item

    def opens(self) -> None:
        while self.breaker.state is not BreakerState.OPEN:
            self.breaker.failure(self.breaker.before_request())
        self.health.went_down(NOW)

    def answers(self, place: Place = UNIT) -> list[tuple[Item, Outcome]]:
        """SIORG answers the control, or somebody's request; what becomes of the suspects."""
        self.time += 100.0
        self.breaker.success(self.breaker.before_request())
        self.suspects.passed(place)
        return [(verdict.item, verdict.outcome) for verdict in self.suspects.judged()]


@pytest.fixture
def world() -> World:
    return World()


def an_item() -> Item:
    return Item(uuid4(), EntityType.UNIT, 900, Operation.UPDATE, 5, {}, 1, 3, 1, datetime(2026, 1, 1, tzinfo=UTC))


@contextmanager
def gives_up(reason: str) -> Iterator[None]:
    with pytest.raises(GiveUp) as given_up:
        yield
    assert given_up.value.reason == reason


def test_closed_to_suspect(world: World) -> None:
    assert world.state() is State.CLOSED
    world.suspect()
    assert world.state() is State.SUSPECT
    assert world.suspects.judged() == []  # not known yet


def test_closed_stays_and_the_item_goes_back_with_its_attempt(world: World) -> None:
    item = an_item()
    for error, delay in (
        (RateLimited("429", retry_after=8.0), 8.4),
        (RateLimited("429"), 5.25),
        (RateLimited("429", retry_after=0.0), 5.25),
        (UnusableAnswer("none of the 41 rows"), 63.0),
        (BreakerOpen(3.0), None),
        (DatabaseUnavailable("away"), None),
    ):
        assert world.fails(item, error, jitter=0.5) == Verdict(item, Outcome.RELEASED, error=str(error), delay_seconds=delay)
        assert world.state() is State.CLOSED


def test_refused_access_ends_the_run_from_any_state(world: World) -> None:
    for prepare in (lambda: None, world.suspect, world.opens):
        prepare()
        with gives_up("siorg_unavailable"):
            world.fails(an_item(), AccessRefused("HTTP 401"))
    with gives_up("siorg_unavailable"):
        world.health.probe_failed(AccessRefused("HTTP 401"), NOW)


def test_suspect_to_closed_when_the_endpoint_answers_another_item_and_who_failed_again_pays(world: World) -> None:
    first = world.suspect()
    assert not world.health.needs_control(in_flight=2)  # the other will tell
    assert world.answers(Place(Where.SIORG, "domain")) == []
    assert world.state() is State.SUSPECT
    assert world.answers() == [(first, Outcome.RELEASED)]
    assert world.state() is State.CLOSED
    second = world.suspect()
    world.suspect(first)
    assert world.answers() == [(second, Outcome.RELEASED), (first, Outcome.RETRY)]


def test_suspect_to_closed_when_nothing_else_is_under_way_and_the_control_is_answered(world: World) -> None:
    item = world.suspect()
    assert world.health.needs_control(in_flight=1)
    assert world.answers() == [(item, Outcome.RELEASED)]
    assert not world.health.needs_control(in_flight=0)


def test_suspect_to_closed_when_the_control_meets_a_429(world: World) -> None:
    item = world.suspect()
    limited = RateLimited("429", retry_after=2.0)
    assert world.health.limit_suspects(limited, now=NOW, jitter=0.0) == [
        Verdict(item, Outcome.RELEASED, error="429", delay_seconds=2.0)
    ]
    assert (world.state(), world.health.is_limited) == (State.CLOSED, True)


def test_a_suspect_pays_as_its_failure_says(world: World) -> None:
    item = an_item()
    for _ in range(2):
        world.suspect(item, SiorgUnavailable("HTTP 503", retry_after=7.0))
        world.suspects.passed(UNIT)
    (_, verdict) = world.suspects.judged()
    assert verdict.delay_seconds == 7.0
    assert verdict.details == {"kind": "siorg_unavailable", "retryable": True, "details": {"retry_after": 7.0}}


def test_suspect_to_down_where_nobody_is_judged_but_who_failed_before(world: World) -> None:
    first, second = world.suspect(), world.suspect()
    world.opens()
    assert (world.state(), world.health.down_reason, world.suspects.repeated()) == (State.DOWN, "HTTP 500", set())
    world.suspects.give_back([first.id, second.id])
    assert world.answers() == []
    world.suspect(first)
    world.opens()
    assert world.suspects.repeated() == {first.id}
    assert not world.health.needs_control(in_flight=1)  # it is asked as the breaker allows
    assert world.answers() == [(first, Outcome.RETRY)]


def test_down_to_closed_when_a_probe_is_answered_but_only_an_item_ends_the_time_without_an_answer(world: World) -> None:
    world.opens()
    world.time += 100.0
    probe = world.breaker.before_request()
    assert world.state() is State.DOWN  # half-open
    world.breaker.success(probe)
    assert world.state() is State.CLOSED
    late = NOW + UNAVAILABLE + 1
    world.health.check_patience(late, in_flight=1)  # it may still bring an answer
    with gives_up("siorg_unavailable"):
        world.health.check_patience(late, in_flight=0)
    world.opens()  # the same time without an answer
    with gives_up("siorg_unavailable"):
        world.health.check_patience(late, in_flight=0)
    world.answers()
    world.health.answered()
    world.health.check_patience(late, in_flight=0)


def test_probes_while_down_are_spaced_by_the_breaker_and_end_with_patience(world: World) -> None:
    world.opens()
    health = world.health
    assert health.probe_seconds(NOW + 10) == UNAVAILABLE - 10
    assert health.probe_failed(BreakerOpen(3.0), NOW) == pytest.approx(3.01)
    assert health.probe_failed(SiorgUnavailable("HTTP 502"), NOW) < 1
    assert health.down_reason == "HTTP 502"
    assert health.probe_failed(RateLimited("429", retry_after=9.0), NOW) == 9.0
    assert health.probe_failed(RateLimited("429", retry_after=900.0), NOW) == UNAVAILABLE
    health.check_patience(NOW + UNAVAILABLE, in_flight=0)
    with gives_up("siorg_unavailable"):
        health.check_patience(NOW + UNAVAILABLE + 0.1, in_flight=0)
    with gives_up("siorg_unavailable"):
        health.probe_failed(BreakerOpen(UNAVAILABLE + 1), NOW)


def test_closed_to_paused_and_back_and_what_goes_before_it(world: World) -> None:
    world.health.paused(10.0, NOW)
    world.suspect()
    assert world.state() is State.PAUSED
    world.breaker.failure(world.breaker.before_request())
    world.breaker.failure(world.breaker.before_request())
    assert world.state() is State.DOWN
    world.answers(Place(Where.SIORG, "domain"))
    world.health.paused(0.0, NOW + 10)
    assert world.state() is State.SUSPECT


def test_a_pause_longer_than_the_run_waits_ends_it(world: World) -> None:
    world.health.paused(PAUSED, NOW)
    with gives_up("siorg_rate_limited"):
        world.health.paused(PAUSED, NOW + 1)  # prolonged
    world.health.paused(0.0, NOW + 1)
    world.health.paused(PAUSED, NOW + 1)
    world.limited(NOW - 100)
    with gives_up("siorg_rate_limited"):
        world.health.paused(PAUSED - 50, NOW + 1)  # its beginning is the first 429


def test_429_upon_429_ends_the_run_unless_an_item_is_answered_between(world: World) -> None:
    world.limited(NOW)
    world.limited(NOW + PAUSED)
    world.health.check_patience(NOW + 9 * PAUSED, in_flight=5)  # from 429 to 429: the first answer may take its time
    world.limited(NOW + PAUSED + 1)
    with gives_up("siorg_rate_limited"):
        world.health.check_patience(NOW + PAUSED + 1, in_flight=5)
    world.health.answered()
    world.health.check_patience(NOW + PAUSED + 1, in_flight=5)


def test_forever_only_a_refused_access_ends_it() -> None:
    world = World(math.inf, math.inf)
    world.opens()
    world.limited(NOW)
    world.limited(NOW * 1e6)
    world.health.check_patience(NOW * 1e6, in_flight=0)
    world.health.paused(1e9, NOW)
    assert world.health.probe_failed(BreakerOpen(1e9), NOW) > 1e9
