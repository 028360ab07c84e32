"""What every command is given, and the exit codes they share."""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from siorg_job.settings import Settings
from siorg_queue import Connection, Decisions, QueueStore, connect, transaction
from siorg_queue.statements import load


class Exit(IntEnum):
    """Exit codes of ``siorg-job`` (75 is EX_TEMPFAIL of sysexits.h)."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    DRIFT = 3
    TRY_LATER = 75


def integer(low: int, high: int) -> Callable[[str], int]:
    """A reader of an integer from ``low`` to ``high``, for the command line."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text[:12]) <= high:
            raise argparse.ArgumentTypeError(f"{text[:20]!r}: must be an integer from {low} to {high}")
        return int(text)

    return read


at_most = integer(1, 100_000)
"""Reads a limit on a listing."""

siorg_code = integer(1, 2**31 - 1)
"""Reads a SIORG code."""


def free_text(text: str) -> str:
    """Reads what a person says, for the command line: at most 2000 characters that can be printed, line ends too."""
    if len(text) > 2000:
        raise argparse.ArgumentTypeError(f"is text of {len(text)} characters; allowed: at most 2000")
    if not "".join(text.split()).isprintable():  # which undecodable bytes are not, either
        raise argparse.ArgumentTypeError("has characters that cannot be printed; allowed: text that can")
    return text


class CommandError(Exception):
    """The command cannot do what was asked; the message says why and what to do."""

    exit_code = Exit.ERROR


class TryLater(CommandError):
    """The command cannot do it now."""

    exit_code = Exit.TRY_LATER


@dataclass(frozen=True, slots=True)
class Context:
    """Settings, and whether the process was asked to end."""

    settings: Settings
    stop: threading.Event = field(default_factory=threading.Event)
    on_stop: list[Callable[[], object]] = field(default_factory=list)
    """Called in the handler of the signal, after ``stop`` was set."""

    def database(self) -> AbstractContextManager[Connection]:
        """A connection for the length of the command.

        Raises:
            DatabaseUnavailable: no connection.
        """
        return closing(connect(self.settings.database_url.get_secret_value(), application_name="siorg-job"))

    @contextmanager
    def decisions(self) -> Iterator[Decisions]:
        """What people decide, on a connection of its own."""
        with self.database() as connection:
            yield Decisions(connection, self.settings.retry_policy())

    @contextmanager
    def queue(self) -> Iterator[QueueStore]:
        """The queue on a connection of its own."""
        with self.database() as connection:
            yield QueueStore(connection, self.settings.retry_policy())

    async def unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do ``work``, which is cancelled when the process is asked to end; returns whether it came to its own end."""
        task, loop = asyncio.create_task(work), asyncio.get_running_loop()

        def end() -> None:
            loop.call_soon_threadsafe(task.cancel)

        self.on_stop.append(end)
        try:
            if self.stop.is_set():
                task.cancel()
            await asyncio.wait([task])
        finally:
            self.on_stop.remove(end)
        if task.cancelled() and self.stop.is_set():
            return False
        task.result()
        return True


def says_yes(question: str) -> bool:
    """Ask on the terminal; whatever is no yes is a no, also the end of input and a signal to end."""
    ending = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in ending}
    heard, told = os.pipe()  # a signal just before the wait would else be noticed after it only
    os.set_blocking(told, False)
    told_before = signal.set_wakeup_fd(told)
    try:
        print(f"{question} [y/N] ", end="", flush=True)
        select.select([sys.stdin, heard], [], [])
        answer = sys.stdin.readline()
        if not answer:
            print()
        return answer.strip().casefold() in ("y", "yes", "s", "sim")
    except KeyboardInterrupt:
        print()
        return False
    finally:
        signal.set_wakeup_fd(told_before)
        os.close(heard)
        os.close(told)
        for number, handler in before.items():
            signal.signal(number, handler)


def pause_seconds(connection: Connection) -> float:
    """For how long nothing may be asked of SIORG, by anybody on this database (Retry-After); 0: no pause."""
    with transaction(connection):
        row = connection.execute(load("siorg_job.database", "shared_rate.sql")["paused"]).fetchone()
    return 0.0 if row is None else float(row["wait_seconds"])
