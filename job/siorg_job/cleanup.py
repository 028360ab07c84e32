"""Cleanup: every dangling row gets its end, and rows that nobody needs any more go, in short transactions."""

from __future__ import annotations

import time
from collections.abc import Callable

from siorg_queue import QueueStore
from siorg_runtime.logs import logger

log = logger("siorg_job.cleanup")

_REAP_PAGE = 1000  # rows a transaction
_PAGE = 5000
_PROGRESS_SECONDS = 5.0


def cleanup(store: QueueStore, *, retention_days: int, stopped: Callable[[], bool]) -> None:
    """End dangling rows, then delete expired rows and finished rows past their retention, the oldest first.

    Args:
        store: the queue.
        retention_days: how long COMPLETED, FAILED and SKIPPED rows are kept after they ended.
        stopped: asked before every page; True ends it early, and the next one goes on from there.
    """
    deleted = unlinked = ended = 0
    while not stopped() and (reaped := sum(store.reap(_REAP_PAGE).values())):
        ended += reaped
    after, logged_at = None, time.monotonic()
    while not stopped():
        page = store.cleanup_page(after=after, retention_days=retention_days, limit=_PAGE)
        deleted += page.deleted
        unlinked += page.unlinked
        if time.monotonic() - logged_at > _PROGRESS_SECONDS:
            logged_at = time.monotonic()
            log.info("Cleaning up", deleted=deleted)
        is_stuck = page.last == after and not page.deleted  # all of it is in somebody else's hands: it stays for the next one
        if page.found < _PAGE or is_stuck:
            break
        after = page.last
    log.info(
        "Cleanup complete",
        ended=ended,
        deleted=deleted,
        history_unlinked=unlinked,  # rows that stayed and lost their link to a deleted item
        retention_days=retention_days,
    )
