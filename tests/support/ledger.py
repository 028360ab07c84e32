"""A ledger of everything that happens to queue rows, written by a trigger, and the rules it has to keep."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

from siorg_queue import Connection

_TABLE = """
CREATE TABLE test_ledger (
    n bigserial PRIMARY KEY, at timestamptz NOT NULL, actor text, id uuid NOT NULL, code integer NOT NULL,
    old_status text, new_status text, old_attempts integer, new_attempts integer, max_attempts integer,
    old_token bigint, new_token bigint, old_lease timestamptz, new_lease timestamptz, new_owner text
);
CREATE FUNCTION test_ledger_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO test_ledger (at, actor, id, code, old_status, new_status, old_attempts, new_attempts, max_attempts, old_token,
        new_token, old_lease, new_lease, new_owner)
    VALUES (clock_timestamp(), current_setting('ledger.actor', true), NEW.id, NEW.siorg_code, OLD.status, NEW.status,
        OLD.attempts, NEW.attempts, NEW.max_attempts, OLD.lease_token, NEW.lease_token, OLD.lease_expires_at,
        NEW.lease_expires_at, NEW.claimed_by);
    RETURN NULL;
END $$;
CREATE TRIGGER test_ledger AFTER UPDATE ON siorg_sync_queue FOR EACH ROW
    WHEN ((OLD.status, OLD.attempts, OLD.lease_token) IS DISTINCT FROM (NEW.status, NEW.attempts, NEW.lease_token))
    EXECUTE FUNCTION test_ledger_write();
"""

TERMINAL = frozenset({"COMPLETED", "FAILED", "SKIPPED", "CONFLICT"})


def install(connection: Connection) -> None:
    """Write down from now on every change of a queue row's status, attempts or lease token."""
    connection.execute(_TABLE.encode())


def acting_as(name: str) -> dict[str, str]:
    """For a job's environment: the ledger says ``name`` beside what it does."""
    return {"PGOPTIONS": f"-c ledger.actor={name}"}


def audit(connection: Connection) -> Counter[str]:
    """Check every transition against the rules of the queue; returns how often each kind happened."""
    kinds: Counter[str] = Counter()
    claimed_by_actor: dict[tuple[UUID, int], str] = {}
    wrong: list[str] = []
    for row in connection.execute("SELECT * FROM test_ledger ORDER BY n"):
        kind = _kind(row)
        if kind is None:
            wrong.append(f"not allowed: {row}")
            continue
        kinds[kind] += 1
        if kind in {"claim", "reclaim"}:
            claimed_by_actor[row["id"], row["new_token"]] = row["actor"]
        elif kind in {"finish", "retry", "release"} and row["actor"] != claimed_by_actor.get((row["id"], row["old_token"])):
            wrong.append(f"by another than its token's holder: {row}")
        if row["new_attempts"] > row["max_attempts"]:
            wrong.append(f"too many attempts: {row}")
    assert not wrong, "\n".join(wrong[:10])
    uncounted = connection.execute(
        """
        SELECT q.id, q.attempts, q.lease_token, l.claims, l.released
        FROM siorg_sync_queue AS q
        JOIN (SELECT id, count(*) FILTER (WHERE new_status = 'PROCESSING' AND old_status = 'PENDING') AS claims,
                     count(*) FILTER (WHERE new_attempts < old_attempts) AS released
              FROM test_ledger GROUP BY id) AS l USING (id)
        WHERE q.attempts <> l.claims - l.released
        """
    ).fetchall()
    assert not uncounted, uncounted[:10]
    return kinds


def _kind(row: dict[str, Any]) -> str | None:  # the rules, one a line
    old, new = row["old_status"], row["new_status"]
    tokens, attempts = row["new_token"] - row["old_token"], row["new_attempts"] - row["old_attempts"]
    lease: datetime | None = row["old_lease"]
    ran_out = lease is not None and lease <= row["at"]
    if old in TERMINAL:
        return None
    if new == "PROCESSING":
        if tokens != 1 or row["new_owner"] is None:
            return None
        if old == "PENDING":
            return "claim" if attempts == 1 else None
        return "reclaim" if ran_out and attempts == 0 else None  # a lost worker counts no attempt
    if old == "PENDING":  # ended without a claim
        return "ended" if tokens == 0 and attempts == 0 and new in {"FAILED", "SKIPPED"} else None
    if tokens == 1:  # a claim that found an item which had been alone with dead workers
        return "ended" if attempts == 0 and new == "FAILED" and ran_out else None
    if tokens != 0:
        return None
    if new == "PENDING":
        if attempts == -1:
            return "reaped" if ran_out else "release"
        return "retry" if attempts == 0 and not ran_out else None
    if attempts != 0:
        return None
    return "reaped" if ran_out else "finish"
