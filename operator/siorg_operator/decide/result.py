"""What became of a plan: the launches that the cluster took, and what it said to the others."""

from __future__ import annotations

from dataclasses import dataclass

from siorg_operator.decide.plan import Plan, Removal
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Job


@dataclass(frozen=True, slots=True)
class Result:
    """What was done of a ``Plan``."""

    plan: Plan
    launched: tuple[Job, ...]
    """Jobs that are there now, although the cluster may not show them yet."""
    ended: tuple[Removal, ...] = ()
    """Jobs that were ended now because their pods could not start."""
    refused: str = ""
    """What the cluster said to the first launch that it did not take; empty: it took all of them."""

    @property
    def reason(self) -> Reason:
        """The plan's, or that launches were refused."""
        return Reason.LAUNCH_FAILED if self.refused else self.plan.reason

    @property
    def held_back(self) -> bool:
        """Whether there is work that something else than enough Jobs keeps from being taken up."""
        return bool(self.refused) or self.plan.held_back
