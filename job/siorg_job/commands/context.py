"""What every command is given, and the exit codes they share."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum

from siorg_job.retry_policy import retry_policy
from siorg_job.settings import Settings
from siorg_queue import Connection, QueueStore, connect, transaction
from siorg_queue.statements import load

_LONGEST_LISTING = 100_000


class Exit(IntEnum):
    """Exit codes of ``siorg-job`` (75 is EX_TEMPFAIL of sysexits.h)."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    TRY_LATER = 75


def at_most(text: str) -> int:
    """A limit on a listing, from the command line: 1 to 100000.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _LONGEST_LISTING:
        raise argparse.ArgumentTypeError(f"{text[:20]!r}: a whole number from 1 to {_LONGEST_LISTING}")
    return int(text)


class CommandError(Exception):
    """The command cannot do what was asked; the message says why and what to do. Exit code 1."""


@dataclass(frozen=True, slots=True)
class Context:
    """Settings, and whether the process was asked to end."""

    settings: Settings
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def database(self) -> Iterator[Connection]:
        """A connection for the length of the command.

        Raises:
            DatabaseUnavailable: no connection.
        """
        connection = connect(self.settings.database_url.get_secret_value(), application_name="siorg-job")
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def queue(self) -> Iterator[QueueStore]:
        """The queue on a connection of its own."""
        with self.database() as connection:
            yield QueueStore(connection, retry_policy(self.settings))


def pause_seconds(connection: Connection) -> float:
    """For how long nothing may be asked of SIORG, by anybody on this database (Retry-After); 0: no pause."""
    with transaction(connection):
        row = connection.execute(load("siorg_job.database", "shared_rate.sql")["paused"]).fetchone()
    return 0.0 if row is None else float(row["wait_seconds"])
