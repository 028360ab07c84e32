"""Verification: the rows here beside SIORG's; each difference has one kind, and what has none is drift."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from siorg_job.verify import Verified, verify
from support.local_structure import ANOTHER, UFMT, World, siorg_row


def _verified(world: World, organization: int = UFMT) -> Verified:
    return asyncio.run(verify(organization, cast("Any", world.siorg), world.connection))


def _kinds(world: World) -> set[tuple[int, str, str]]:
    return {(each.code, each.field, each.kind.value) for each in _verified(world).departures}


@pytest.fixture
def world(world: World) -> World:
    """With the organization and two units, in line."""
    world.sync(UFMT, entity="ORGANIZATION")
    world.have_line(900, 901)
    return world


def test_what_is_in_line_has_no_departure(world: World) -> None:
    found = _verified(world)
    assert (found.rows, list(found.departures)) == (3, [])


def test_drift_is_named_with_both_values_and_queued_it_is_mended(world: World) -> None:
    world.siorg.change(900, nome="Nova", sigla="N")
    world.siorg.publish(siorg_row(910))
    world.siorg.remove(901)
    found = _verified(world)
    assert {(each.code, each.field, each.local, each.remote) for each in found.drift} == {
        (900, "name", "Unidade 900", "Nova"), (900, "acronym", "U900", "N"), (910, "*", None, "Unidade 910"),
        (901, "is_active", True, False),
    }  # fmt: skip
    for _ in range(2):  # twice adds nothing
        world.store.enqueue(found.items())
    assert {(code, kind) for code, _, kind in _kinds(world)} == {(900, "waiting"), (910, "waiting"), (901, "waiting")}
    world.drain()
    assert _kinds(world) == set()


def test_each_departure_has_the_first_kind_that_applies(world: World) -> None:
    world.register(ANOTHER)
    world.have(*range(902, 910))
    world.siorg.publish(siorg_row(950, ANOTHER, organization=ANOTHER))
    world.edit(902, name="Minha")
    world.edit(903, name="Minha")
    world.sync_changed(903, nome="Nova")
    world.edit(904, name="Minha")
    item = world.sync_changed(904, nome="Nova")
    world.store.skip_conflict(item["id"])
    world.siorg.change(905, sigla="X" * 51)
    world.sync(905)
    world.sync_changed(907, parent=950)
    world.sync_changed(908, organization=423, parent=423)
    world.sync_changed(909, parent=999)
    world.siorg.change(906, nome="Nova")
    world.enqueue(906)
    assert _kinds(world) == {
        (902, "name", "edited"), (903, "name", "conflict"), (904, "name", "conflict"), (905, "*", "failed"),
        (906, "name", "waiting"), (907, "parent", "outside"), (908, "is_active", "outside"), (909, "parent", "failed"),
    }  # fmt: skip


def test_what_was_touched_meanwhile_is_looked_at_again(world: World) -> None:
    world.siorg.change(901, nome="Nova")
    structure = world.siorg.structure

    async def and_then_both_change(organization: int) -> Any:
        answer = await structure(organization)
        world.siorg.change(901, nome="Ainda mais nova")
        world.edit(901, name="Ainda mais nova")
        return answer

    world.siorg.structure = and_then_both_change  # type: ignore[method-assign]
    assert _kinds(world) == set()
