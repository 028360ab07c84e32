"""Cleanup: every dangling row gets its end, and rows that nobody needs any more go, in short transactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from siorg_queue import QueueStore

_PAGE = 1000  # rows a transaction


@dataclass(slots=True)
class Cleaned:
    """What a cleanup did (rows)."""

    scanned: int = 0
    deleted: int = 0
    unlinked: int = 0
    """History rows that stayed and lost their link to a deleted item."""
    ended: int = 0
    """Dangling items that were ended or opened again."""


def cleanup(
    store: QueueStore,
    *,
    retention_days: int,
    report: Callable[[Cleaned], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Cleaned:
    """End dangling rows, then walk the table once and delete expired rows and finished rows past their retention.

    Args:
        store: the queue.
        retention_days: how long COMPLETED, FAILED and SKIPPED rows are kept after they ended.
        report: told after every page.
        stopped: asked before every page; True ends the walk early, which loses nothing.
    """
    done = Cleaned()
    while not stopped():
        ended = sum(store.reap(_PAGE).values())
        done.ended += ended
        if ended < _PAGE:
            break
    after = None
    while not stopped():
        page = store.cleanup_page(after=after, retention_days=retention_days, limit=_PAGE)
        done.scanned += page.scanned
        done.deleted += page.deleted
        done.unlinked += page.unlinked
        report(done)
        after = page.last
        if page.scanned < _PAGE or after is None:
            break
    return done
