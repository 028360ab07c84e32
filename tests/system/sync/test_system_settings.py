"""The settings that people write into the database, in whatever form they write them."""

from __future__ import annotations

import pytest

from siorg_job.database.system_settings import is_enabled, read_boolean, read_whole_number
from support.job import job_environment, run_job
from support.local_structure import World, siorg_row


@pytest.mark.parametrize("value", [True, "true", " True ", "TRUE\n", "on", "Yes", "1", 1])
def test_every_word_for_true_is_true(world: World, value: object) -> None:
    world.setting("siorg.sync_enabled", value)
    assert is_enabled(world.connection)
    assert read_boolean("a", value, unset=False, unreadable=False)


@pytest.mark.parametrize("value", [False, "false", "False ", "OFF", "no", "0", 0])
def test_every_word_for_false_is_false(world: World, value: object) -> None:
    world.setting("siorg.sync_enabled", value)
    assert not is_enabled(world.connection)
    assert not read_boolean("a", value, unset=True, unreadable=True)


@pytest.mark.parametrize("value", ["perhaps", "", 2, 1.5, [True], {}])
def test_what_cannot_be_read_falls_to_the_careful_side(world: World, value: object) -> None:
    world.setting("siorg.sync_enabled", value)
    assert not is_enabled(world.connection)
    assert read_boolean("siorg.hierarchy_strict_mode", value, unset=False, unreadable=True)
    assert read_whole_number("units.max_hierarchy_depth", [value], unset=10) == 10


def test_a_setting_that_is_not_there_has_its_default(world: World) -> None:
    world.connection.execute("DELETE FROM system_settings")
    assert is_enabled(world.connection)
    assert not read_boolean("a", None, unset=False, unreadable=True)


@pytest.mark.parametrize(("value", "number"), [(12, 12), ("12", 12), (" 12 ", 12), (12.0, 12), ("0", 10), (-1, 10), (True, 10)])
def test_whole_numbers_are_read_from_text_too(value: object, number: int) -> None:
    assert read_whole_number("units.max_hierarchy_depth", value, unset=10) == number


def test_strict_mode_and_depth_are_read_from_texts(world: World) -> None:
    world.siorg.publish(siorg_row(900), siorg_row(901), siorg_row(902, 901))
    world.sync(900, 901, 902)
    world.setting("siorg.hierarchy_strict_mode", "true")
    world.siorg.change(902, parent=900)
    assert world.sync(902)["status"] == "CONFLICT"
    world.setting("units.max_hierarchy_depth", "1")
    world.siorg.publish(siorg_row(910, 900))
    item = world.sync(910)
    assert item["status"] == "FAILED"
    assert "allows 1" in item["last_error"]


def test_an_unreadable_switch_is_told_with_what_is_allowed(world: World) -> None:
    world.setting("siorg.sync_enabled", "perhaps")
    world.enqueue(900)
    done = run_job("run", env=job_environment(world.url, "http://127.0.0.1:9/doc"))
    assert world.statuses() == {900: "PENDING"}
    for word in ("siorg.sync_enabled", "perhaps", "true", "false"):
        assert word in done.stderr
