"""The record after a merge: SIORG's values that are here or agreed upon, and never a person's."""

from __future__ import annotations

import pytest

from siorg_job.sync.merge_base import Base, next_record
from siorg_job.sync.model import UnitField, Value

NAME = UnitField.NAME


@pytest.mark.parametrize(
    ("here", "said", "recorded"),
    [
        ("Nova", "Nova", "Nova"),
        ("De uma pessoa", "Nova", "Velha"),
        ("De  uma\u00a0pessoa ", "De uma pessoa", "De uma pessoa"),
        (None, "Nova", "Velha"),
        ("De uma pessoa", None, "Velha"),
    ],
)
def test_what_differs_in_more_than_spaces_is_a_persons_and_stays_out_of_it(here: Value, said: Value, recorded: Value) -> None:
    assert next_record(Base({NAME: "Velha"}), {NAME: here}, {NAME: said}, decided=()).values == {NAME: recorded}


def test_what_a_person_turned_down_is_recorded_so_until_siorg_says_something_else() -> None:
    down = next_record(Base({NAME: "Velha"}), {NAME: "Minha"}, {NAME: "Nova"}, decided={NAME})
    assert (down.values, down.turned_down) == ({NAME: "Velha"}, {NAME: "Nova"})
    same = next_record(down, {NAME: "Minha"}, {NAME: "Nova"}, decided=(), turned_down=down.turned_down)
    assert same.turned_down == {NAME: "Nova"}
    other = next_record(down, {NAME: "Minha"}, {NAME: "Outra"}, decided=(), turned_down=down.turned_down)
    assert other.turned_down == {}


def test_fields_that_are_one_value_are_recorded_together() -> None:
    phones, emails = UnitField.PHONES, UnitField.EMAILS
    here: dict[str, Value] = {phones: ("1",), emails: ("a@b",)}
    said: dict[str, Value] = {phones: ("2",), emails: ("a@b",)}
    assert next_record(None, here, said, decided=(), together=[frozenset({phones, emails})]).values == {}
    assert next_record(None, here, said, decided=()).values == {emails: ("a@b",)}
