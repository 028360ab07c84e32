"""The items in flight: which claim of which batch they are, and what is counted and told when they end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from siorg_job.metrics import JobMetrics
from siorg_job.run_summary import BatchTally, RunReport
from siorg_job.sync.apply import Applied
from siorg_queue import Item, LostItem, Outcome, Settled, Status, Verdict
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")


@dataclass(slots=True)
class _Batch:
    """What one claim took, until its last item has ended."""

    tally: BatchTally
    left: int
    started: float


@dataclass(slots=True)
class _Flight:
    """One item in flight."""

    item: Item
    batch: _Batch
    started: float


class Flights:
    """What this process holds. An item is known by its claim: it may be lost, and claimed by us again."""

    def __init__(self, report: RunReport, metrics: JobMetrics) -> None:
        """Nothing is in flight."""
        self._report = report
        self._metrics = metrics
        self._by_id: dict[UUID, _Flight] = {}

    def __len__(self) -> int:
        """How many items are in flight."""
        return len(self._by_id)

    def __contains__(self, item: Item) -> bool:
        """Whether this very claim of the item is in flight."""
        flight = self._by_id.get(item.id)
        return flight is not None and flight.item.lease_token == item.lease_token

    @property
    def ids(self) -> list[UUID]:
        """Ids of the items in flight."""
        return list(self._by_id)

    @property
    def items(self) -> list[Item]:
        """The items in flight."""
        return [flight.item for flight in self._by_id.values()]

    def take(self, items: Sequence[Item]) -> None:
        """A claim took these."""
        now = time.monotonic()
        batch = _Batch(BatchTally(), len(items), now)
        self._report.claimed += len(items)
        self._report.batches += 1
        for item in items:
            if item.id in self._by_id:  # our own lease had run out, and nobody was faster than we were
                self.end(self._by_id[item.id].item, Applied())
            self._by_id[item.id] = _Flight(item, batch, now)
        self._metrics.in_flight(len(self._by_id))

    def lose(self, lost: Sequence[LostItem]) -> None:
        """A claim ended these: their workers died too often."""
        for item in lost:
            self._report.failed += 1
            log.error(
                "Item ended: its workers died", entity_type=item.entity_type, siorg_code=item.siorg_code, reason=item.reason
            )

    def end(self, item: Item, applied: Applied) -> bool:
        """The item has come to its end here, whatever it is; False when this claim of it was not in flight."""
        if item not in self:
            return False
        flight = self._by_id.pop(item.id)
        settled = applied.settled.get(item.id)
        if settled is None:
            self._report.stale += 1
            log.warning(
                "A late result was refused: the lease had run out, nothing was changed",
                entity_type=item.entity_type,
                siorg_code=item.siorg_code,
                lease_token=item.lease_token,
            )
        else:
            self._count(item, settled, applied.verdicts.get(item.id), flight.batch.tally)
            seconds = time.monotonic() - flight.started
            self._report.item_took(seconds)
            self._metrics.operation(item.entity_type, item.operation, settled.status, seconds)
        self._metrics.in_flight(len(self._by_id))
        self._close(flight.batch)
        return True

    def _close(self, batch: _Batch) -> None:
        batch.left -= 1
        if batch.left == 0:
            seconds = time.monotonic() - batch.started
            self._metrics.batch(batch.tally.processed, seconds)
            if batch.tally.processed:
                log.info(batch.tally.line(), seconds=round(seconds, 3))

    def _count(self, item: Item, settled: Settled, verdict: Verdict | None, tally: BatchTally) -> None:
        match settled.status:
            case Status.COMPLETED:
                tally.succeeded += 1
                self._report.completed += 1
            case Status.CONFLICT:
                tally.conflicts += 1
                self._report.conflict += 1
                self._metrics.conflict(item.entity_type)
                self._tell("A person has to decide: siorg-job conflicts", item, verdict)
            case Status.SKIPPED:
                tally.skipped += 1
                self._report.skipped += 1
                self._tell("Item skipped", item, verdict)
            case Status.FAILED:
                tally.failed += 1
                self._report.failed += 1
                self._tell("Item failed", item, verdict)
            case _ if verdict is not None and verdict.outcome is Outcome.RELEASED:
                self._report.released += 1
            case _:
                tally.failed += 1
                self._report.retried += 1
                self._tell("Item will be tried again", item, verdict, again_in_seconds=round(settled.delay_seconds or 0, 1))

    def _tell(self, message: str, item: Item, verdict: Verdict | None, **fields: object) -> None:
        log.warning(
            message,
            entity_type=item.entity_type,
            siorg_code=item.siorg_code,
            operation=item.operation,
            attempt=item.attempts,
            of=item.max_attempts,
            reason=verdict.error if verdict is not None else None,
            **fields,
        )
