"""Whose fault a failure is, found by comparison. Pure.

An item pays an attempt only for what is its own fault, and one failure does not say whose it was: an endpoint of SIORG may be
in trouble, a grant or a column may be missing, the worker may have a bug. What tells is whether others get past the *place*
where the item failed: the same endpoint, the same statement, the same stage of the work. Until then the item is a *suspect*:
it stays in flight, and takes no room from others.

    when                                                   then
    another one gets past the place, the first time        the item is given back and tried again: what was wrong may be over
    another one gets past the place, and it failed again   the item pays
    nothing is left to compare with, and several           the place is at fault (``common``)
    different items failed there alike for the first time
    nothing is left to compare with, and it is alone       who drains asks further (``alone``)
    nothing is left to compare with, and it failed again   the item pays: another one got past the place before

At a place of SIORG's there is always something to compare with: the same question about another organization.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from siorg_queue import Item, Outcome, Verdict


class Where(StrEnum):
    """What a place is part of."""

    SIORG = "siorg"
    DATABASE = "database"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item failed, and others may pass."""

    where: Where
    name: str
    """Of SIORG an endpoint, of the database a statement, of the worker a stage of its work."""


UNIT = Place(Where.SIORG, "unit")
FETCHING = Place(Where.WORKER, "fetch")
APPLYING = Place(Where.WORKER, "apply")


@dataclass(frozen=True, slots=True)
class Suspicion:
    """An item that failed, and nobody knows yet whose fault it was."""

    item: Item
    place: Place
    error: Exception
    verdict: Verdict
    """The item's outcome, if it was its own."""
    alike: str = ""
    """What failures of the same cause have in common."""
    above: frozenset[int] = frozenset()
    """Codes of the units that were worked on with it: one of these may be the culprit."""

    @property
    def is_known(self) -> bool:
        """Whether it ended just so before, or an attempt of it did."""
        before, now = self.item.error_details, self.verdict.details or {}
        return isinstance(before, dict) and all(before.get(key) == now.get(key) for key in ("kind", "details"))


class Suspects:
    """The suspects of one run. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._by_id: dict[UUID, Suspicion] = {}
        self._decided: list[Verdict] = []
        self._tried_again: dict[UUID, Place] = {}
        """Items that were given back once, and have not ended since; and where they had failed."""

    def __len__(self) -> int:
        return len(self._by_id) + len(self._decided)

    def add(self, suspicion: Suspicion) -> None:
        self._by_id[suspicion.item.id] = suspicion

    def of(self, *wheres: Where) -> list[Suspicion]:
        return [suspicion for suspicion in self._by_id.values() if suspicion.place.where in wheres]

    def passed(self, *places: Place) -> None:
        """Somebody got past these places just now."""
        for suspicion in [suspicion for suspicion in self._by_id.values() if suspicion.place in places]:
            item, verdict = suspicion.item, suspicion.verdict
            del self._by_id[item.id]
            if not self._is_repeated(suspicion):
                self._tried_again[item.id] = suspicion.place
                verdict = Verdict(item, Outcome.RELEASED, error=verdict.error)
            self._decided.append(verdict)

    def judged(self) -> list[Verdict]:
        """The verdicts of those that others got past since this was last called."""
        decided, self._decided = self._decided, []
        return decided

    def repeated(self) -> set[UUID]:
        """Those that failed for SIORG again."""
        return {suspicion.item.id for suspicion in self.of(Where.SIORG) if self._is_repeated(suspicion)}

    def common(self) -> list[Suspicion]:
        """Failures alike of several different items at a place of ours, whose fault it is: for nobody got past it.

        One below a unit that failed too says nothing of its own.
        """
        groups: dict[tuple[Place, str], list[Suspicion]] = defaultdict(list)
        for suspicion in self.alone():
            groups[suspicion.place, suspicion.alike].append(suspicion)
        for group in groups.values():
            codes = {suspicion.item.siorg_code for suspicion in group}
            if len({(s.item.entity_type, s.item.siorg_code) for s in group if s.above.isdisjoint(codes)}) > 1:
                return group
        return []

    def alone(self) -> list[Suspicion]:
        """All that failed at a place of ours for the first time."""
        ours = self.of(Where.DATABASE, Where.WORKER)
        return [suspicion for suspicion in ours if not self._is_repeated(suspicion)]

    def give_back(self, ids: Collection[UUID]) -> None:
        """These go back to the queue undecided. Who fails for SIORG after that has failed twice."""
        for id_ in ids:
            suspicion = self._by_id.pop(id_, None)
            if suspicion is not None and suspicion.place.where is Where.SIORG:
                self._tried_again[id_] = suspicion.place
        self._decided = [verdict for verdict in self._decided if verdict.item.id not in ids]

    def ended(self, item_id: UUID) -> None:
        """The item has come to its end: whatever is heard of it later is new."""
        self._tried_again.pop(item_id, None)

    def _is_repeated(self, suspicion: Suspicion) -> bool:
        if self._tried_again.get(suspicion.item.id) == suspicion.place:
            return True
        return suspicion.place.where is not Where.SIORG and suspicion.is_known
