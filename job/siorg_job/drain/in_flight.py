"""The items in flight: which claim of which batch they are, and what is counted and logged when they end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from siorg_job.metrics import JobMetrics
from siorg_job.run_summary import RunSummary
from siorg_job.sync.apply import Applied
from siorg_queue import Item, LostItem, Outcome, Settled, Status, Verdict
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")


@dataclass(slots=True)
class Batch:
    """What one claim took, and what became of it (items)."""

    started: float
    """Monotonic seconds."""
    left: int
    succeeded: int = 0
    failed: int = 0
    """Failed for good, or to be tried again: either way this attempt failed."""
    conflicts: int = 0
    skipped: int = 0

    @property
    def processed(self) -> int:
        """Items that came to an outcome. One that was given back unharmed did not."""
        return self.succeeded + self.failed + self.conflicts + self.skipped

    def line(self) -> str:
        """The first worker's line, to the letter: people search their logs for it."""
        return (
            f"Batch complete: {self.processed} processed, {self.succeeded} succeeded, {self.failed} failed, "
            f"{self.conflicts} conflicts, {self.skipped} skipped"
        )


class InFlight:
    """What this process holds. An item is known by its claim: it may be lost, and claimed by us again."""

    def __init__(self, summary: RunSummary, metrics: JobMetrics) -> None:
        """Nothing is in flight."""
        self._summary = summary
        self._metrics = metrics
        self._by_id: dict[UUID, tuple[Item, Batch]] = {}

    def __len__(self) -> int:
        """How many items are in flight."""
        return len(self._by_id)

    def __contains__(self, item: Item) -> bool:
        """Whether this very claim of the item is in flight."""
        return item.id in self._by_id and self._by_id[item.id][0].lease_token == item.lease_token

    @property
    def items(self) -> list[Item]:
        """The items in flight."""
        return [item for item, _ in self._by_id.values()]

    def add(self, items: Sequence[Item]) -> None:
        """A claim took these."""
        batch = Batch(time.monotonic(), len(items))
        self._summary.claimed += len(items)
        self._summary.batches += 1
        for item in items:
            if item.id in self._by_id:  # our own lease had run out, and nobody was faster than we were
                self.end(self._by_id[item.id][0], Applied())
            self._by_id[item.id] = (item, batch)
        self._metrics.in_flight.set(len(self._by_id))

    def count_lost(self, lost: Sequence[LostItem]) -> None:
        """A claim ended these: their workers died too often."""
        for item in lost:
            self._summary.failed += 1
            log.error(
                "Item ended: its workers died", entity_type=item.entity_type, siorg_code=item.siorg_code, reason=item.reason
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
            self._metrics.batch_size.observe(batch.processed)
            self._metrics.batch_seconds.observe(now - batch.started)
            if batch.processed:
                log.info(batch.line(), seconds=round(now - batch.started, 3))
        return True

    def _count(self, item: Item, settled: Settled, verdict: Verdict | None, batch: Batch) -> None:
        match settled.status:
            case Status.COMPLETED:
                batch.succeeded += 1
                self._summary.completed += 1
            case Status.CONFLICT:
                batch.conflicts += 1
                self._summary.conflict += 1
                self._metrics.conflicts.labels(item.entity_type).inc()
                self._warn("A person has to decide: siorg-job conflicts", item, verdict)
            case Status.SKIPPED:
                batch.skipped += 1
                self._summary.skipped += 1
                self._warn("Item skipped", item, verdict)
            case Status.FAILED:
                batch.failed += 1
                self._summary.failed += 1
                self._warn("Item failed", item, verdict)
            case _ if verdict is not None and verdict.outcome is Outcome.RELEASED:
                self._summary.released += 1
            case _:
                batch.failed += 1
                self._summary.retried += 1
                self._warn("Item will be tried again", item, verdict, again_in_seconds=round(settled.delay_seconds or 0, 1))

    def _warn(self, message: str, item: Item, verdict: Verdict | None, **fields: object) -> None:
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
