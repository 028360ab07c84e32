"""Parents before children, moves with everything below, and hierarchies that cannot be."""

from __future__ import annotations

import pytest

from support.local_structure import ANOTHER, UFMT, World, siorg_row


def _levels(world: World) -> dict[int, int]:
    return {code: unit["level"] for code, unit in world.units().items()}


def test_a_unit_directly_under_the_organization_has_no_parent(world: World) -> None:
    world.have(900)
    unit = world.unit(900)
    assert (unit["parent_id"], unit["siorg_parent_code"], unit["level"]) == (None, UFMT, 1)
    assert unit["path_names"] == f"{world.organization()['name']} > Unidade 900"


def test_children_come_before_their_parents(world: World) -> None:
    world.siorg.publish_line(900, 901, 902, 903, 904)
    world.enqueue(904, 902, 903, 900, 901)
    assert world.apply(world.fetched()).changes == 5
    assert _levels(world) == {900: 1, 901: 2, 902: 3, 903: 4, 904: 5}


def test_unknown_parents_are_fetched_and_applied_in_the_same_transaction(world: World) -> None:
    world.siorg.publish_line(900, 901, 902)
    world.enqueue(902)
    works = world.fetched()
    assert world.find(901) is None
    assert world.apply(works).changes == 3
    assert _levels(world) == {900: 1, 901: 2, 902: 3}
    assert world.siorg.requests == ["unit 902", "unit 901", "unit 900"]
    assert {entry["sync_queue_id"] for code in (900, 901, 902) for entry in world.history(code)} == {works[0][0].id}


def test_unknown_parents_come_from_the_structure_where_it_has_them_and_are_asked_for_once(world: World) -> None:
    world.register(ANOTHER)
    world.siorg.publish_line(900, 901, 902)
    world.siorg.publish(siorg_row(950, ANOTHER, organization=ANOTHER))
    world.siorg.publish(*[siorg_row(code, 902) for code in range(910, 915)], *[siorg_row(code, 950) for code in range(920, 925)])
    world.enqueue(*range(910, 915), *range(920, 925), payload=siorg_row(910, 902))
    world.drain()
    assert world.siorg.requests == ["structure 471", "unit 950"]
    assert _levels(world)[914] == 4


@pytest.mark.parametrize("parent", [950, 999])
def test_below_a_parent_outside_or_unknown_to_siorg_a_unit_hangs_under_its_organization(world: World, parent: int) -> None:
    world.register(ANOTHER)
    world.siorg.publish(siorg_row(950, ANOTHER, organization=ANOTHER))
    world.have_line(900, 901)
    assert world.sync_changed(901, parent=parent, sigla="NOVA")["status"] == "COMPLETED"
    unit = world.unit(901)
    assert (unit["parent_code"], unit["siorg_parent_code"], unit["acronym"]) == (None, parent, "NOVA")


def test_a_parent_that_siorg_has_no_longer_stays_the_parent_while_it_is_here(world: World) -> None:
    world.have_line(900, 901)
    world.siorg.remove(900)
    assert world.sync_changed(901, sigla="NOVA")["status"] == "COMPLETED"
    assert world.unit(901)["parent_code"] == 900


def test_a_new_unit_below_a_parent_outside_stands_under_its_organization(world: World) -> None:
    world.siorg.publish(siorg_row(901, 244), siorg_row(244, 26, organization=244))
    for _ in range(2):
        assert world.sync(901)["status"] == "COMPLETED"
        unit = world.unit(901)
        assert (unit["parent_id"], unit["siorg_parent_code"], unit["organization_code"]) == (None, 244, UFMT)
    assert len(world.history(901)) == 1


@pytest.mark.parametrize("operation", ["UPDATE", "HIERARCHY_CHANGE"])
def test_a_move_takes_everything_below_with_it(world: World, operation: str) -> None:
    world.have_line(900, 901, 902, 903, 904, 905)
    world.have_line(910, 911)
    assert world.sync_changed(901, parent=911, operation=operation)["status"] == "COMPLETED"
    assert _levels(world) == {900: 1, 910: 1, 911: 2, 901: 3, 902: 4, 903: 5, 904: 6, 905: 7}
    entry = world.history(901)[-1]
    assert (entry["change_type"], entry["requires_review"], entry["affected_fields"]) == ("HIERARCHY_CHANGE", True, ["parent"])
    assert (entry["previous_data"]["parent"], entry["new_data"]["parent"]) == (900, 911)
    (mapping,) = world.rows("SELECT * FROM siorg_mappings WHERE siorg_code = 903")
    assert mapping["siorg_hierarchy_path"] == [910, 911, 901, 902, 903]


