"""The breaker leaves SIORG alone, and finds out with one request whether it is back."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from siorg_job.siorg.breaker import Breaker, BreakerState, Permit
from siorg_job.siorg.errors import BreakerOpen
from support.siorg_client import Clock


def make(clock: Clock, threshold: int = 3, draw: float = 0.0) -> Breaker:
    return Breaker(threshold, 10.0, 40.0, clock, lambda: draw)


def state_of(breaker: Breaker) -> BreakerState:
    return breaker.state  # behind a call, because the type checker takes it for constant


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failure(breaker.before_request())


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = make(Clock())
    fail(breaker, 2)
    breaker.success(breaker.before_request())
    fail(breaker, 2)
    assert (breaker.state, breaker.consecutive_failures) == (BreakerState.CLOSED, 2)
    fail(breaker, 1)
    assert (breaker.state, breaker.consecutive_failures) == (BreakerState.OPEN, 3)
    with pytest.raises(BreakerOpen) as caught:
        breaker.before_request()
    assert caught.value.retry_in == 10.0


def test_each_failed_probe_doubles_the_cooldown_up_to_seven_seconds_and_a_success_resets_it() -> None:
    clock = Clock()
    breaker = Breaker(3, 4.0, 40.0, clock, lambda: 0.0)
    fail(breaker, 3)
    for expected in (4.0, 7.0, 7.0, 7.0):
        assert breaker.retry_in == expected
        clock.now += expected
        breaker.failure(breaker.before_request())
    clock.now += 10
    breaker.success(breaker.before_request())
    fail(breaker, 3)
    assert breaker.retry_in == 4.0


def test_after_some_minutes_the_cooldown_grows_with_the_time_that_it_has_been_down() -> None:
    clock = Clock()
    breaker = Breaker(1, 5.0, 60.0, clock, lambda: 0.0)
    fail(breaker, 1)
    opened = clock.now
    while (down := clock.now - opened) < 7200:
        assert breaker.retry_in == pytest.approx(5.0 if down == 0 else min(max(7.0, down / 30), 60.0))
        clock.now += breaker.retry_in
        breaker.failure(breaker.before_request())


def test_cooldowns_are_drawn_from_the_upper_half_of_their_length() -> None:
    breaker = make(Clock(), draw=0.999999)
    fail(breaker, 3)
    assert 5.0 <= breaker.retry_in < 5.01


def test_an_answer_to_a_request_from_before_it_opened_counts_for_nothing() -> None:
    clock = Clock()
    breaker = make(clock)
    early = [breaker.before_request() for _ in range(5)]
    fail(breaker, 3)
    clock.now += 10
    probe = breaker.before_request()
    for permit in early[:2]:
        breaker.failure(permit)
        breaker.abandon(permit)
        breaker.success(permit)
    assert state_of(breaker) is BreakerState.HALF_OPEN
    breaker.success(probe)
    breaker.failure(early[2])
    assert breaker.consecutive_failures == 0


class BreakerMachine(RuleBasedStateMachine):
    """Any order of requests, answers, cancellations and time."""

    @initialize(threshold=st.integers(1, 4), draw=st.floats(0, 0.999))
    def begin(self, threshold: int, draw: float) -> None:
        self.clock = Clock()
        self.threshold = threshold
        self.breaker = Breaker(threshold, 10.0, 40.0, self.clock, lambda: draw)
        self.out: list[Permit] = []
        self.probe: Permit | None = None

    @rule()
    def request(self) -> None:
        before = self.breaker.state
        wait = self.breaker.retry_in
        try:
            permit = self.breaker.before_request()
        except BreakerOpen as refused:
            assert before is not BreakerState.CLOSED
            assert refused.retry_in > 0  # noqa: PT017 - whether it is refused is what is found out
            return
        assert wait == 0
        assert self.probe is None
        if before is BreakerState.OPEN:
            assert state_of(self.breaker) is BreakerState.HALF_OPEN
            self.probe = permit
        self.out.append(permit)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), kind=st.sampled_from(["success", "failure", "abandon"]))
    def answer(self, data: st.DataObject, kind: str) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        before = self.breaker.state
        getattr(self.breaker, kind)(permit)
        if self.probe is not None and permit is self.probe:
            self.probe = None
            expected = BreakerState.CLOSED if kind == "success" else BreakerState.OPEN
            assert state_of(self.breaker) is expected
        elif before is not BreakerState.CLOSED:
            assert state_of(self.breaker) is before

    @rule(seconds=st.floats(0, 60))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def the_state_is_consistent(self) -> None:
        breaker = self.breaker
        assert (breaker.state is BreakerState.HALF_OPEN) == (self.probe is not None)
        assert 0 <= breaker.retry_in <= 40
        if breaker.state is BreakerState.CLOSED:
            assert breaker.consecutive_failures < self.threshold

    def teardown(self) -> None:
        if not hasattr(self, "breaker"):
            return
        # Whatever happened: with time and one success it closes again.
        if self.probe is not None:
            self.breaker.abandon(self.probe)
        self.clock.now += 40
        self.breaker.success(self.breaker.before_request())
        assert state_of(self.breaker) is BreakerState.CLOSED


TestBreakerMachine = BreakerMachine.TestCase
