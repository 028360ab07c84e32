"""What is written of a group is written as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from siorg_queue import Item
from support.local_structure import World, siorg_row, whole_tables


def test_a_lease_that_runs_out_while_effects_are_applied_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.have(900)
    world.siorg.publish(siorg_row(901))
    world.siorg.change(900, nome="Nova")
    ids = world.enqueue(900, 901)
    works, before = world.fetched(), whole_tables(world.connection)
    fence = world.store.fence

    def and_then_they_run_out(items: Collection[Item], **more: Any) -> dict[UUID, datetime]:
        found = fence(items, **more)
        world.connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() WHERE status = 'PROCESSING'")
        return found

    monkeypatch.setattr(world.store, "fence", and_then_they_run_out)
    assert world.apply(works).stale == set(ids)
    assert whole_tables(world.connection) == before


def test_nothing_above_a_unit_is_written_where_a_person_has_to_decide_about_it(world: World) -> None:
    world.have(900)
    world.siorg.publish(siorg_row(950))
    world.edit(900, name="Nossa")
    assert world.sync_changed(900, nome="Deles", parent=950)["status"] == "CONFLICT"
    assert world.find(950) is None


@pytest.mark.parametrize("sqlstate", ["40P01", "40001", "53200", "57P01"])
def test_passing_trouble_of_the_database_is_nobodys_fault_and_looked_for_at_no_item(world: World, sqlstate: str) -> None:
    world.connection.execute("CREATE SEQUENCE tries")  # counts also what is rolled back
    world.connection.execute(
        "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" PERFORM nextval('public.tries'); RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}'; END $$".encode()
    )
    world.connection.execute("CREATE TRIGGER trouble BEFORE INSERT ON siorg_history FOR EACH ROW EXECUTE FUNCTION trouble()")
    world.siorg.publish(*map(siorg_row, range(901, 905)))
    world.enqueue(*range(901, 905))
    works, before = world.fetched(), whole_tables(world.connection)
    with pytest.raises(psycopg.Error) as raised:
        world.apply(works)
    assert raised.value.sqlstate == sqlstate
    assert world.rows("SELECT last_value FROM tries") == [{"last_value": 1}]
    assert whole_tables(world.connection) == before
