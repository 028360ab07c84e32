"""Who keeps VACUUM from removing dead row versions: the queue changes each row several times, and every claim reads past them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from siorg_job.doctor.findings import Finding, ok, warning
from siorg_job.settings import Settings
from siorg_queue import Connection, query
from siorg_queue.statements import load

OLD_SECONDS = 600.0
"""From here on dead versions pile up: a busy queue makes thousands a second."""
_OLD_TRANSACTIONS = 100_000
"""The same for what has no time of its own: a replica's feedback, a replication slot."""


def held_back(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Transactions and replicas that have kept dead row versions for long."""
    for row in query(connection, load("siorg_job.doctor", "doctor.sql")["keep_dead_rows"]):
        if row["seconds"] is not None and row["seconds"] >= OLD_SECONDS:
            since = f"for {timedelta(seconds=int(row['seconds']))}"
        elif row["transactions"] is not None and row["transactions"] >= _OLD_TRANSACTIONS:
            since = f"for {row['transactions']:,} transactions"
        else:
            continue
        sentence = f"{row['who']} has kept VACUUM from removing dead rows {since}: claims get slower until it ends"
        yield warning(sentence, row["ends_it"])
    (seen,) = query(connection, load("siorg_job.doctor", "doctor.sql")["sees_sessions"])
    if not seen["sees_all"]:
        yield ok(
            "how long others' transactions have been open, and so kept VACUUM from removing dead rows, this role cannot see"
            f" (GRANT pg_read_all_stats TO {seen['role']}; shows it)"
        )
