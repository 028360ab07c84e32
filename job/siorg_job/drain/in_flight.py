"""The items in flight: which claim of which batch they are, and what is counted and logged when they end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from siorg_job.metrics import JobMetrics
from siorg_job.run_summary import RunSummary
from siorg_job.sync.apply import Applied
from siorg_queue import Item, LostItem, Outcome, Settled, Status, Verdict
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")


_SAID = {  # of an item that came to this status
    Status.CONFLICT: "A person has to decide: siorg-job conflicts",
    Status.SKIPPED: "Item skipped",
    Status.FAILED: "Item failed",
    Status.PENDING: "Item will be tried again",
}


@dataclass(slots=True)
class Batch:
    """What one claim took, and what became of it (items)."""

    started: float
    """Monotonic seconds."""
    left: int
    outcomes: Counter[Status] = field(default_factory=Counter)
    """Without those that were given back unharmed: they did not come to an outcome."""

    def line(self) -> str:
        """The first worker's line, to the letter: people search their logs for it."""
        n = self.outcomes
        return (
            f"Batch complete: {n.total()} processed, {n[Status.COMPLETED]} succeeded,"
            f" {n[Status.FAILED] + n[Status.PENDING]} failed, {n[Status.CONFLICT]} conflicts, {n[Status.SKIPPED]} skipped"
        )


class InFlight:
    """What this process holds. An item is known by its claim: it may be lost, and claimed by us again."""

    def __init__(self, summary: RunSummary, metrics: JobMetrics) -> None:
        self._summary = summary
        self._metrics = metrics
        self._by_id: dict[UUID, tuple[Item, Batch]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, item: Item) -> bool:
        """Whether this very claim of the item is in flight."""
        return item.id in self._by_id and self._by_id[item.id][0].lease_token == item.lease_token

    @property
    def items(self) -> list[Item]:
        return [item for item, _ in self._by_id.values()]

    @property
    def is_alone(self) -> bool:
        """Whether what is held has to be worked on alone: nothing else may be claimed meanwhile."""
        return any(item.alone for item, _ in self._by_id.values())

    def add(self, items: Sequence[Item]) -> None:
        batch = Batch(time.monotonic(), len(items))
        self._summary.claimed += len(items)
        self._summary.batches += 1
        for item in items:
            if item.id in self._by_id:  # our own lease had run out, and nobody was faster than we were
                self.end(self._by_id[item.id][0], Applied())
            self._by_id[item.id] = (item, batch)
        self._summary.largest_batch = max(self._summary.largest_batch, len(items))
        self._summary.most_in_flight = max(self._summary.most_in_flight, len(self._by_id))
        self._metrics.in_flight.set(len(self._by_id))

    def count_lost(self, lost: Sequence[LostItem]) -> None:
        """A claim ended these: they kill their workers."""
        for item in lost:
            self._summary.failed += 1
            log.error(
                "Item ended: its workers died", entity_type=item.entity_type, siorg_code=item.siorg_code, reason=item.last_error
            )

    def end(self, item: Item, applied: Applied) -> bool:
        """The item has come to its end here, whatever it is; False when this claim of it was not in flight."""
        if item not in self:
            return False
        _, batch = self._by_id.pop(item.id)
        settled = applied.settled.get(item.id)
        now = time.monotonic()
        if settled is None:
            self._summary.stale += 1
            log.warning(
                "A late result was refused: the lease had run out, nothing was changed",
                entity_type=item.entity_type,
                siorg_code=item.siorg_code,
                lease_token=item.lease_token,
            )
        else:
            self._count(item, settled, applied.verdicts.get(item.id), batch)
            self._summary.item_took(now - batch.started)
            self._metrics.operations.labels(item.entity_type, item.operation, settled.status).inc()
            self._metrics.operation_seconds.labels(item.entity_type, item.operation).observe(now - batch.started)
        self._metrics.in_flight.set(len(self._by_id))
        batch.left -= 1
        if batch.left == 0:
            processed = batch.outcomes.total()
            self._metrics.batch_size.observe(processed)
            self._metrics.batch_seconds.observe(now - batch.started)
            if processed:
                log.info(batch.line(), seconds=round(now - batch.started, 3))
        return True

    def _count(self, item: Item, settled: Settled, verdict: Verdict | None, batch: Batch) -> None:
        status = settled.status
        if status is Status.PENDING and verdict is not None and verdict.outcome is Outcome.RELEASED:
            self._summary.released += 1
            return
        batch.outcomes[status] += 1
        self._summary.count("retried" if status is Status.PENDING else status.lower())
        if status is Status.CONFLICT:
            self._metrics.conflicts.labels(item.entity_type).inc()
        if status is Status.COMPLETED:
            return
        again = {"again_in_seconds": round(settled.delay_seconds or 0, 1)} if status is Status.PENDING else {}
        log.warning(
            _SAID[status],
            entity_type=item.entity_type,
            siorg_code=item.siorg_code,
            operation=item.operation,
            attempt=item.attempts,
            of=item.max_attempts,
            reason=verdict.error if verdict is not None else None,
            **again,
        )
