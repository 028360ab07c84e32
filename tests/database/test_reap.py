"""What nothing else would end is ended in pages, beside those who hold some of it."""

from __future__ import annotations

import pytest

from siorg_queue import connect
from support.queue import Queue

DANGLING = {
    "spent": {"attempts": "3"},
    "expired": {"expires_at": "now() - interval '1 h'"},
    "abandoned": {"status": "'PROCESSING'", "lease_expires_at": "now() - interval '1 h'"},
}


def test_a_page_is_no_longer_than_asked(queue: Queue) -> None:
    for number in range(3):
        for code, columns in enumerate(DANGLING.values(), 1):
            queue.insert(10 * number + code, **columns)
    assert [sum(queue.store.reap(4).values()) for _ in range(4)] == [4, 4, 1, 0]


@pytest.mark.parametrize("held", DANGLING)
def test_a_row_that_somebody_holds_is_left_for_later(queue: Queue, database_url: str, held: str) -> None:
    ids = {name: queue.insert(code, **columns) for code, (name, columns) in enumerate(DANGLING.items(), 1)}
    before = {row["id"]: row for row in queue.rows()}
    with connect(database_url, application_name="a person") as person, person.transaction():
        person.execute("SELECT FROM siorg_sync_queue WHERE id = %s FOR UPDATE", [ids[held]])
        assert sum(queue.store.reap().values()) == 2
        assert [row for row in queue.rows() if row == before[row["id"]]] == [before[ids[held]]]
    assert sum(queue.store.reap().values()) == 1
