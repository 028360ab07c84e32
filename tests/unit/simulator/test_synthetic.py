"""Generated structures and their changed versions."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from siorg_simulator.answers import dump
from siorg_simulator.rows import complete_row, parse_row
from siorg_simulator.structure import History, Snapshot, differences
from siorg_simulator.synthetic import evolve, generate, level_sizes


def text(snapshot: Snapshot) -> list[str]:
    return [dump(complete_row(unit)) for unit in snapshot.units.values()]


def depths(snapshot: Snapshot, root: int = 471) -> Counter[int]:
    found = Counter[int]()
    for code in snapshot.units:
        depth, current = 0, code
        while current != root:
            current = snapshot.units[current].parent or 0
            depth += 1
            assert depth < 50
        found[depth] += 1
    return found


def test_the_model_size_has_the_models_shape() -> None:
    assert level_sizes(476) == [30, 227, 106, 77, 35]
    assert depths(generate(476)) == {0: 1, 1: 30, 2: 227, 3: 106, 4: 77, 5: 35}


def test_the_count_is_exact_and_the_root_is_one_of_them() -> None:
    for count in (1, 2, 3, 5, 17, 100, 2000, 6600):
        units = generate(count).units
        assert len(units) == count
        assert units[471].is_organization
        assert {unit.organization for unit in units.values()} == {471}
        assert all(unit.parent in units for unit in units.values() if unit.code != 471), count


def test_whatever_codes_are_drawn_the_structure_is_a_tree() -> None:
    # Each of these draws, or is, the code above the organization.
    drawn = [(1001, 1, 471), (20_001, 10, 471), (1001, 1, 668_873), (40, 0, 244)]
    for count, seed, organization in drawn:
        old = generate(count, seed=seed, organization=organization)
        for snapshot in (old, evolve(old, 20, seed=seed)):
            assert sum(depths(snapshot, organization).values()) == len(snapshot.units)
            assert snapshot.units[organization].parent not in snapshot.units


def test_same_seed_same_bytes_other_seed_other_structure() -> None:
    for seed, same in ((5, True), (6, False)):
        assert (text(generate(300, seed=seed)) == text(generate(300, seed=5))) is same
        assert (text(evolve(generate(300), 40, seed=seed)) == text(evolve(generate(300), 40, seed=5))) is same


def test_dirt_is_what_real_data_has() -> None:
    snapshot = generate(500)
    names = [unit.name or "" for unit in snapshot.units.values()]
    for mark in ("\xa0", "\r\n", "  ", "\t"):
        assert any(mark in name for name in names), mark
    assert any(name != name.strip() for name in names)
    acronyms = Counter(unit.acronym for unit in snapshot.units.values())
    assert any(acronym != acronym.strip() for acronym in acronyms if acronym)
    assert max(acronyms.values()) > 1
    assert any(unit.version is None and unit.since is None for unit in snapshot.units.values())
    order = {code: place for place, code in enumerate(snapshot.units)}
    assert any(order[unit.code] < order[unit.parent] for unit in snapshot.units.values() if unit.parent in order)
    assert order[471] in (499, 249)
    addresses = [address for row in map(json.loads, text(snapshot)) for address in row["endereco"]]
    for key in ("numero", "cep", "municipio"):
        assert {type(address[key]) for address in addresses} == {int, str}, key


def test_without_dirt_everything_is_tidy() -> None:
    plain = generate(500, dirt=False)
    seen: set[int] = {244}
    for unit in evolve(plain, 50, dirt=False).units.values():
        assert unit.parent in seen
        seen.add(unit.code)
        assert unit.name == " ".join((unit.name or "").split())
        assert unit.version
    assert max(Counter(unit.acronym for unit in plain.units.values()).values()) == 1
    for row in map(json.loads, text(plain)):
        assert all(isinstance(address["numero"], str) for address in row["endereco"])


def test_the_complete_form_has_about_the_size_of_the_real_one() -> None:
    rows = text(generate(1000))
    assert 2000 <= sum(map(len, rows)) / len(rows) <= 2600
    parsed = [json.loads(row) for row in rows]
    assert 0.7 < sum(bool(row["contato"]) for row in parsed) / len(parsed) < 0.95
    assert {row["areaAtuacao"] for row in parsed} == {"FIM", "MEIO", None}


def test_generated_rows_can_be_read_back() -> None:
    for unit in generate(50).units.values():
        row = complete_row(unit)
        assert complete_row(parse_row(row)) == row


def test_changes_are_of_every_kind_and_carry_the_new_version() -> None:
    old = generate(476)
    history = History.of([old, evolve(old, 60)])
    found = differences(history.editions[0], history.editions[1], 471)
    assert Counter(item.operation.value for item in found).keys() == {"INCLUSAO", "ALTERACAO", "EXCLUSAO"}
    assert any(item.previous_parent for item in found)
    assert any(item.unit.name != old.units[item.unit.code].name for item in found if item.unit.code in old.units)
    assert history.current.units[471].version == "108.0.0"
    assert evolve(evolve(old, 60), 10).units[471].version == "109.0.0"
    assert {item.unit.version for item in found if item.operation.value != "EXCLUSAO"} == {"108.0.0"}
    # Somewhere a unit went together with what was below it.
    gone = {item.unit.code for item in found if item.operation.value == "EXCLUSAO"}
    assert any(old.units[code].parent in gone for code in gone)


@given(st.integers(1, 60), st.integers(1, 90), st.integers(0, 5))
def test_a_changed_structure_is_whole_and_has_at_least_the_changes(count: int, changes: int, seed: int) -> None:
    old = generate(count, seed=seed)
    new = evolve(old, changes, seed=seed)
    assert all(unit.parent in new.units for unit in new.units.values() if unit.code != 471)
    assert sum(depths(new).values()) == len(new.units)
    history = History.of([old, new])
    # The root's own row differs too, by its version.
    assert len(differences(history.editions[0], history.editions[1], 471)) >= changes + 1
