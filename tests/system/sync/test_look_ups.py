"""How often a fetch asks the database what is here: once for what a structure tells, once for all who ask at the same moment."""

from __future__ import annotations

from siorg_job.sync.model import Fetched
from support.local_structure import UFMT, World, siorg_row
from support.statements import counted

_LINES = 20
_DEEP = 6
_GROUP = 30


def _publish_lines(world: World) -> list[int]:
    """Codes of units, each below the one before, in lines beside one another; children before their parents."""
    lines = [[1000 * line + level for level in range(_DEEP)] for line in range(1, _LINES + 1)]
    for line in lines:
        world.siorg.publish_line(*line)
    return [code for level in reversed(range(_DEEP)) for code in (line[level] for line in lines)]


def test_a_first_load_looks_up_once_for_each_group_what_is_here(world: World) -> None:
    codes = _publish_lines(world)
    world.enqueue(*codes, payload=siorg_row(1))
    with counted() as counts:
        world.drain(at_a_time=_GROUP)
    assert len(world.units()) == len(codes)
    groups = len(codes) // _GROUP
    asked, begun = counts.statements("test fetch") / len(codes), counts.transactions("test fetch")
    assert begun <= groups, f"{begun} transactions of the fetcher for {groups} groups"
    assert asked <= 1, f"{asked:.2f} statements of the fetcher an item, at most 1"


def test_single_fetches_at_the_same_moment_look_up_together_what_is_here(world: World) -> None:
    codes = _publish_lines(world)
    world.enqueue(*codes[:_LINES])  # the deepest, and nothing says whose they are: each is asked for by itself
    with counted() as counts:
        works = world.fetched()
    assert [len(found.ancestors) for _, found in works if isinstance(found, Fetched)] == [_DEEP - 1] * _LINES
    begun = counts.transactions("test fetch")
    assert begun < _LINES, f"{begun} look-ups for {_LINES} units below {_DEEP - 1} unknown parents each, fewer than {_LINES}"


def test_a_unit_that_names_nothing_is_not_looked_up(world: World) -> None:
    world.siorg.publish(*map(siorg_row, range(900, 910)))
    world.enqueue(*range(900, 910), payload=siorg_row(1, UFMT))
    with counted() as counts:
        world.fetched()
    assert counts.transactions("test fetch") == 0, f"{counts.transactions('test fetch')} look-ups, and nothing to find"
