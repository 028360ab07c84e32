"""The settings that people write into the database, in whatever form they write them."""

from __future__ import annotations

from siorg_queue.system_settings import is_enabled, read_boolean, read_whole_number
from support.local_structure import World

_TRUE = (True, "true", " True ", "TRUE\n", "on", "Yes", "1", 1)
_FALSE = (False, "false", "False ", "OFF", "no", "0", 0)
_UNREADABLE: tuple[object, ...] = ("perhaps", "", 2, 1.5, [True], {})
_NUMBERS = ((12, 12), ("12", 12), (" 12 ", 12), (12.0, 12), ("0", 10), (-1, 10), (True, 10), ([12], 10), ("twelve", 10))


def test_every_word_for_true_and_false_is_read_and_the_rest_falls_to_the_careful_side(world: World) -> None:
    for values, enabled in ((_TRUE, True), (_FALSE, False), (_UNREADABLE, False)):
        for value in values:
            world.setting("siorg.sync_enabled", value)
            assert is_enabled(world.connection) is enabled, value
    world.connection.execute("DELETE FROM system_settings")
    assert is_enabled(world.connection)
    for unset in (True, False):
        assert all(read_boolean("a", value, unset=unset, unreadable=False) for value in _TRUE)
        assert not any(read_boolean("a", value, unset=unset, unreadable=True) for value in _FALSE)
        assert all(read_boolean("a", value, unset=unset, unreadable=True) for value in _UNREADABLE)
        assert read_boolean("a", None, unset=unset, unreadable=not unset) is unset


def test_whole_numbers_are_read_from_text_too() -> None:
    read = {repr(value): read_whole_number("units.max_hierarchy_depth", value, unset=10) for value, _ in _NUMBERS}
    assert read == {repr(value): number for value, number in _NUMBERS}