def test_a_renamed_unit_or_organization_refreshes_the_paths_below(world: World) -> None:
    world.have_line(900, 901, 902, 903)
    world.sync(UFMT, entity="ORGANIZATION")
    world.sync_changed(900, nome="Nova")
    assert " > Nova > " in world.unit(903)["path_names"]
    assert world.sync_changed(UFMT, nome="Universidade Nova", entity="ORGANIZATION")["status"] == "COMPLETED"
    assert world.unit(903)["path_names"].startswith("Universidade Nova > Nova > ")


def test_a_rename_touches_no_path_but_those_below(world: World) -> None:
    world.have_line(900, 901)
    world.have_line(910, 911)
    with world.connection.transaction():
        world.connection.execute("SET LOCAL session_replication_role = 'replica'")  # no trigger mends it
        world.connection.execute("UPDATE organizational_units SET path_names = 'elsewhere' WHERE siorg_code = 911")
    world.sync_changed(900, nome="Nova")
    assert " > Nova > " in world.unit(901)["path_names"]
    assert world.unit(911)["path_names"] == "elsewhere"
    world.edit(911, name=world.unit(911)["name"])  # its trigger mends it: all paths are looked at after each test


def test_a_rename_and_moves_at_several_levels_at_once(world: World) -> None:
    world.have_line(900, 901, 902, 903)
    world.have_line(910, 911, 912, 913)
    world.siorg.change(901, parent=913, nome="A")
    world.siorg.change(903, parent=900, nome="B")
    world.siorg.change(911, nome="C")
    world.siorg.change(902, nome="D")
    world.siorg.publish(siorg_row(920, 902))
    world.sync(920, 903, 902, 901, 911)
    assert set(world.statuses().values()) == {"COMPLETED"}
    assert _levels(world) == {900: 1, 903: 2, 910: 1, 911: 2, 912: 3, 913: 4, 901: 5, 902: 6, 920: 7}


@pytest.mark.parametrize("items", [(900,), (901,), (900, 901), (901, 900)])
def test_parent_and_child_swap_places(world: World, items: tuple[int, ...]) -> None:
    world.have_line(900, 901, 902)
    world.siorg.change(901, parent=UFMT)
    world.siorg.change(900, parent=901)
    world.sync(*items)
    expected = {901: 1, 900: 1} if items == (901,) else {901: 1, 900: 2}
    assert _levels(world) == {**expected, 902: 2}


def test_a_whole_line_turns_round(world: World) -> None:
    world.have_line(900, 901, 902, 903)
    world.siorg.publish_line(903, 902, 901, 900)
    assert world.sync(900)["status"] == "COMPLETED"
    assert _levels(world) == {903: 1, 902: 2, 901: 3, 900: 4}


@pytest.mark.parametrize("parents", [{900: 901, 901: 900}, {900: 900}])
def test_a_loop_of_new_units_fails_all_of_them(world: World, parents: dict[int, int]) -> None:
    world.siorg.publish(*[siorg_row(code, parent) for code, parent in parents.items()])
    world.sync(*parents)
    assert world.statuses() == dict.fromkeys(parents, "FAILED")
    assert "loop" in world.items(900)[0]["last_error"]
    assert world.units() == {}


def test_a_loop_of_known_units_fails_all_of_them_and_moves_none(world: World) -> None:
    world.have(900, 901, 902, 903)
    before = world.units()
    world.siorg.change(900, parent=901, nome="Outra", sigla="OUT", areaAtuacao="FIM")
    world.siorg.change(901, parent=902)
    world.siorg.change(902, parent=900)
    world.siorg.change(903, nome="Certa")
    world.sync(900, 901, 902, 903)
    assert world.statuses() == {900: "FAILED", 901: "FAILED", 902: "FAILED", 903: "COMPLETED"}
    after = world.units()
    assert [after[code] for code in (900, 901, 902)] == [before[code] for code in (900, 901, 902)]
    assert after[903]["name"] == "Certa"


