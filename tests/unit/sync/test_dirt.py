"""What is normalised once, at parsing, is never a difference: not after it was written, and not in other dirt."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from siorg_job.siorg.model import RemoteUnit
from siorg_job.siorg.rows import parse_stored, parse_unit, read_structure
from siorg_job.sync.merge import merge, remote_organization_values, remote_unit_values
from siorg_job.sync.merge_base import next_raw
from siorg_job.sync.model import Value, Values, comparable, plain
from support.dirt import clean_row, dirty_row
from support.scripted_server import envelope


def _written(values: Values) -> dict[str, Value]:
    """The values as the database gives them back: jsonb has lists, and an empty one for what was never said."""
    read = json.loads(json.dumps(plain(values)))
    lists = ("contact_info.phones", "contact_info.emails", "contact_info.websites")
    return {field: tuple(value or ()) if field in lists else value for field, value in read.items()}


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32).map(Random), st.sampled_from([remote_unit_values, remote_organization_values]))
def test_the_same_answer_in_other_dirt_is_no_difference(random: Random, values: Callable[[RemoteUnit], Values]) -> None:
    clean = clean_row(random, 900)
    shuffled = values is remote_unit_values  # of an organization the first that fits is kept: there the order says something
    first, again = (dirty_row(random, clean, shuffled=shuffled) for _ in range(2))
    before, now = (parse_unit(envelope(value=row), 900) for row in (first, again))
    local, said = _written(values(before)), values(now)
    base = parse_stored(json.loads(json.dumps(next_raw(None, before.raw))))
    assert base is not None
    assert merge(base=values(base), local=local, remote=said) == {}
    assert merge(base=None, local=local, remote=said) == {}
    assert {field: comparable(value) for field, value in said.items()} == {field: comparable(local[field]) for field in said}
    assert before.version == now.version


@given(st.integers(0, 2**32).map(Random))
def test_a_row_is_read_alike_alone_in_a_list_and_from_storage(random: Random) -> None:
    row = dirty_row(random, clean_row(random, 900))
    alone = parse_unit(envelope(value=row), 900)
    assert read_structure(envelope("unidades", [row]), 471).units[900] == alone == parse_stored(json.loads(alone.raw))


def test_of_an_organization_what_does_not_fit_its_column_is_left_out() -> None:
    contact = {"telefone": ["9" * 51, "8" * 50], "email": ["e" * 256], "site": ["s" * 256, "t" * 255]}
    unit = parse_stored({"codigoUnidade": 471, "contato": contact, "endereco": {"logradouro": "r" * 490, "bairro": "b" * 10}})
    assert unit is not None
    values = remote_organization_values(unit)
    assert (values["phone"], values["email"], values["website"], values["address"]) == ("8" * 50, None, "t" * 255, None)
    assert (unit.phones, unit.address) == (("9" * 51, "8" * 50), f"{'r' * 490} - {'b' * 10}")
