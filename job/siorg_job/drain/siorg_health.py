"""SIORG's health as one run sees it: what a failed fetch means, when to wait, when to give up. Pure.

An item pays an attempt only for what is its own fault. One failed fetch does not say whose fault it was: SIORG may be down, one
of its endpoints may be in trouble, or it may fail at this one unit. So the item becomes a *suspect* (``suspects``) and stays in
flight until something else tells: another answer of the same endpoint, be it to the *control*, the same question about another
organization, or the breaker. A structure is no suspect's place: what it does not serve is fetched singly meanwhile.

States::

    CLOSED    SIORG answers, or was not asked yet. Items are claimed.
    SUSPECT   Fetches failed, and the endpoint has answered nobody since. Items are claimed as before; suspects are undecided.
    DOWN      The breaker is open. Items were given back, none is claimed; the control is asked as the breaker allows.
    PAUSED    SIORG asks for no requests (429, Retry-After). Nothing is claimed; what is in flight ends by itself.

Transitions::

    from       when                                                    to         and
    CLOSED     a fetch fails for a passing reason                      SUSPECT    the item is a suspect
    CLOSED     a fetch meets a 429, an open breaker or a database      CLOSED     the item is given back with its attempt (after
               that is away                                                       a 429: for the time that SIORG names)
    CLOSED     of a whole answer not one row can be used               CLOSED     likewise, for a minute
    CLOSED     a pause is on when something could be claimed           PAUSED
    SUSPECT    the endpoint answers another item                       CLOSED     suspects are given back and tried again; who
                                                                                  has been already pays: retried later
    SUSPECT    nothing else is under way, and the control is answered  CLOSED     likewise
    SUSPECT    the control meets a 429                                 CLOSED     the suspects are given back, as after any 429
    any        the breaker opens                                       DOWN       all is given back but for those who failed
                                                                                  before, or a few such items would open the
                                                                                  breaker for ever
    DOWN       the control is answered                                 CLOSED     those pay; the time without an answer runs on
                                                                                  until an item is answered
    DOWN       the control is not answered                             DOWN       those are given back too
    DOWN       no item was answered for ``unavailable_seconds``        (give up)  siorg_unavailable
    CLOSED     the same, and nothing is in flight                      (give up)  siorg_unavailable
    any        401, 403, a redirect to elsewhere                       (give up)  siorg_unavailable: a person has to act
    PAUSED     the pause is over                                       CLOSED
    PAUSED     it would last longer than ``paused_seconds``            (give up)  siorg_rate_limited
    CLOSED     429 upon 429 for longer than ``paused_seconds``         (give up)  siorg_rate_limited

DOWN goes before PAUSED, PAUSED before SUSPECT, where several hold. Giving up is the end of the run (``GiveUp``, exit 75);
with ``--forever`` both limits are infinite, and only a refused access ends it.

Clocks. Every ``now`` is this process's monotonic clock in seconds and measures lengths of time only. How long a pause lasts is
known to the database's clock alone, which all processes share; it comes in as seconds left. When an item is tried again is
the database's clock too: a verdict says how long to wait, not until when. The breaker has a clock of its own for its cooldown;
here it is asked for nothing but its state.

A process that stands still (SIGSTOP, a frozen VM) sees its monotonic clock jump: it may give up too early, which costs a new
run and no attempt. A process that dies leaves nothing behind: the next run begins CLOSED and learns anew.
"""

from __future__ import annotations

from enum import StrEnum

from siorg_job.drain.run import GiveUp
from siorg_job.drain.suspects import UNIT, Place, Suspects, Suspicion, Where
from siorg_job.fetch.failure import FetchFailure
from siorg_job.siorg.breaker import Breaker, BreakerState
from siorg_job.siorg.errors import AccessRefused, BreakerOpen, RateLimited, SiorgError, UnusableAnswer
from siorg_queue import DatabaseUnavailable, Outcome, Verdict

_RATE_LIMIT_SECONDS = 5.0  # where SIORG says 429 without Retry-After, or 0
_UNUSABLE_SECONDS = 60.0  # until an answer may have become another: nothing is known of what broke it
_PROBE_AGAIN_SECONDS = 0.05  # the breaker's cooldown is what spaces probes out


class State(StrEnum):
    CLOSED = "closed"
    SUSPECT = "suspect"
    DOWN = "down"
    PAUSED = "paused"


