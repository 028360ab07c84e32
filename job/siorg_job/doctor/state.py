"""What stands in the tables: settings of people, organizations, a pause, the queue."""

from __future__ import annotations

import re
from collections.abc import Iterator

from siorg_job.doctor.findings import Finding, error, ok, warning
from siorg_job.settings import Settings
from siorg_queue import Connection, QueueStore, transaction
from siorg_queue.statements import load
from siorg_queue.system_settings import BOOLEAN_WORDS, MAX_DEPTH, STRICT_HIERARCHY, SYNC_ENABLED, as_boolean, read_settings

_DEEPEST = 13  # levels: the deepest federal structure of 2016 had 12 below the top
_UNSET_DEPTH = 10


def settings(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Rows of ``system_settings`` that commands and the trigger of units read."""
    with transaction(connection):
        values = read_settings(connection, [SYNC_ENABLED, STRICT_HIERARCHY, MAX_DEPTH])
    if (enabled := values.get(SYNC_ENABLED)) is not None and not as_boolean(enabled):
        if as_boolean(enabled) is None:
            yield error(
                f"run and discover do nothing: {_unreadable(SYNC_ENABLED, enabled, BOOLEAN_WORDS)}", _set(SYNC_ENABLED, "true")
            )
        else:
            yield warning(f"run and discover do nothing: {SYNC_ENABLED} is false", _set(SYNC_ENABLED, "true"))
    if (strict := values.get(STRICT_HIERARCHY)) is not None and as_boolean(strict) is None:
        sentence = f"every move is a conflict: {_unreadable(STRICT_HIERARCHY, strict, BOOLEAN_WORDS)}"
        yield warning(sentence, _set(STRICT_HIERARCHY, "false"))
    yield _depth(values.get(MAX_DEPTH))


def _depth(value: object) -> Finding:
    # As the trigger reads it, which casts the text: 12.0 is none.
    match = re.fullmatch(r"\s*\+?([0-9]{1,9})\s*", str(value)) if value is not None else None
    depth = int(match[1]) if match else _UNSET_DEPTH if value is None else 0
    if depth <= 0:
        sentence = f"run cannot write a unit below another: {_unreadable(MAX_DEPTH, value, 'a whole number from 1')}"
        return error(sentence, _set(MAX_DEPTH, str(_DEEPEST)))
    deeper = f"; deeper units would end FAILED (the deepest federal structures have {_DEEPEST - 1} levels)"
    return ok(f"{MAX_DEPTH} is {depth}{deeper if depth < _DEEPEST else ''}")


def _unreadable(key: str, value: object, allowed: str) -> str:
    return f"{key} cannot be read, it is {repr(value)[:80]} (allowed: {allowed})"


def _set(key: str, value: str) -> str:
    return f"UPDATE system_settings SET value = '{value}' WHERE key = '{key}';"  # noqa: S608 - for a person to run


def organizations(connection: Connection, _: Settings) -> Iterator[Finding]:
    with transaction(connection):
        count = len(connection.execute(load("siorg_job.sync", "read.sql")["registered"]).fetchall())
    if count:
        yield ok(f"{count} organizations are registered")
    else:
        yield error("no organization is registered", "siorg-job organizations add")


def pause(connection: Connection, _: Settings) -> Iterator[Finding]:
    with transaction(connection):
        row = connection.execute(load("siorg_job.database", "shared_rate.sql")["paused"]).fetchone()
    if row is not None and row["wait_seconds"]:
        seconds = row["wait_seconds"]
        yield warning(f"SIORG asked to be left alone (Retry-After): nothing is fetched for another {seconds:.0f} s", "wait")


def queue(connection: Connection, _: Settings) -> Iterator[Finding]:
    counts = QueueStore(connection).counts()
    of_people = f"{counts.failed} failed, {counts.conflict} conflicts, {counts.held} held"
    some = f"at least {counts.claimable}" if counts.at_least else f"{counts.claimable}"
    yield ok(f"queue: {some} claimable, {counts.processing} in work, {of_people}")
    for number, text in (
        (counts.spent, "wait with no attempts left"),
        (counts.expired, "have expired"),
        (counts.abandoned, "are held by workers that died"),
    ):
        if number:
            yield warning(f"{number} items {text}", "siorg-job cleanup ends them")