def test_a_loop_seen_one_unit_at_a_time_never_becomes_one_here(world: World) -> None:
    world.have(900, 901)
    world.siorg.change(900, parent=901)
    world.siorg.change(901, parent=900, nome="Outra")
    world.sync(900)
    item = world.sync(901)
    assert item["status"] == "FAILED"
    assert "loop" in item["last_error"]
    assert world.unit(901)["name"] == "Unidade 901"


def test_nobody_runs_round_a_loop_that_somebody_made_here_by_hand(world: World) -> None:
    world.have_line(900, 901)
    with world.connection.transaction():
        world.connection.execute("SET LOCAL session_replication_role = 'replica'")
        world.connection.execute("UPDATE organizational_units SET parent_id = (SELECT id FROM organizational_units"
                                 " WHERE siorg_code = 901) WHERE siorg_code = 900")  # fmt: skip
    world.siorg.publish(siorg_row(905, 901))
    assert world.sync(905)["status"] == "COMPLETED"
    world.edit(900, parent_id=None)  # all paths are looked at after each test


def test_a_unit_too_deep_fails_alone_and_brings_no_parents_along(world: World) -> None:
    world.setting("units.max_hierarchy_depth", "3")  # likewise
    world.siorg.publish_line(900, 901, 902, 903)
    assert world.sync(903)["status"] == "FAILED"
    assert (world.units(), world.history(900)) == ({}, [])
    world.siorg.publish(siorg_row(910), siorg_row(911, 901))
    world.sync(900, 901, 902, 903, 910, 911)
    assert world.statuses() == {**dict.fromkeys([900, 901, 902, 910, 911], "COMPLETED"), 903: "FAILED"}
    assert "units.max_hierarchy_depth allows 3" in world.items(903)[-1]["last_error"]
    assert world.find(903) is None


@pytest.mark.parametrize("depth", [4, 2])  # what is below the unit would be too deep; the unit itself
def test_a_move_too_deep_fails_and_writes_nothing(world: World, depth: int) -> None:
    world.have_line(900, 901, 902)
    world.have_line(910, 911)
    world.setting("units.max_hierarchy_depth", depth)
    before = world.units()
    world.siorg.change(900, parent=911, nome="Outra", sigla="OUT")
    world.siorg.publish(siorg_row(920))
    world.sync(900, 920)
    assert world.statuses()[920] == "COMPLETED"
    item = world.items(900)[-1]
    assert (item["status"], item["error_details"]["kind"]) == ("FAILED", "too_deep")
    after = world.units()
    assert {code: after[code] for code in before} == before
    assert len(world.history(900)) == 1


def test_what_is_too_deep_already_may_still_be_renamed_above(world: World) -> None:
    world.have_line(900, 901, 902, 903)
    world.setting("units.max_hierarchy_depth", 3)
    assert world.sync_changed(900, nome="Nova")["status"] == "COMPLETED"


def test_strict_mode_makes_a_move_a_conflict_and_lets_all_else_pass(world: World) -> None:
    world.setting("siorg.hierarchy_strict_mode", "on")  # people write it as they like
    world.have(900, siorg_row(901, 900), 902)
    assert world.sync_changed(901, nome="Nova")["status"] == "COMPLETED"
    item = world.sync_changed(902, parent=901, sigla="NOVA")
    assert item["status"] == "CONFLICT"
    assert item["detected_changes"] == {"parent": {"base": UFMT, "local": UFMT, "remote": 901}}
    assert world.unit(902)["acronym"] == "U902"
    world.decide(item["id"], "ACCEPT_SIORG")
    assert world.unit(902)["parent_code"] == 901


@pytest.mark.parametrize("at_a_time", [1, 100])
@pytest.mark.parametrize("order", [(900, 901, 902, 903, 904, 905), (905, 904, 903, 902, 901, 900)])
def test_a_subtree_moves_to_another_organization_in_any_order(world: World, order: tuple[int, ...], at_a_time: int) -> None:
    world.register(ANOTHER)
    world.have_line(900, 901, 902, 903, 904, 905)
    for code in order:
        world.siorg.change(code, organization=ANOTHER)
    world.siorg.change(900, parent=ANOTHER)
    for position, code in enumerate(order):
        world.enqueue(code, priority=position + 1)
    world.drain(at_a_time=at_a_time)
    assert set(world.statuses().values()) == {"COMPLETED"}
    assert _levels(world) == {900: 1, 901: 2, 902: 3, 903: 4, 904: 5, 905: 6}
    assert {world.unit(code)["organization_code"] for code in order} == {ANOTHER}