class SiorgHealth:
    """The state machine of the module's table. Not for use by two threads at once."""

    def __init__(self, breaker: Breaker, suspects: Suspects, *, unavailable_seconds: float, paused_seconds: float) -> None:
        """How long a run goes on without an answer while SIORG is down, and while it wants no requests."""
        self._breaker = breaker
        self._suspects = suspects
        self._unavailable_seconds = unavailable_seconds
        self._paused_seconds = paused_seconds
        self.down_reason = "SIORG is unavailable"
        """What SIORG last said or did that it counts as down for."""
        self.trouble = UNIT
        """The endpoint that failed last: what the control is to be asked at."""
        self._down_since: float | None = None
        """The first opening of the breaker since an item was answered."""
        self._limited_since: float | None = None
        """The first 429 since an item was answered."""
        self._limited_at = 0.0
        """The last one: after a long pause the first answer may take its time."""
        self._paused_since: float | None = None

    @property
    def state(self) -> State:
        if self._breaker.state is not BreakerState.CLOSED:
            return State.DOWN
        if self._paused_since is not None:
            return State.PAUSED
        return State.SUSPECT if self._suspects.of(Where.SIORG) else State.CLOSED

    @property
    def is_limited(self) -> bool:
        """Whether items met a 429, and none was answered since."""
        return self._limited_since is not None

    # -- what fetches bring -------------------------------------------------------------------------------------------

    def answered(self) -> None:
        """SIORG answered for an item, whatever the answer says."""
        self._down_since = self._limited_since = None

    def failed(self, failure: FetchFailure, *, now: float, jitter: float) -> Verdict | None:
        """What a failed fetch means for its item; None: not known yet, it is a suspect now.

        Args:
            failure: the item and what went wrong.
            now: monotonic seconds.
            jitter: 0 to 1; spreads those who met a 429 over a tenth of their pause.

        Raises:
            GiveUp: SIORG refuses access.
        """
        item, error = failure.item, failure.error
        match error:
            case AccessRefused():
                raise GiveUp("siorg_unavailable", str(error))
            case RateLimited():
                self._limited_at = now
                if self._limited_since is None:
                    self._limited_since = now
                delay = (error.retry_after or _RATE_LIMIT_SECONDS) * (1 + jitter / 10)
                return Verdict(item, Outcome.RELEASED, error=str(error), delay_seconds=delay)
            case UnusableAnswer():
                return Verdict(item, Outcome.RELEASED, error=str(error), delay_seconds=_UNUSABLE_SECONDS * (1 + jitter / 10))
            case BreakerOpen() | DatabaseUnavailable():
                return Verdict(item, Outcome.RELEASED, error=str(error))
            case _:
                self.trouble, self.down_reason = Place(Where.SIORG, failure.endpoint), str(error)
                self._suspects.add(Suspicion(item, self.trouble, error, failure.verdict()))
                return None

    # -- suspects -----------------------------------------------------------------------------------------------------

    def needs_control(self, in_flight: int) -> bool:
        """Whether nothing but the control will tell about the suspects: none of the others ``in_flight`` is under way."""
        return bool(self._suspects.of(Where.SIORG)) and len(self._suspects) >= in_flight and self.state is not State.DOWN

    def limit_suspects(self, error: RateLimited, *, now: float, jitter: float) -> list[Verdict]:
        """The control met a 429: the suspects wait as everybody does."""
        found = [FetchFailure(suspicion.item, error) for suspicion in self._suspects.of(Where.SIORG)]
        verdicts = [self.failed(failure, now=now, jitter=jitter) for failure in found]
        self._suspects.give_back({failure.item.id for failure in found})
        return [verdict for verdict in verdicts if verdict is not None]

    # -- down ---------------------------------------------------------------------------------------------------------

    def went_down(self, now: float) -> None:
        """The breaker is open."""
        if self._down_since is None:
            self._down_since = now

    def probe_seconds(self, now: float) -> float:
        """For how long a probe may still be waited for while DOWN (seconds); may be negative."""
        return self._gives_up_at - now

    def probe_failed(self, error: SiorgError, now: float) -> float:
        """How long to wait before the next probe (seconds).

        Raises:
            GiveUp: SIORG refuses access, or the breaker rests for longer than this run waits.
        """
        if isinstance(error, AccessRefused):
            raise GiveUp("siorg_unavailable", str(error))
        if isinstance(error, BreakerOpen):
            if now + error.retry_in > self._gives_up_at:
                raise self._unavailable()
            return error.retry_in + 0.01
        self.down_reason = str(error)
        if isinstance(error, RateLimited):
            return min(error.retry_after or _RATE_LIMIT_SECONDS, max(self._gives_up_at - now, 0.1))
        return _PROBE_AGAIN_SECONDS

    @property
    def _gives_up_at(self) -> float:
        assert self._down_since is not None  # asked only while DOWN
        return self._down_since + self._unavailable_seconds

    def _unavailable(self) -> GiveUp:
        return GiveUp("siorg_unavailable", f"SIORG is unavailable: {self.down_reason}")

    # -- pauses, and the end of patience ------------------------------------------------------------------------------

    def paused(self, seconds: float, now: float) -> None:
        """Nothing is claimed, for nobody may send for another ``seconds``; 0: the pause is over.

        Raises:
            GiveUp: that is longer than this run waits.
        """
        if seconds <= 0:
            self._paused_since = None
            return
        if self._paused_since is None:
            self._paused_since = now
        since = self._paused_since if self._limited_since is None else min(self._limited_since, self._paused_since)
        if now + seconds > since + self._paused_seconds:
            raise GiveUp("siorg_rate_limited", f"SIORG wants no requests for another {seconds:.0f} s")

    def check_patience(self, now: float, *, in_flight: int) -> None:
        """Go on, unless SIORG has given nothing to work with for too long; items in flight may still bring an answer.

        Raises:
            GiveUp: it has.
        """
        is_down = self.state is State.DOWN
        if not is_down and self._limited_since is not None and self._limited_at - self._limited_since > self._paused_seconds:
            raise GiveUp("siorg_rate_limited", "SIORG wants fewer requests (HTTP 429), again and again")
        if self._down_since is not None and not in_flight and now > self._gives_up_at:
            raise (
                self._unavailable()
                if is_down
                else GiveUp("siorg_unavailable", "SIORG gave no answer to work with, again and again")
            )
