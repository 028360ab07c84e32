"""Each arrow of the table in ``siorg_health``'s docstring, and the clocks that give up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from siorg_job.drain.errors import GiveUp
from siorg_job.drain.siorg_health import SiorgHealth, State
from siorg_job.fetch.failure import FetchFailure
from siorg_job.siorg.breaker import Breaker, BreakerState
from siorg_job.siorg.errors import AccessRefused, BreakerOpen, NotFound, RateLimited, SiorgError, SiorgUnavailable
from siorg_queue import DatabaseUnavailable, EntityType, Item, Operation, Outcome

NOW = 1000.0  # a monotonic clock; what it shows means nothing
UNAVAILABLE, PAUSED = 60.0, 300.0


class FakedBreaker(Breaker):
    """The real one, with a clock that jumps over its cooldown."""

    def __init__(self) -> None:
        self.time = 0.0
        super().__init__(3, 5.0, 60.0, clock=lambda: self.time)

    def opens(self) -> None:
        while self.state is not BreakerState.OPEN:
            self.failure(self.before_request())

    def closes(self) -> None:
        self.time += 100.0
        self.success(self.before_request())


@pytest.fixture
def breaker() -> FakedBreaker:
    return FakedBreaker()


@pytest.fixture
def health(breaker: FakedBreaker) -> SiorgHealth:
    return SiorgHealth(breaker, unavailable_seconds=UNAVAILABLE, paused_seconds=PAUSED)


def state(health: SiorgHealth) -> State:
    return health.state


def item() -> Item:
    return Item(uuid4(), EntityType.UNIT, 900, Operation.UPDATE, 5, {}, 1, 3, 1, datetime(2026, 1, 1, tzinfo=UTC))


def suspect(health: SiorgHealth, breaker: FakedBreaker, of: Item | None = None, error: SiorgError | None = None) -> Item:
    """One more item whose fetch failed for a passing reason."""
    failed = of or item()
    breaker.failure(breaker.before_request())
    assert health.failed(FetchFailure(failed, error or SiorgUnavailable("HTTP 500")), now=NOW, jitter=0.0) is None
    return failed


@contextmanager
def gives_up(reason: str) -> Iterator[None]:
    with pytest.raises(GiveUp) as given_up:
        yield
    assert given_up.value.reason == reason


# -- CLOSED -----------------------------------------------------------------------------------------------------------


def test_closed_to_suspect(health: SiorgHealth, breaker: FakedBreaker) -> None:
    assert state(health) is State.CLOSED
    suspect(health, breaker)
    assert state(health) is State.SUSPECT
    assert health.own_faults() == []  # not known yet


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (RateLimited("429", retry_after=8.0), 8.4),
        (RateLimited("429"), 5.25),
        (RateLimited("429", retry_after=0.0), 5.25),
        (BreakerOpen(3.0), None),
        (DatabaseUnavailable("away"), None),
    ],
)
def test_closed_stays_and_the_item_goes_back_with_its_attempt(
    health: SiorgHealth, error: SiorgError | DatabaseUnavailable, delay: float | None
) -> None:
    verdict = health.failed(FetchFailure(item(), error), now=NOW, jitter=0.5)
    assert verdict is not None
    assert (verdict.outcome, verdict.delay_seconds, verdict.error) == (Outcome.RELEASED, delay, str(error))
    assert state(health) is State.CLOSED


def test_refused_access_ends_the_run_from_any_state(health: SiorgHealth, breaker: FakedBreaker) -> None:
    for prepare in (lambda: None, lambda: suspect(health, breaker), breaker.opens):
        prepare()
        with gives_up("siorg_unavailable"):
            health.failed(FetchFailure(item(), AccessRefused("HTTP 401")), now=NOW, jitter=0.0)
    health.went_down(NOW)
    with gives_up("siorg_unavailable"):
        health.probe_failed(AccessRefused("HTTP 401"), NOW)


# -- SUSPECT ----------------------------------------------------------------------------------------------------------


def test_suspect_to_closed_when_another_item_is_answered(health: SiorgHealth, breaker: FakedBreaker) -> None:
    first = suspect(health, breaker)
    second = suspect(health, breaker, error=SiorgUnavailable("HTTP 503", retry_after=7.0))
    assert not health.needs_probe(in_flight=3)  # the third will tell
    breaker.closes()
    verdicts = health.own_faults()
    assert [(verdict.item, verdict.outcome, verdict.delay_seconds) for verdict in verdicts] == [
        (first, Outcome.RETRY, None),
        (second, Outcome.RETRY, 7.0),
    ]
    assert verdicts[0].details == {"kind": "siorg_unavailable", "retryable": True, "details": {}}
    assert state(health) is State.CLOSED
    assert health.own_faults() == []


def test_suspect_to_closed_when_nothing_else_is_under_way_and_a_probe_is_answered(
    health: SiorgHealth, breaker: FakedBreaker
) -> None:
    suspect(health, breaker)
    assert health.needs_probe(in_flight=1)
    breaker.closes()
    assert not health.needs_probe(in_flight=1)
    assert [verdict.outcome for verdict in health.own_faults()] == [Outcome.RETRY]


def test_suspect_to_closed_when_the_probe_meets_a_429(health: SiorgHealth, breaker: FakedBreaker) -> None:
    failed = suspect(health, breaker)
    (taken,) = health.take_suspects()
    assert taken.item == failed
    verdict = health.failed(FetchFailure(failed, RateLimited("429", retry_after=2.0)), now=NOW, jitter=0.0)
    assert verdict is not None
    assert verdict.outcome is Outcome.RELEASED
    assert state(health) is State.CLOSED
    assert health.is_limited


def test_suspect_to_down_and_nobody_pays_the_first_time(health: SiorgHealth, breaker: FakedBreaker) -> None:
    suspect(health, breaker)
    breaker.opens()
    assert state(health) is State.DOWN
    assert not health.needs_probe(in_flight=1)
    assert health.own_faults() == []
    assert health.went_down(NOW) == []
    assert health.down_reason == "HTTP 500"
    assert health.suspects == 0


def test_a_suspect_of_an_earlier_opening_pays_and_is_then_forgotten(health: SiorgHealth, breaker: FakedBreaker) -> None:
    def opens_on(*suspects: Item) -> list[Item]:
        """Who pays."""
        for failed in suspects:
            suspect(health, breaker, failed)
        breaker.opens()
        paying = [verdict.item for verdict in health.went_down(NOW) if verdict.outcome is Outcome.RETRY]
        for failed in suspects:
            health.ended(failed.id, released=failed not in paying)
        breaker.closes()
        return paying

    first, second = item(), item()
    assert opens_on(first, second) == []
    assert opens_on(first) == [first]
    assert opens_on(first, second) == [second]
    assert opens_on(first) == [first]


# -- DOWN -------------------------------------------------------------------------------------------------------------


def test_down_to_closed_when_a_probe_is_answered_but_only_an_item_ends_the_time_without_an_answer(
    health: SiorgHealth, breaker: FakedBreaker
) -> None:
    breaker.opens()
    health.went_down(NOW)
    breaker.time += 100.0
    permit = breaker.before_request()
    assert state(health) is State.DOWN  # half-open: the probe is under way
    breaker.success(permit)
    assert state(health) is State.CLOSED
    late = NOW + UNAVAILABLE + 1
    health.check_patience(late, in_flight=1)  # it may still bring an answer
    with gives_up("siorg_unavailable"):
        health.check_patience(late, in_flight=0)
    breaker.opens()
    health.went_down(late)  # the same time without an answer
    with gives_up("siorg_unavailable"):
        health.check_patience(late, in_flight=0)
    breaker.closes()
    health.answered()
    health.check_patience(late, in_flight=0)


def test_probes_while_down_are_spaced_by_the_breaker_and_end_with_patience(health: SiorgHealth, breaker: FakedBreaker) -> None:
    breaker.opens()
    health.went_down(NOW)
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


# -- PAUSED, and 429 upon 429 -----------------------------------------------------------------------------------------


def test_closed_to_paused_and_back(health: SiorgHealth, breaker: FakedBreaker) -> None:
    health.paused(10.0, NOW)
    assert state(health) is State.PAUSED
    suspect(health, breaker)
    assert state(health) is State.PAUSED
    breaker.opens()
    assert state(health) is State.DOWN
    breaker.closes()
    health.paused(0.0, NOW + 10)
    assert state(health) is State.SUSPECT


def test_a_pause_longer_than_the_run_waits_ends_it(health: SiorgHealth) -> None:
    health.paused(PAUSED, NOW)
    with gives_up("siorg_rate_limited"):
        health.paused(PAUSED, NOW + 1)  # prolonged
    health.paused(0.0, NOW + 1)
    health.paused(PAUSED, NOW + 1)
    health.failed(FetchFailure(item(), RateLimited("429")), now=NOW - 100, jitter=0.0)
    with gives_up("siorg_rate_limited"):
        health.paused(PAUSED - 50, NOW + 1)  # its beginning is the first 429


def test_429_upon_429_ends_the_run_unless_an_item_is_answered_between(health: SiorgHealth) -> None:
    def limited(now: float) -> None:
        health.failed(FetchFailure(item(), RateLimited("429")), now=now, jitter=0.0)

    limited(NOW)
    limited(NOW + PAUSED)
    health.check_patience(NOW + 9 * PAUSED, in_flight=5)  # from 429 to 429: the first answer may take its time
    limited(NOW + PAUSED + 1)
    with gives_up("siorg_rate_limited"):
        health.check_patience(NOW + PAUSED + 1, in_flight=5)
    health.answered()
    assert not health.is_limited
    health.check_patience(NOW + PAUSED + 1, in_flight=5)


def test_forever_only_a_refused_access_ends_it(breaker: FakedBreaker) -> None:
    health = SiorgHealth(breaker, unavailable_seconds=math.inf, paused_seconds=math.inf)
    breaker.opens()
    health.went_down(NOW)
    health.failed(FetchFailure(item(), RateLimited("429")), now=NOW, jitter=0.0)
    health.failed(FetchFailure(item(), RateLimited("429")), now=NOW * 1e6, jitter=0.0)
    health.check_patience(NOW * 1e6, in_flight=0)
    health.paused(1e9, NOW)
    assert health.probe_failed(BreakerOpen(1e9), NOW) > 1e9
    assert health.probe_failed(NotFound("an answer of another kind"), NOW) < 1
