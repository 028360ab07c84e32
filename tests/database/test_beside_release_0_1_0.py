"""A Job of release 0.1.0 and one of this version work on one database: by that release's SQL as it stood (``release_0_1_0/``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from siorg_queue import Connection, connect, transaction
from siorg_queue.migrations import available, migrate
from siorg_queue.statements import expand, load, parse
from support.local_structure import UFMT, Row, World, check_tree, siorg_row

_FROZEN = Path(__file__).parent / "release_0_1_0"
_MIGRATIONS_THEN = 4


@cache
def _statements(file: str) -> Mapping[str, str]:
    texts = {name: parse((_FROZEN / f"{name}.sql").read_text(encoding="utf-8")) for name in (file, "predicates")}
    return {name: expand(sql, {**texts[file], **texts["predicates"]}) for name, sql in texts[file].items()}


class OldJob:
    """What a Job of the release did, statement by statement."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def run(self, file: str, name: str, **parameters: Any) -> list[dict[str, Any]]:
        cursor = self.connection.execute(_statements(file)[name].encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def enqueue(self, *codes: int) -> None:
        many = len(codes)
        self.run(
            "produce", "enqueue", entity_types=["UNIT"] * many, codes=list(codes), operations=["UPDATE"] * many,
            priorities=[5] * many, payloads=[Jsonb({})] * many, delays=[0.0] * many, max_attempts=3,
        )  # fmt: skip

    def claim(self, limit: int) -> list[dict[str, Any]]:
        return self.run("claim", "claim", limit=limit, lease_seconds=60.0, worker="0.1.0")

    def work(self, rows: Mapping[int, Row], limit: int) -> int:
        """Claim, and write SIORG's name and acronym in one transaction with history and outcomes; returns how many."""
        items = self.claim(limit)
        if not items:
            return 0
        (asked,) = self.run("read", "clock")
        with self.connection.transaction():
            self.run("lease", "fence", ids=[item["id"] for item in items], tokens=[item["lease_token"] for item in items])
            units = self.run("read", "units", codes=[item["siorg_code"] for item in items], local_ids=[None] * len(items))
            found = {unit["code"]: unit for unit in units}
            after = [self._after(found[item["siorg_code"]], rows[item["siorg_code"]], asked["now"]) for item in items]
            self.run("write", "relocate_units", rows=Jsonb(after))
            self.run("write", "update_units", rows=Jsonb(after))
            self.run("write", "upsert_mappings", rows=Jsonb(after))
            self.run("write", "insert_history", rows=Jsonb([self._told(item, found, after) for item in items]))
            self.run(
                "lease", "finish", ids=[item["id"] for item in items], tokens=[item["lease_token"] for item in items],
                outcomes=["COMPLETED"] * len(items), local_ids=[found[item["siorg_code"]]["id"] for item in items],
                max_attempts=3, retry_base_seconds=1.0, retry_max_seconds=60.0, **_nothing(len(items)),
            )  # fmt: skip
        return len(items)

    def _after(self, unit: dict[str, Any], row: Row, asked_at: Any) -> dict[str, Any]:
        kept = (
            "organization_id",
            "parent_id",
            "category_id",
            "unit_type_id",
            "siorg_parent_code",
            "url",
            "activity_area",
            "contact_info",
        )
        columns = {key: str(unit[key]) if key.endswith("_id") and unit[key] else unit[key] for key in kept}
        said = {"name": row["nome"], "acronym": row["sigla"], "version": row["versaoConsulta"], "base_raw": row}
        return {
            "id": str(unit["id"]),
            "code": unit["code"],
            "is_active": True,
            **columns,
            **said,
            "synced_at": asked_at.isoformat(),
        }

    def _told(self, item: dict[str, Any], found: dict[int, Any], after: list[dict[str, Any]]) -> dict[str, Any]:
        unit = found[item["siorg_code"]]
        now = next(row for row in after if row["code"] == item["siorg_code"])
        return {
            "entity_type": "UNIT", "siorg_code": item["siorg_code"], "local_id": str(unit["id"]), "change_type": "UPDATE",
            "previous_data": {"name": unit["name"]}, "new_data": {"name": now["name"]}, "affected_fields": ["name"],
            "siorg_version": now["version"], "sync_queue_id": str(item["id"]), "requires_review": False,
        }  # fmt: skip


def _nothing(count: int) -> dict[str, list[None]]:
    """Of outcomes, what there is to say beside them."""
    return {key: [None] * count for key in ("errors", "details", "changes", "delays")}


CODES = range(900, 910)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """Ten units, in line, in a database of this version."""
    with World(database_url) as made:
        made.have(*CODES)
        yield made
        check_tree(made.connection)


@pytest.fixture
def old(world: World) -> Iterator[OldJob]:
    with connect(world.url, application_name="old") as connection:
        yield OldJob(connection)


@pytest.mark.parametrize("file", sorted(path.stem for path in _FROZEN.glob("*.sql") if path.stem != "predicates"))
def test_its_statements_still_run(connection: Connection, file: str) -> None:
    """All of them are planned against the tables of now, with nulls for their parameters."""
    with psycopg.ClientCursor(connection) as cursor:
        for name, sql in _statements(file).items():
            parameters = _Nulls()
            try:
                cursor.execute(f"EXPLAIN {sql}".encode(), parameters)
            except psycopg.Error as error:
                pytest.fail(f"{file}: {name}: {error}")


class _Nulls(dict[str, None]):
    def __missing__(self, key: str) -> None:
        return None


def test_both_drain_one_queue_and_nothing_is_lost_or_done_twice(world: World, old: OldJob) -> None:
    for code in CODES:
        world.siorg.change(code, nome=f"Nova {code}", sigla=f"N{code}", versaoConsulta="100.0.0")
    old.enqueue(*CODES[:6])
    world.enqueue(*CODES[6:])
    old.enqueue(*CODES)  # once each, whoever enqueued it
    told = len(world.rows("SELECT FROM siorg_history"))
    while old.work(world.siorg.rows, 2):
        world.apply(world.fetch(world.claim(2)))
    assert set(world.statuses().values()) == {"COMPLETED"}
    assert {code: (unit["name"], unit["acronym"]) for code, unit in world.units().items()} == {
        code: (f"Nova {code}", f"N{code}") for code in CODES
    }
    written = world.rows("SELECT siorg_code, count(*) AS times FROM siorg_history GROUP BY 1")
    assert {row["siorg_code"]: row["times"] for row in written} == dict.fromkeys(CODES, 2)
    assert len(world.rows("SELECT FROM siorg_history")) == told + len(CODES)


def test_a_row_that_the_old_one_wrote_is_read_by_what_siorg_said_then(world: World, old: OldJob) -> None:
    """What this version had recorded belongs to an earlier sync: it is no base any more, or the old Job's write were an edit."""
    world.edit(902, name="Nossa 902")
    for code in CODES[:2]:
        world.siorg.change(code, nome="Primeira", sigla=f"P{code}")
    old.enqueue(*CODES[:2])
    assert old.work(world.siorg.rows, 10) == 2
    world.edit(901, name="Nossa 901")
    for code in CODES[:3]:
        world.siorg.change(code, nome="Segunda")
    world.sync(*CODES[:3])
    assert [world.unit(code)["name"] for code in CODES[:3]] == ["Segunda", "Nossa 901", "Nossa 902"]
    changes = {code: world.items(code)[-1]["detected_changes"] for code in CODES[:3]}
    assert changes[900] is None
    assert changes[901] == {"name": {"base": "Primeira", "local": "Nossa 901", "remote": "Segunda"}}
    assert changes[902] == {"name": {"base": "Unidade 902", "local": "Nossa 902", "remote": "Segunda"}}
    world.siorg.change(900, sigla="T900")
    world.sync(900)
    assert world.unit(900)["acronym"] == "T900"


def test_the_old_one_finds_its_base_in_what_this_one_wrote(world: World, old: OldJob) -> None:
    world.sync_changed(900, nome="Nova", sigla="N", versaoConsulta="100.0.0")
    (unit,) = old.run("read", "units", codes=[900], local_ids=[None])
    assert (unit["name"], unit["base_raw"]["nome"], unit["base_raw"]["sigla"]) == ("Nova", "Nova", "N")
    assert unit["synced_at"] is not None


def test_what_is_held_is_left_alone_by_the_old_one(world: World, old: OldJob) -> None:
    held = {"status": "CONFLICT", "detected_changes": json.dumps({"is_active": {"local": True, "remote": False}})}
    (id_,) = world.enqueue(900, operation="EXTINCTION", **held)
    world.connection.execute("UPDATE siorg_sync_queue SET held_at = now() - interval '90 days' WHERE id = %s", [id_])
    before = world.item(id_)
    old.enqueue(*CODES)
    assert old.work(world.siorg.rows, 100) == len(CODES)
    old.run("dangling", "reap", limit=1000)
    (page,) = old.run("dangling", "cleanup", after="00000000-0000-0000-0000-000000000000", limit=1000, retention_days=1)
    assert id_ not in (page["old_ids"] or ())
    assert world.item(id_) == before


def _take_our_turn(connection: Connection, turn: str) -> None:
    if turn == "apply":
        connection.execute(load("siorg_job.sync", "read.sql")["lock"], {"organizations": [UFMT], "codes": [], "domains": False})
    else:
        connection.execute(load("siorg_queue", "produce.sql")["enqueue_lock"])


def _take_its_turn(old: OldJob, turn: str) -> None:
    if turn == "apply":
        old.run("read", "lock_organizations", organizations=[UFMT], codes=[])
    else:
        old.run("produce", "enqueue_lock")


@pytest.mark.parametrize("turn", ["apply", "enqueue"])
@pytest.mark.parametrize("a_stranger_is_in_the_way", [False, True])
def test_they_take_turns_with_each_other_and_ours_among_themselves(
    world: World, old: OldJob, turn: str, a_stranger_is_in_the_way: bool
) -> None:
    """A stranger's advisory lock stops the old one, as it always did, and none of ours."""
    key = f"hashtext('siorg_sync_apply'), {UFMT}" if turn == "apply" else "hashtext('siorg_sync_queue'), hashtext('enqueue')"
    world.connection.execute("DROP ROLE IF EXISTS siorg_stranger; CREATE ROLE siorg_stranger LOGIN")
    with (
        connect(world.url.replace("//postgres@", "//siorg_stranger@"), application_name="a stranger") as stranger,
        connect(world.url, application_name="ours") as ours,
        connect(world.url, application_name="ours") as another,
    ):
        if a_stranger_is_in_the_way:
            stranger.execute(f"SELECT pg_advisory_lock({key})".encode())
        with transaction(ours):
            _take_our_turn(ours, turn)
            with pytest.raises(psycopg.errors.LockNotAvailable), transaction(another, lock_seconds=0.1):
                _take_our_turn(another, turn)
            with pytest.raises(psycopg.errors.LockNotAvailable), transaction(old.connection, lock_seconds=0.1):
                _take_its_turn(old, turn)
        if not a_stranger_is_in_the_way:
            with transaction(old.connection):
                _take_its_turn(old, turn)
                with pytest.raises(psycopg.errors.LockNotAvailable), transaction(ours, lock_seconds=0.1):
                    _take_our_turn(ours, turn)
        with transaction(another):
            _take_our_turn(another, turn)
    world.connection.execute("DROP ROLE siorg_stranger")


def test_what_the_old_one_holds_is_finished_after_the_migrations(empty_database_url: str) -> None:
    """They are applied while it works, and it notices nothing."""
    with (
        connect(empty_database_url, application_name="old") as connection,
        connect(empty_database_url, application_name="lock") as lock,
    ):
        for migration in available()[:_MIGRATIONS_THEN]:
            for statement in [migration.script] if migration.transactional else migration.statements():
                connection.execute(statement.encode())
        old = OldJob(connection)
        old.enqueue(UFMT, 900)
        (first, second) = old.claim(10)
        with connect(empty_database_url, application_name="work") as work:
            assert [migration.version for migration in migrate(work, lock)] == [one.version for one in available()]
        held = {"ids": [first["id"], second["id"]], "tokens": [first["lease_token"], second["lease_token"]]}
        assert len(old.run("lease", "renew", lease_seconds=60.0, **held)) == 2
        done = old.run(
            "lease", "finish", **held, **_nothing(2), local_ids=[None, None], outcomes=["COMPLETED", "RETRY"], max_attempts=3,
            retry_base_seconds=0.0, retry_max_seconds=0.0,
        )  # fmt: skip
        assert {row["status"] for row in done} == {"COMPLETED", "PENDING"}
    with World(empty_database_url) as world:
        world.siorg.publish(siorg_row(900))
        world.pauses_are_over()
        world.drain()
        assert set(world.statuses().values()) == {"COMPLETED"}
