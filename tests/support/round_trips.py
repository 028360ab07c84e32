"""What a client asked of PostgreSQL, read from what it sent: how often it waited for an answer, and for how many statements."""

from __future__ import annotations

from dataclasses import dataclass

_ANSWERED = frozenset(b"QSH")  # a simple query, Sync, Flush: what the server sends its answers at


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Counts of one stretch of a connection's messages."""

    trips: int
    statements: int


def count(sent: bytes) -> RoundTrips:
    """Of whole messages of the frontend, from after the connection's start."""
    trips = statements = at = 0
    while at < len(sent):
        kind, length = sent[at], int.from_bytes(sent[at + 1 : at + 5], "big")
        trips += kind in _ANSWERED
        if kind == ord("Q"):
            statements += len([part for part in sent[at + 5 : at + length].split(b"; ") if part.strip()])
        statements += kind == ord("E")
        at += 1 + length
    return RoundTrips(trips, statements)
