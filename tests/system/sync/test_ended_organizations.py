"""An organization that SIORG ended or demoted: one decision of a person ends it with its units; what lives elsewhere moves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import psycopg
import pytest

from siorg_job.__main__ import main
from siorg_job.reconciliation.changes import What
from siorg_job.reconciliation.discover import Discovery, asked_for, discover, registered
from siorg_job.reconciliation.ended import Elsewhere
from siorg_job.reconciliation.preview import preview
from siorg_job.reconciliation.verify import verify
from siorg_job.siorg.errors import MalformedResponse, NotAnOrganization, NotFound
from siorg_job.siorg.model import Structure
from siorg_job.sync.limits import Limits
from support.job import job_environment, run_job
from support.local_structure import ANOTHER, UFMT, MadeUpSiorg, World, siorg_row, whole_tables
from support.simulated import row
from support.siorg_server import SiorgServer

A, B, C = ANOTHER, UFMT, 600
X = 423
"""An organization of SIORG's that is not registered here."""


class Reforming(MadeUpSiorg):
    """A SIORG that tells an organization from a unit, and from what it has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.whole: set[int] = set()
        """Ended organizations of which the structure is served as if nothing had happened."""

    async def version(self, organization: int) -> str:
        self._requested(f"version {organization}")
        self._check(organization)
        own = [one for one in self.rows.values() if str(one["codigoOrgaoEntidade"]).endswith(f"/{organization}")]
        return f"104.0.{crc32(json.dumps(own, sort_keys=True).encode()) % 10**6}"  # undone, the old one

    async def structure(self, organization: int) -> Structure:
        if organization not in self.whole:
            self._requested(f"structure {organization}")
            self._check(organization)
            self.requests.pop()
        return await super().structure(organization)

    def _check(self, code: int) -> None:
        if code not in self.rows:
            raise NotFound("não encontrada", siorg_error=102)
        if not str(self.rows[code]["codigoOrgaoEntidade"]).endswith(f"/{code}"):
            raise NotAnOrganization("não é órgão nem entidade", siorg_error=104)


def _discover(world: World, code: int = A, *, full: bool = False, elsewhere: Elsewhere | None = None) -> Discovery:
    (organization,) = registered(world.connection, [code])
    siorg, limits = cast("Any", world.siorg), world.limits
    return asyncio.run(
        discover(organization, siorg, world.connection, world.store, full=full, limits=limits, elsewhere=elsewhere)
    )


def _everything(world: World) -> None:
    for found in asked_for(world.connection, None):
        _discover(world, found.code)
    world.drain()
    world.pauses_are_over()
    world.drain()


def _end(world: World, *codes: int) -> None:
    world.siorg.remove(*codes)


def _demote(world: World, *, into: int = B, below: tuple[int, ...] = ()) -> None:
    """A is a unit now; of its units those in ``below`` stay under it, the others are gone."""
    world.siorg.publish(siorg_row(A, into, organization=into, nome="Faculdade"))
    for code, one in list(world.siorg.rows.items()):
        if code != A and str(one["codigoOrgaoEntidade"]).endswith(f"/{A}"):
            if code in below:
                world.siorg.change(code, organization=into)
            else:
                world.siorg.remove(code)


def _active(world: World) -> set[int]:
    return {code for code, unit in world.units().items() if unit["is_active"]}


def _open(world: World) -> list[tuple[str, int, str, str]]:
    rows = world.rows("SELECT * FROM siorg_sync_queue WHERE status NOT IN ('COMPLETED', 'SKIPPED') ORDER BY created_at")
    return [(row["entity_type"], row["siorg_code"], row["operation"], row["status"]) for row in rows]


def _kinds(world: World, code: int = A) -> set[tuple[str, int, str, str]]:
    found = asyncio.run(verify(code, cast("Any", world.siorg), world.connection))
    return {(each.entity_type.value, each.code, each.field, each.kind.value) for each in found.departures}


def _setting(world: World, key: str) -> Any:
    rows = world.rows("SELECT value FROM system_settings WHERE key = %s", key)
    return rows[0]["value"] if rows else None


def _command(world: World, *words: str) -> int:
    return main(["organizations", *words], {"DATABASE_URL": world.url})


@pytest.fixture
def world(world: World) -> World:
    """Three organizations in line: A with 901 below 900 and 902, B with 10, C with 20."""
    world.siorg = Reforming()
    for code in (A, C):
        world.register(code)
    world.siorg.publish(siorg_row(X, 244, organization=X))
    world.siorg.publish(
        siorg_row(900, A, organization=A), siorg_row(901, 900, organization=A), siorg_row(902, A, organization=A),
        siorg_row(10, B, organization=B), siorg_row(20, C, organization=C),
    )  # fmt: skip
    for _ in range(2):
        _everything(world)
    assert _active(world) == {900, 901, 902, 10, 20}
    world.siorg.requests.clear()
    return world


_THE_QUESTION = [("ORGANIZATION", A, "EXTINCTION", "CONFLICT")]


@pytest.mark.parametrize("how", ["ended", "demoted"])
def test_nothing_ends_before_a_person_says_so_and_one_is_asked_once(world: World, how: str) -> None:
    _end(world, A, 900, 901, 902) if how == "ended" else _demote(world)
    found = _discover(world)
    assert (found.how, found.waiting, found.added) == ("ended", 3, 1)
    assert _setting(world, f"siorg_versao:{A}") is None  # a demotion undone comes back with the old one
    for _ in range(3):
        _everything(world)
    assert _open(world) == _THE_QUESTION
    (item,) = [item for item in world.items(A) if item["status"] == "CONFLICT"]
    assert item["detected_changes"] == {"is_active": {"base": True, "local": True, "remote": False}}
    assert "3 active units" in item["last_error"]
    assert item["held_at"] is None
    assert {900, 901, 902} <= _active(world)
    assert world.organization(A)["is_active"]
    assert _kinds(world) == {
        ("ORGANIZATION", A, "is_active", "ended"),
        *[("UNIT", c, "is_active", "ended") for c in (900, 901, 902)],
    }
    tables = whole_tables(world.connection)
    assert _discover(world).added == 0
    assert {**whole_tables(world.connection), "system_settings": []} == {**tables, "system_settings": []}


def _accept_as_the_api_server(world: World) -> None:
    (item,) = [item for item in world.items(A) if item["status"] == "CONFLICT"]
    world.resolve(item["id"], "ACCEPT_SIORG")


def _accept_by_command(world: World) -> None:
    (item,) = [item for item in world.items(A) if item["status"] == "CONFLICT"]
    world.resolve_by_command(item["id"], "--accept-siorg")


def _deactivate(world: World) -> None:
    assert _command(world, "deactivate", str(A), "--by", "Ana", "--note", "Decreto", "--yes") == 0


@pytest.mark.parametrize("how", ["ended", "demoted"])
@pytest.mark.parametrize("decide", [_accept_as_the_api_server, _accept_by_command, _deactivate])
def test_one_decision_in_any_form_ends_all_of_it(world: World, how: str, decide: Any) -> None:
    _end(world, A, 900, 901, 902) if how == "ended" else _demote(world)
    _everything(world)
    told = len(world.rows("SELECT FROM siorg_history"))
    decide(world)
    world.drain()
    assert not world.organization(A)["is_active"]
    assert not {900, 901, 902} & _active(world)
    entries = world.rows("SELECT * FROM siorg_history ORDER BY ctid OFFSET %s", told)
    assert [(entry["siorg_code"], entry["change_type"], entry["requires_review"]) for entry in entries] == [
        (901, "EXTINCTION", True), (900, "EXTINCTION", True), (902, "EXTINCTION", True), (A, "EXTINCTION", True),
    ]  # fmt: skip
    assert entries[0]["previous_data"]["is_active"] is True
    assert f"organization {A}" in world.unit(900)["deactivation_reason"]
    assert _open(world) == []
    _everything(world)
    assert _open(world) == []
    assert _kinds(world) == set()


def test_who_decided_stands_beside_the_item(world: World) -> None:
    _end(world, A, 900, 901, 902)
    _discover(world)
    _deactivate(world)  # before the item that asks was ever run
    world.drain()
    (item,) = world.items(A)[-1:]
    assert (item["status"], item["error_details"]["resolved_by"], item["resolution_notes"]) == ("COMPLETED", "Ana", "Decreto")
    assert not world.organization(A)["is_active"]


def _keep_as_the_api_server(world: World) -> None:
    (item,) = [item for item in world.items(A) if item["status"] == "CONFLICT"]
    world.keep_as_the_api_server(item["id"])


def _keep_by_command(world: World) -> None:
    (item,) = [item for item in world.items(A) if item["status"] == "CONFLICT"]
    world.resolve_by_command(item["id"], "--keep-local")


@pytest.mark.parametrize("keep", [_keep_as_the_api_server, _keep_by_command])
def test_kept_it_stays_active_and_is_asked_about_again_when_siorg_ended_it_anew(world: World, keep: Any) -> None:
    rows = {code: world.siorg.rows[code] for code in (A, 900, 901, 902)}
    _end(world, *rows)
    _everything(world)
    keep(world)
    world.drain()
    for _ in range(2):
        _everything(world)
    assert _open(world) == []
    assert {900, 901, 902} <= _active(world)
    assert {kind for *_, kind in _kinds(world)} == {"edited"}
    assert _discover(world).how == "kept"
    world.siorg.rows |= rows
    _everything(world)
    assert _kinds(world) == set()
    _end(world, *rows)
    _everything(world)
    assert _open(world) == _THE_QUESTION


def test_put_off_it_is_asked_again(world: World) -> None:
    _end(world, A, 900, 901, 902)
    _everything(world)
    (item,) = [item for item in world.items(A) if item["status"] == "CONFLICT"]
    world.resolve_by_command(item["id"], "--skip")
    _everything(world)
    assert _open(world) == _THE_QUESTION


def test_an_organization_without_units_waits_too(world: World) -> None:
    _end(world, C, 20)
    world.edit(20, is_active=False)
    assert _discover(world, C).waiting == 0
    world.drain()
    assert _open(world) == [("ORGANIZATION", C, "EXTINCTION", "CONFLICT")]
    assert _command(world, "deactivate", str(C), "--yes") == 0
    world.drain()
    assert not world.organization(C)["is_active"]


@pytest.mark.parametrize("home", [X, 902], ids=["left", "promoted"])
def test_what_lives_elsewhere_goes_there_at_once(world: World, home: int) -> None:
    """One that is in no organization that is registered here any more is outside."""
    _end(world, A, 900)
    world.siorg.change(901, parent=10, organization=B)
    world.siorg.publish(siorg_row(902, X, organization=home))
    found = _discover(world)
    assert (found.waiting, len(found.items)) == (1, 3)
    world.drain()
    unit = world.unit(901)
    assert (unit["is_active"], unit["organization_code"], unit["parent_code"]) == (True, B, 10)
    assert world.history(901)[-1]["change_type"] == "HIERARCHY_CHANGE"
    assert (world.unit(902)["is_active"], world.history(902)[-1]["change_type"]) == (False, "HIERARCHY_CHANGE")
    assert _open(world) == _THE_QUESTION
    assert _kinds(world) == {
        ("ORGANIZATION", A, "is_active", "ended"), ("UNIT", 900, "is_active", "ended"), ("UNIT", 902, "is_active", "outside"),
    }  # fmt: skip
    _deactivate(world)
    world.drain()
    assert _active(world) == {901, 10, 20}


def test_a_unit_that_came_to_live_elsewhere_before_the_decision_was_carried_out_does_not_end(world: World) -> None:
    was = world.siorg.rows[901]
    _end(world, A, 900, 901, 902)
    _everything(world)
    world.siorg.publish(was)
    world.siorg.change(901, parent=B, organization=B)
    _deactivate(world)
    world.drain()
    world.drain()
    assert not world.organization(A)["is_active"]
    assert (world.unit(901)["is_active"], world.unit(901)["organization_code"]) == (True, B)
    assert [entry["change_type"] for entry in world.history(901)] == ["CREATION", "HIERARCHY_CHANGE"]


def test_structures_first_each_once_in_a_run_then_one_by_one_what_is_in_none(world: World) -> None:
    _end(world, A, 900)
    world.siorg.change(901, parent=10, organization=B)
    world.siorg.change(902, parent=X, organization=X)
    _end(world, C, 20)
    elsewhere = Elsewhere(cast("Any", world.siorg), [A, B, C], is_last=False)
    assert _discover(world, B, full=True, elsewhere=elsewhere).how == "structure"
    assert _discover(world, A, elsewhere=elsewhere).how == _discover(world, C, elsewhere=elsewhere).how == "later"
    world.siorg.requests.clear()
    elsewhere.is_last = True
    _discover(world, A, elsewhere=elsewhere)
    asked = ["version 500", "structure 500", "structure 500", "structure 600", "unit 900", "unit 902"]
    assert world.siorg.requests == asked  # B's was read before
    world.siorg.requests.clear()
    _discover(world, C, elsewhere=elsewhere)
    assert world.siorg.requests == ["version 600", "structure 600", "structure 600", "structure 500", "unit 20"]
    world.drain()
    _discover(world, A)  # once more, for something had to move
    world.siorg.requests.clear()
    assert _discover(world, A).waiting == 1
    assert world.siorg.requests == ["version 500", "structure 500", "structure 500"]


def test_two_of_329_live_elsewhere(world: World) -> None:
    units = range(1000, 1326)
    world.siorg.publish(*[siorg_row(code, (A, 900, code - 1)[code % 3], organization=A) for code in units])
    _everything(world)
    _end(world, A, 900, 901, 902, *units[2:])
    for code in units[:2]:
        world.siorg.change(code, parent=10, organization=B)
    world.siorg.requests.clear()
    assert _discover(world).waiting == 327
    assert len(world.siorg.requests) == 3 + 2 + 327
    world.drain()
    world.siorg.requests.clear()
    _deactivate(world)
    assert world.drain() == 328
    assert len(world.siorg.requests) == 328
    assert _active(world) == {*units[:2], 10, 20}


@pytest.mark.parametrize("what", ["structure", "version"])
def test_where_siorg_contradicts_itself_nothing_is_recorded(world: World, what: str) -> None:
    tables = whole_tables(world.connection)
    if what == "structure":
        row = world.siorg.rows[A]
        cast("Reforming", world.siorg).whole.add(A)
        version = cast("Any", world.siorg).version

        async def ended(organization: int) -> str:
            world.siorg.rows.pop(A, None)
            try:
                return cast("str", await version(organization))
            finally:
                world.siorg.rows[A] = row

        world.siorg.version = ended  # type: ignore[attr-defined]
    else:
        structure = world.siorg.structure

        async def none(organization: int) -> Structure:
            _end(world, A)
            return await structure(organization)

        world.siorg.structure = none  # type: ignore[method-assign]
    with pytest.raises(MalformedResponse, match="contradicts"):
        _discover(world, full=True)
    assert whole_tables(world.connection) == tables


def test_a_demotion_moves_what_goes_along_and_undone_comes_back_with_the_old_version(world: World) -> None:
    before = dict(world.siorg.rows)
    _demote(world, below=(900, 901))
    _everything(world)
    found = {code: (unit["is_active"], unit["organization_code"], unit["parent_code"]) for code in (A, 900, 901, 902)
             if (unit := world.unit(code))}  # fmt: skip
    assert found == {A: (True, B, None), 900: (True, B, A), 901: (True, B, 900), 902: (True, A, None)}
    assert [entry["change_type"] for entry in world.history(A)] == ["CREATION"]
    _deactivate(world)
    world.drain()
    assert (world.unit(902)["is_active"], world.unit(A)["is_active"], world.organization(A)["is_active"]) == (False, True, False)
    assert _open(world) == []

    world.siorg.rows.clear()
    world.siorg.rows |= before
    for _ in range(2):
        _everything(world)
    assert _discover(world).how == "returned"
    assert _kinds(world) == {("ORGANIZATION", A, "is_active", "ended")}
    assert _active(world) == {10, 20}  # in an organization that is not registered
    assert _command(world, "reactivate", str(A)) != 0  # SIORG is away from the command here
    assert world.history(A, "ORGANIZATION")[-1]["change_type"] == "CREATION"
    assert world.history(A, "ORGANIZATION")[-1]["previous_data"]["is_active"] is False
    _everything(world)
    assert _active(world) == {900, 901, 902, 10, 20}
    assert {code: world.unit(code)["organization_code"] for code in (900, 901, 902)} == dict.fromkeys((900, 901, 902), A)
    entry = world.history(902)[-1]
    assert (entry["change_type"], entry["previous_data"]["is_active"]) == ("CREATION", False)
    _everything(world)
    assert _kinds(world) == set()
    assert _open(world) == []
    _end(world, A, 900, 901, 902)  # and it may end once more
    _everything(world)
    assert _open(world) == _THE_QUESTION


def test_what_people_are_asked_about_units_of_an_ended_organization_is_part_of_the_one_decision(world: World) -> None:
    world.edit(902, name="Nossa")
    world.siorg.change(902, nome="Nova")
    _everything(world)
    assert _open(world) == [("UNIT", 902, "UPDATE", "CONFLICT")]
    _demote(world)
    _everything(world)
    assert _open(world) == _THE_QUESTION
    (over,) = world.items(902)[-1:]
    assert (over["status"], over["last_error"]) == (
        "SKIPPED", f"SIORG has ended organization {A}: it and its units are one decision",
    )  # fmt: skip


def test_what_people_were_asked_about_its_units_since_then_ends_with_the_decision(world: World) -> None:
    _end(world, A, 900, 901, 902)
    _everything(world)
    _deactivate(world)
    world.connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, status, detected_changes)"
        " VALUES ('UNIT', 902, 'UPDATE', '{}', 'CONFLICT', '{\"name\": {}}')"
    )
    world.drain()
    assert not world.organization(A)["is_active"]
    assert _open(world) == []
    assert world.items(902)[-1]["last_error"] == "the unit ended with its organization"


def test_a_unit_in_dispute_leaves_an_ended_organization(world: World) -> None:
    world.edit(902, name="Nossa")
    world.siorg.change(902, nome="Nova")
    _everything(world)
    _demote(world, into=X, below=(902,))
    _everything(world)
    assert _active(world) == {900, 901, 10, 20}
    assert _open(world) == _THE_QUESTION


def test_what_people_are_asked_about_units_of_an_inactive_organization_ends_itself(world: World) -> None:
    for code in (901, 902):
        world.edit(code, name=f"Nossa {code}")
        world.siorg.change(code, nome=f"Nova {code}")
    _everything(world)
    world.edit_organization(A, is_active=False)
    world.siorg.change(901, organization=B)
    _everything(world)
    for _ in range(2):
        _everything(world)
        assert _open(world) == [("UNIT", 901, "HIERARCHY_CHANGE", "CONFLICT")]  # one that comes to another organization
    assert world.items(902)[-1]["last_error"] == f"organization {A} is not active here: nothing of it is kept in line"
    world.siorg.change(901, organization=X)
    _everything(world)
    assert _open(world) == []


def test_undone_before_anybody_decided_the_question_ends_itself(world: World) -> None:
    before = dict(world.siorg.rows)
    _demote(world, below=(900,))
    _everything(world)
    assert _open(world) == _THE_QUESTION
    world.siorg.rows.clear()
    world.siorg.rows |= before
    for _ in range(2):
        _everything(world)
    assert _open(world) == []
    assert {900, 901, 902} <= _active(world)
    assert world.unit(900)["organization_code"] == A
    assert not world.unit(A)["is_active"]
    assert _kinds(world) == set()


MANY = range(2000, 2030)


@pytest.mark.parametrize("held_before", [False, True], ids=["at once", "held before"])
def test_no_limit_holds_what_leaves_an_ended_organization_nor_counts_it_elsewhere(world: World, *, held_before: bool) -> None:
    world.siorg.publish(*[siorg_row(code, A, organization=A) for code in MANY])
    world.siorg.publish(*[siorg_row(code, B, organization=B) for code in range(11, 15)])
    _everything(world)
    world.limits = Limits()
    for code in MANY:
        world.siorg.change(code, organization=X, parent=X)
    if held_before:
        _everything(world)
        assert len(world.decisions.held()) == len(MANY)
    _end(world, A, 900, 901, 902)
    _everything(world)
    assert (_open(world), _active(world) & {*MANY}) == (_THE_QUESTION, set())
    _end(world, 10)
    _everything(world)
    assert (_open(world), 10 in _active(world)) == (_THE_QUESTION, False)


def test_when_siorg_has_it_again_without_most_of_its_units_the_limits_are_for_it(world: World) -> None:
    rows = dict(world.siorg.rows)
    _end(world, A, 900, 901, 902)
    _everything(world)
    world.limits = Limits()
    world.siorg.publish(rows[A], rows[900])
    seen = asyncio.run(
        preview(registered(world.connection, [A]), cast("Any", world.siorg), world.connection, limits=Limits(), tables=False)
    )
    assert {(each.what, each.code) for each in seen.changes} == {(What.HELD, 901), (What.HELD, 902)}
    found = _discover(world)
    assert (found.held, found.reasons) == (2, ["2 of 3 units would end; the limit is 1"])
    world.drain()
    assert {900, 901, 902} <= _active(world)


def test_a_decision_about_what_siorg_has_again_ends_nothing(world: World) -> None:
    rows = {code: world.siorg.rows[code] for code in (A, 900, 901, 902)}
    _end(world, *rows)
    _everything(world)
    world.siorg.rows |= rows
    _deactivate(world)
    world.drain()
    assert world.organization(A)["is_active"]
    assert {900, 901, 902} <= _active(world)
    assert _open(world) == []


def test_several_at_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    _end(world, A, 900, 901, 902, C, 20)
    _everything(world)
    assert _command(world, "deactivate", str(A), str(C), "--yes") == 0
    said = capsys.readouterr().out
    assert "3 active units" in said
    assert "1 active units" in said
    world.drain()
    assert _active(world) == {10}
    assert not world.organization(A)["is_active"]
    assert not world.organization(C)["is_active"]
    assert _open(world) == []


def test_what_siorg_still_has_is_not_deactivated_and_without_a_terminal_it_has_to_be_said(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    _end(world, A, 900, 901, 902)
    _everything(world)
    for words, said in (((str(A), str(B), "--yes"), "still has"), ((str(A), "999", "--yes"), "999"), ((str(A),), "--yes")):
        assert _command(world, "deactivate", *words) == 1
        assert said in capsys.readouterr().err
    assert _open(world) == _THE_QUESTION


def test_the_list_says_what_waits_for_a_person(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {code: world.siorg.rows[code] for code in (A, 900, 901, 902)}

    def listed() -> dict[str, Any]:
        assert _command(world, "list", "--json") == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return next(row for row in found if row["siorg_code"] == A)

    assert listed()["exists_in_siorg"] is None
    _end(world, *rows)
    _everything(world)
    assert (listed()["is_active"], listed()["exists_in_siorg"]) == (True, False)
    _deactivate(world)
    world.drain()
    world.siorg.rows |= rows
    _everything(world)
    capsys.readouterr()
    assert (listed()["is_active"], listed()["exists_in_siorg"]) == (False, True)


def test_what_a_person_alone_deactivated_is_nobodys_question(world: World) -> None:
    world.edit_organization(A, is_active=False)
    assert _discover(world).how == "inactive"
    assert world.siorg.requests == [f"version {A}"]
    assert _kinds(world) == set()


def test_the_end_of_its_unit_alone_is_part_of_the_decision_and_never_fails(world: World) -> None:
    _end(world, A, 900, 901, 902)
    item = world.sync(901, operation="EXTINCTION")
    assert (item["status"], item["error_details"]["kind"]) == ("SKIPPED", "organization_ended")
    _demote(world)
    assert world.sync(901, operation="EXTINCTION")["status"] == "SKIPPED"
    assert 901 in _active(world)
    assert world.sync(A, operation="EXTINCTION", entity="ORGANIZATION")["status"] == "CONFLICT"
    assert world.sync(A, entity="ORGANIZATION")["status"] == "SKIPPED"
    assert world.organization(A)["name"] == "Outra Universidade"


def test_a_crash_between_leaves_all_or_nothing(world: World) -> None:
    _end(world, A, 900, 901, 902)
    _everything(world)
    _deactivate(world)
    world.connection.execute(
        "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'terminated' USING ERRCODE = '57P01'; END $$;"
        "CREATE TRIGGER crash BEFORE UPDATE OF is_active ON organizational_units FOR EACH ROW WHEN (NEW.siorg_code = 902)"
        " EXECUTE FUNCTION crash()"
    )
    works = world.fetched()
    with pytest.raises(psycopg.Error):
        world.apply(works)
    assert {900, 901, 902} <= _active(world)
    assert world.organization(A)["is_active"]
    world.connection.execute("DROP TRIGGER crash ON organizational_units")
    world.apply(works)
    assert not {900, 901, 902} & _active(world)
    assert not world.organization(A)["is_active"]


def test_a_unit_that_came_meanwhile_is_asked_for_too(world: World) -> None:
    _end(world, A, 900, 901, 902)
    _everything(world)
    _deactivate(world)
    works = world.fetched()
    world.edit(20, organization_id=world.organization(A)["id"])
    _end(world, 20)
    before = [item.attempts for item, _ in works]
    world.apply(works)
    assert world.organization(A)["is_active"]
    (waits,) = world.rows("SELECT attempts FROM siorg_sync_queue WHERE status = 'PENDING'")
    assert [waits["attempts"] + 1] == before, "the attempt is given back"
    world.pauses_are_over()
    world.drain()
    assert not world.organization(A)["is_active"]
    assert _active(world) == {10}


def test_what_a_person_insists_on_and_what_siorg_never_knew_stays(world: World) -> None:
    world.connection.execute("UPDATE organizational_units SET siorg_code = NULL WHERE siorg_code = 902")
    _end(world, 901, 902)
    _everything(world)
    world.edit(901, is_active=True)
    _end(world, A, 900)
    _everything(world)
    assert ("UNIT", 901, "is_active", "edited") in _kinds(world)
    _deactivate(world)
    world.drain()
    assert _active(world) == {901, 10, 20}
    assert world.rows("SELECT name FROM organizational_units WHERE is_active AND siorg_code IS NULL") == [{"name": "Unidade 902"}]


def test_open_questions_about_its_units_have_no_object_any_more(world: World) -> None:
    world.edit(900, acronym="M")
    assert world.sync_changed(900, sigla="N")["status"] == "CONFLICT"
    _end(world, A, 900, 901, 902)
    _everything(world)
    _deactivate(world)
    world.drain()
    assert _open(world) == []
    assert [item["status"] for item in world.items(900)][-1] == "SKIPPED"


def test_two_processes_hold_one_decision_each(world: World) -> None:
    _end(world, A, 900, 901, 902, C, 20)
    _everything(world)
    assert _command(world, "deactivate", str(A), str(C), "--yes") == 0
    first, second = world.claim(1), world.claim(1)
    assert len(first) == len(second) == 1
    works = [world.fetch(items) for items in (first, second)]
    for part in reversed(works):
        world.apply(part)
    assert _active(world) == {10}


def test_the_commands_say_what_waits_and_bring_it_back(world: World, tmp_path: Path) -> None:
    rows = [row(26, None, 26, codigoTipoUnidade="orgao"), *(row(code, 26, code) for code in (A, B, C))]
    rows += [row(900, A, A), row(901, 900, A), row(902, A, A), row(10, B, B), row(20, C, C)]
    (tmp_path / "siorg.json").write_text(json.dumps({"servico": {}, "unidades": rows}), encoding="utf-8")
    with SiorgServer("--snapshot", tmp_path / "siorg.json") as server:
        env = job_environment(world.url, server.url, WORKER_LINGER_SECS="0")

        def discovered() -> str:
            return run_job("discover", env=env).stderr

        discovered()
        run_job("run", env=env)
        server.control("PUT", "unit", {"code": A, "remove": True, "subtree": True})
        said = discovered()
        assert (f"siorg-job organizations deactivate {A}" in said, "units=3" in said) == (True, True), said
        run_job("run", env=env)
        assert f"siorg-job organizations deactivate {A}" in discovered()  # until somebody decides
        assert '"ended": 4' in run_job("verify", "--json", env=env).stdout
        run_job("organizations", "deactivate", str(A), env=env, code=1)
        run_job("organizations", "deactivate", str(A), "--yes", env=env)
        run_job("run", env=env)
        assert _active(world) == {10, 20}
        assert "deactivate" not in discovered()
        server.control("PUT", "snapshot", {"index": 0})
        assert f"siorg-job organizations reactivate {A}" in discovered()
        run_job("organizations", "reactivate", str(A), "--by", "Ana", env=env)
        run_job("run", env=env)
        assert _active(world) == {900, 901, 902, 10, 20}
        assert "reactivate" not in discovered()
        run_job("verify", env=env)
        server.control("PUT", "unit", {"code": A, "remove": True, "subtree": True})
        discovered()
        run_job("organizations", "deactivate", str(A), "--yes", env=env)
        run_job("run", env=env)
        assert f"siorg-job organizations reactivate {A}" in run_job("preview", "--organization", str(A), env=env).stdout
        said = run_job("organizations", "reactivate", str(A), env=env).stdout
        assert f"SIORG, when it was last asked, had no organization {A}" in said