def test_a_unit_that_leaves_its_organization_alone_stands_in_the_other(world: World) -> None:
    world.register(ANOTHER)
    world.have_line(900, 901)
    assert world.sync_changed(901, organization=ANOTHER, parent=ANOTHER)["status"] == "COMPLETED"
    unit = world.unit(901)
    assert (unit["organization_code"], unit["parent_id"]) == (ANOTHER, None)
    assert unit["path_names"].startswith("Outra Universidade > ")


# -- a database that is not ours ----------------------------------------------------------------------------------------

# Written from the description in reference/waterswamp-database.md: computes the row itself; the function goes one level
# below and no further, as the first system's did.
_WATERSWAMP = """
CREATE OR REPLACE FUNCTION waterswamp_unit_hierarchy() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    above uuid := NEW.parent_id;
    steps integer := 0;
BEGIN
    WHILE above IS NOT NULL LOOP
        steps := steps + 1;
        IF above = NEW.id THEN
            RAISE EXCEPTION 'circular hierarchy for unit %', NEW.id;
        END IF;
        SELECT parent_id INTO above FROM organizational_units WHERE id = above;
    END LOOP;
    IF steps + 1 > (SELECT (value #>> '{}')::integer FROM system_settings WHERE key = 'units.max_hierarchy_depth') THEN
        RAISE EXCEPTION 'maximum hierarchy depth exceeded';
    END IF;
    IF NEW.parent_id IS NULL THEN
        SELECT 1, ARRAY[NEW.id], o.name || ' > ' || NEW.name INTO NEW.level, NEW.path_ids, NEW.path_names
        FROM organizations o WHERE o.id = NEW.organization_id;
    ELSE
        SELECT p.level + 1, p.path_ids || NEW.id, p.path_names || ' > ' || NEW.name
        INTO NEW.level, NEW.path_ids, NEW.path_names FROM organizational_units p WHERE p.id = NEW.parent_id;
    END IF;
    RETURN NEW;
END $$;
DROP TRIGGER trg_org_unit_integrity ON organizational_units;
CREATE TRIGGER waterswamp_unit_hierarchy BEFORE INSERT OR UPDATE OF parent_id, name ON organizational_units
    FOR EACH ROW EXECUTE FUNCTION waterswamp_unit_hierarchy();
DROP FUNCTION fn_update_descendant_paths(uuid);
CREATE FUNCTION fn_update_descendant_paths(unit uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE organizational_units c
    SET level = p.level + 1, path_ids = p.path_ids || c.id, path_names = p.path_names || ' > ' || c.name
    FROM organizational_units p WHERE c.parent_id = p.id AND p.id = unit;
END $$;
"""


def test_an_existing_installations_own_trigger_and_function_do_not_matter(world: World) -> None:
    world.connection.execute(_WATERSWAMP)
    world.have_line(900, 901, 902, 903, 904)
    world.have_line(910, 911)
    world.sync(UFMT, entity="ORGANIZATION")
    world.siorg.change(901, parent=911, nome="Outra")
    world.siorg.change(900, parent=904)
    world.siorg.change(UFMT, nome="Universidade Nova")
    world.sync(901, 900)
    world.sync(UFMT, entity="ORGANIZATION")
    assert set(world.statuses().values()) == {"COMPLETED"}
    assert _levels(world) == {910: 1, 911: 2, 901: 3, 902: 4, 903: 5, 904: 6, 900: 7}


def test_what_the_database_refuses_fails_alone(world: World) -> None:
    world.connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.name = 'Proibida' THEN RAISE EXCEPTION 'this name is not allowed here'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON organizational_units FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    world.connection.execute("ALTER TABLE organizational_units ADD CONSTRAINT short CHECK (length(acronym) < 5)")
    codes = range(900, 911)
    world.have(
        *[siorg_row(code, nome=f"Unidade {code}" if code != 903 else "Proibida", sigla="C") for code in codes if code != 904],
        siorg_row(904, sigla="LONGA"),
    )
    assert world.statuses() == {**dict.fromkeys(codes, "COMPLETED"), 903: "FAILED", 904: "FAILED"}
    for code, said, sqlstate in ((903, "this name is not allowed here", "P0001"), (904, "short", "23514")):
        (item,) = world.items(code)
        assert said in item["last_error"]
        assert item["error_details"]["details"]["sqlstate"] == sqlstate
        assert world.history(code) == []
