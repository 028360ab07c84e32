"""What is held, and a person's decision about it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from siorg_queue import Decisions, EntityType, NewItem, Operation, transaction
from support.queue import Queue

_END = """'{"is_active": {"local": true, "remote": false}}'"""
_NAME = """'{"name": {"local": "Reitoria", "remote": "Reitoria?"}}'"""
_HELD = {"status": "'CONFLICT'", "held_at": "now()", "last_error": "'12 of 100 units would end'"}


def test_what_is_held_is_listed_with_its_one_field_and_is_no_conflict(queue: Queue) -> None:
    end = queue.insert(1, operation="EXTINCTION", detected_changes=_END, **_HELD)
    queue.insert(2, detected_changes=_NAME, **{**_HELD, "held_at": "now() - interval '1 h'"})
    queue.insert(3, detected_changes=_NAME, status="'CONFLICT'")
    name, ends = queue.decisions.held()
    assert (name.code, name.field, name.local, name.remote) == (2, "name", "Reitoria", "Reitoria?")
    assert (ends.id, ends.entity_type, ends.code, ends.field, ends.local, ends.remote) == (
        end, EntityType.UNIT, 1, "is_active", True, False,
    )  # fmt: skip
    assert ends.reason == "12 of 100 units would end"
    assert [row.code for row in queue.decisions.held(organization=1)] == [1]
    assert [row.siorg_code for row in queue.decisions.conflicts()] == [3]
    (conflict,) = queue.decisions.conflicts(id=end)
    assert (conflict.siorg_code, type(conflict.entity_type), type(conflict.operation)) == (1, EntityType, Operation)


def test_an_end_that_is_over_keeps_no_other_from_being_held_and_one_that_waits_does(queue: Queue) -> None:
    queue.insert(1, operation="EXTINCTION", status="'COMPLETED'")
    queue.insert(2, operation="EXTINCTION")
    items = [NewItem(EntityType.UNIT, code, Operation.EXTINCTION, {}) for code in (1, 2)]
    changes = [{"is_active": {"local": True, "remote": False}}] * 2
    with transaction(queue.connection):
        queue.store.hold_within(items, changes, "12 of 100 units would end", asked_at=datetime.now(UTC))
    assert [row.code for row in queue.decisions.held()] == [1]


@pytest.mark.parametrize(
    ("decide", "decision"),
    [
        (Decisions.release_held, {"resolution": "ACCEPT_SIORG", "resolved_by": "ana"}),
        (Decisions.drop_held, {"resolution": "MERGE", "resolved_by": "ana", "field_resolutions": {"is_active": "LOCAL"}}),
    ],
)
def test_a_decision_is_about_the_rows_named_that_are_held_still(queue: Queue, decide: object, decision: object) -> None:
    held = queue.insert(1, operation="EXTINCTION", detected_changes=_END, **_HELD)
    queue.insert(2, operation="EXTINCTION", detected_changes=_END, **_HELD)
    conflict = queue.insert(3, detected_changes=_NAME, status="'CONFLICT'")
    assert callable(decide)
    for times in (1, 0):
        assert decide(queue.decisions, [held, conflict], notes="so decided", by="ana") == times
    first, second, third = queue.rows()
    assert (first["status"], first["error_details"], first["resolution_notes"]) == ("PENDING", decision, "so decided")
    assert first["held_at"] is not None
    assert (second["status"], third["status"]) == ("CONFLICT", "CONFLICT")
    assert [item.siorg_code for item in queue.claim()] == [1]
