"""Cleanup: every dangling row gets its end, and rows that nobody needs any more go, in short transactions."""

from __future__ import annotations

import time
from collections.abc import Callable

from siorg_queue import QueueStore
from siorg_runtime.logs import logger

log = logger("siorg_job.cleanup")

_PAGE = 1000  # rows a transaction
_PROGRESS_SECONDS = 5.0


def cleanup(store: QueueStore, *, retention_days: int, stopped: Callable[[], bool]) -> None:
    """End dangling rows, then walk the table once and delete expired rows and finished rows past their retention.

    Args:
        store: the queue.
        retention_days: how long COMPLETED, FAILED and SKIPPED rows are kept after they ended.
        stopped: asked before every page; True ends the walk early, which loses nothing.
    """
    scanned = deleted = unlinked = ended = 0
    while not stopped() and (reaped := sum(store.reap(_PAGE).values())):
        ended += reaped
    after, logged_at = None, time.monotonic()
    while not stopped():
        page = store.cleanup_page(after=after, retention_days=retention_days, limit=_PAGE)
        scanned += page.scanned
        deleted += page.deleted
        unlinked += page.unlinked
        if time.monotonic() - logged_at > _PROGRESS_SECONDS:
            logged_at = time.monotonic()
            log.info("Cleaning up", scanned=scanned, deleted=deleted)
        after = page.last
        if page.scanned < _PAGE or after is None:
            break
    log.info(
        "Cleanup complete",
        ended=ended,
        deleted=deleted,
        history_unlinked=unlinked,  # rows that stayed and lost their link to a deleted item
        scanned=scanned,
        retention_days=retention_days,
    )
