"""What was decided, and what became of it: the values that ``plan`` makes, and that are carried out, told and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from siorg_operator.decide.job_failures import Failures
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.sizing import Size
from siorg_operator.decide.state import Job, Stuck


@dataclass(frozen=True, slots=True)
class Launch:
    """A Job to be launched: its place among the Jobs that run at once, and its number in that place."""

    slot: int
    round: int


@dataclass(frozen=True, slots=True)
class Removal:
    """A Job that does not go on: it is ended, and stays as history.

    Attributes:
        name: of the Job.
        stuck: why.
        uid: of its object.
        last_words: how its worker ended, of one that has done its work in a pod that lives on: no failure.
    """

    name: str
    stuck: Stuck
    uid: str = ""
    last_words: str = ""

    @property
    def reason(self) -> Reason:
        """The word of its event."""
        return Reason.STUCK_JOB_ENDED if not self.last_words else Reason.LEFTOVER_POD_ENDED


@dataclass(frozen=True, slots=True)
class Backoff:
    """Jobs fail: nothing but single probes is launched."""

    failures: Failures
    retry_at: datetime
    """When the next probe may leave."""
    dormant: bool
    """It may leave, and nothing waits: whether the failures are over, the next work will show."""
    due: bool = False
    """It may leave, as far as the failures go."""
    probes: int = 0
    """Unfinished Jobs that will show whether they are over."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps Jobs from being launched.

    Attributes:
        reason: in one word.
        until: when it is over, where that is known.
        said: the words of whom it comes from: of the database, of a Secret.
        failures: the failures behind it.
        probes: unfinished Jobs that will show whether those are over; none while the next one may not leave.
        count: Jobs that it keeps from being launched, where it holds nothing but these.
        stopping: Jobs that are still on their way out because of it.
    """

    reason: Reason
    until: datetime | None = None
    said: str = ""
    failures: Failures | None = None
    probes: int = 0
    count: int = 0
    stopping: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now, and everything that shaped it."""

    reason: Reason
    """The decision in one word."""
    size: Size
    unfinished: int
    """Jobs that are there or on their way."""
    launches: tuple[Launch, ...] = ()
    hold: Hold | None = None
    end: tuple[Removal, ...] = ()
    stop: tuple[Job, ...] = ()
    """Jobs that are to give back what they hold, and end."""
    remove: tuple[Job, ...] = ()
    """Finished Jobs that the history limits no longer keep, and suspended ones that are not to begin any more."""
    backoff: Backoff | None = None
    recovering: Failures | None = None
    """An absence that is just over: the number of Jobs doubles."""
    predicted_drain_seconds: float | None = None
    poll_seconds: float = 0.0
    """Look again after this at the latest (to be jittered): shorter while there is work."""
    wake_seconds: float | None = None
    """Something is known to change after this, if anything is."""
    suspended: int = 0
    """Of the unfinished Jobs those whose admission is pending."""
    lost: int = 0
    """Jobs that are neither finished nor capacity."""
    unschedulable: tuple[Job, ...] = ()
    """Of the unfinished Jobs those that no node has taken yet: an autoscaler may be at it, and so it is no fault before their
    grace is over."""
    held: Mapping[str, bool] = field(default_factory=dict)
    """The Jobs that there will be, as ``Tenant.jobs``."""
    wanted: int = 0
    """Jobs that there would be, had the database connections without end."""
    rests: bool = False
    """No more are wanted, and may be at any time."""
    stopping: int = 0
    """Of the unfinished Jobs those that were told to stop, or are told so now: they take up nothing more."""

    @property
    def depth(self) -> int | None:
        """Claimable items; None: unknown."""
        return self.size.depth

    @property
    def desired(self) -> int:
        """Jobs that should be there; those that are there where the depth is unknown."""
        return self.unfinished if self.depth is None else self.size.desired

    @property
    def launch_reason(self) -> str:
        """What asked for the launches: ``Size``, ``Time``, ``MinJobs`` or ``Probe``; empty when nothing is launched."""
        return "" if not self.launches else "Probe" if self.reason is Reason.PROBING else self.size.asked_by

    @property
    def held_back(self) -> bool:
        """Whether there is work that something else than enough Jobs keeps from being taken up."""
        if self.hold is None:
            return False
        return self.depth is None or self.size.asked > self.unfinished - self.stopping or self.hold.count > 0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a ``Plan``: the launches that the cluster took, and what it said to the others."""

    plan: Plan
    launched: tuple[Job, ...]
    """Jobs that are there now, although the cluster may not show them yet."""
    ended: tuple[Removal, ...] = ()
    """Jobs that were ended now because they did not go on."""
    stopped: tuple[Job, ...] = ()
    """Jobs that were told to stop now."""
    first_discovery: str = ""
    """The name of the Job of the first discovery, if that was launched now."""
    refused: str = ""
    """What the cluster said to the first launch that it did not take; empty: it took all of them."""

    @property
    def reason(self) -> Reason:
        """The plan's, or that launches were refused."""
        return Reason.LAUNCH_FAILED if self.refused else self.plan.reason

    @property
    def held_back(self) -> bool:
        """As of the plan; launches that were refused are held back too."""
        return bool(self.refused) or self.plan.held_back
