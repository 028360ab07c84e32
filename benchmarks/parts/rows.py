"""Claims and looks beside many rows: what they cost must not grow with the table."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from statistics import median as middle

from parts.figure import Figure
from parts.surroundings import Bench
from siorg_queue import Connection, QueueStore, connect

_SIZES = (1_000, 100_000)
_LARGE = 10_000_000
_PAGE = 1_000_000
_TRIALS = 20
_LEASE = timedelta(seconds=60)
# Every so many rows one is due, in all priorities; the others have been completed, as a month of work leaves them.
_FILL = """
INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, priority, status, attempts, processed_at)
SELECT 'UNIT', n, 'UPDATE', '{}', 1 + n / %(every)s %% 10, s.status, CASE s.status WHEN 'PENDING' THEN 0 ELSE 1 END,
       CASE s.status WHEN 'COMPLETED' THEN now() - make_interval(secs => n %% 2500000) END
FROM generate_series(%(first)s::int, %(last)s::int) AS n,
     LATERAL (SELECT CASE WHEN n %% %(every)s = 0 THEN 'PENDING' ELSE 'COMPLETED' END::sync_status_enum AS status) AS s
"""
_LEAST_DUE = 500
_EVERY = 50


def many_rows(bench: Bench) -> list[Figure]:
    """A claim of ten, the queue's depth and `siorg-job status` at 10³ and 10⁵ rows, with `--large` also at 10⁷."""
    figures = []
    for size in (*_SIZES, _LARGE) if bench.sizes.large else _SIZES:
        with bench.server.database() as url:
            with connect(url, application_name="bench") as connection:
                _fill(connection, size)
            figures += [
                *_cost(bench, url, f"claim of 10, {size:,} rows", _claim),
                *_cost(bench, url, f"depth, {size:,} rows", lambda store: store.depth()),
            ]
            status = bench.job(url, "http://127.0.0.1:9/doc", "status")
            most = 0.2 if size == _LARGE else None  # start included
            figures.append(Figure(f"siorg-job status, {size:,} rows", status.seconds, "s", most=most))
            figures.append(Figure(f"siorg-job status, {size:,} rows", status.cpu, "s of its CPU"))
    return figures


def _fill(connection: Connection, size: int) -> None:
    every = min(_EVERY, size // _LEAST_DUE)
    for first in range(1, size + 1, _PAGE):
        connection.execute(_FILL, {"first": first, "last": min(first + _PAGE - 1, size), "every": every})
    connection.execute("VACUUM ANALYZE siorg_sync_queue")


def _claim(store: QueueStore) -> None:
    store.claim(10, lease=_LEASE, worker="bench")


def _cost(bench: Bench, url: str, name: str, do: Callable[[QueueStore], object]) -> list[Figure]:
    """Time and pages of one call; the first, which warms up, is not counted in the time."""
    seconds = []
    before = bench.server.counts(url)
    with connect(url, application_name="bench") as connection:
        store = QueueStore(connection)
        for _ in range(_TRIALS + 1):
            started = time.monotonic()
            do(store)
            seconds.append(time.monotonic() - started)
    counts = bench.server.counts(url) - before
    return [
        Figure(name, 1000 * middle(seconds[1:]), "ms"),
        Figure(name, counts.buffers / (_TRIALS + 1), "pages looked at"),
    ]
