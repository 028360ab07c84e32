"""What a synchronisation reads is found by key, whatever statistics say: those of empty tables, of a queue in which everything
waited, or of one in which everything was COMPLETED."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from siorg_queue import Connection, connect, transaction
from siorg_queue.statements import load
from support.explain import buffers, explained, per_node
from support.postgres import Postgres

ORGANIZATIONS = 100
UNITS = 100
"""Of each organization: 25 lines of four below each other."""
ROUNDS = 10
"""COMPLETED items of each unit: 100,000 in all, 3,000 buffers and more; all units are 850, all mappings 120."""
HOME = 1050

_TABLES = (
    "organizations", "organizational_units", "organizational_unit_categories", "organizational_unit_types", "siorg_mappings",
    "siorg_sync_queue", "siorg_history",
)  # fmt: skip

_ORGANIZATIONS = f"""
INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code, siorg_synced_at)
SELECT n, 'O' || n, 'Organization ' || n, lpad(n::text, 14, '0'), 1, now() FROM generate_series(1000, {999 + ORGANIZATIONS}) AS n
"""
_LEVEL = """
INSERT INTO organizational_units (organization_id, parent_id, category_id, unit_type_id, name, siorg_code, siorg_parent_code,
    activity_area, siorg_synced_at, siorg_raw_data, siorg_base)
SELECT o.id, p.id, c.id, t.id, 'Unit ' || k.code, k.code, coalesce(p.siorg_code, o.siorg_code), 'CORE', now() - interval '1 day',
    jsonb_build_object('codigoUnidade', k.code, 'codigoOrgaoEntidade', o.siorg_code, 'nome', repeat('x', 200)), '{"name": "x"}'
FROM organizations AS o CROSS JOIN generate_series(0, 24) AS line
CROSS JOIN LATERAL (SELECT 100000 + (o.siorg_code - 1000) * 1000 + line * 10 + {level} AS code) AS k
CROSS JOIN organizational_unit_categories AS c CROSS JOIN organizational_unit_types AS t
LEFT JOIN organizational_units AS p ON p.siorg_code = k.code - 1 AND {level} > 0
WHERE o.siorg_code >= 1000 ORDER BY k.code
"""
_HISTORY = """
INSERT INTO siorg_history (entity_type, siorg_code, local_id, change_type, new_data, affected_fields, sync_queue_id)
SELECT 'UNIT', siorg_code, local_id, 'UPDATE', '{"name": "x"}', '{name,parent}', id FROM siorg_sync_queue
WHERE status = 'COMPLETED' AND siorg_code % 10 < 2 ORDER BY id LIMIT 10000
"""


def _items(connection: Connection, rounds: int = 1, *, where: str = "true", **columns: str) -> None:
    """Items about units, as often as there are ``rounds``; columns are SQL expressions."""
    said = "jsonb_build_object('codigoOrgaoEntidade', o.siorg_code)"
    row = {"payload": said, "detected_changes": """'{"name": {"base": 1, "local": 2, "remote": 3}}'""", **columns}
    connection.execute(
        f"INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, {', '.join(row)})"
        f" SELECT 'UNIT', u.siorg_code, 'UPDATE', {', '.join(row.values())}"
        f" FROM generate_series(1, {rounds}) AS n, organizational_units AS u JOIN organizations AS o ON o.id = u.organization_id"
        f" WHERE {where} ORDER BY n, u.siorg_code".encode()
    )


def _fill(connection: Connection) -> None:
    """The entity tables."""
    connection.execute(_ORGANIZATIONS.encode())
    connection.execute("INSERT INTO organizational_unit_categories (name, siorg_code) VALUES ('Local', 1)")
    connection.execute("INSERT INTO organizational_unit_types (code, name) VALUES ('unidade-administrativa', 'UA')")
    for level in range(4):
        connection.execute(_LEVEL.replace("{level}", str(level)).encode())
    connection.execute(
        "INSERT INTO siorg_mappings (entity_type, local_id, siorg_code)"
        " SELECT 'UNIT', id, siorg_code FROM organizational_units ORDER BY siorg_code"
    )


def _completed(connection: Connection) -> None:
    _items(connection, ROUNDS, status="'COMPLETED'", attempts="1", processed_at="now() - make_interval(secs => n)")


@pytest.fixture(scope="module", params=["of the empty table", "when everything waited", "when everything was completed"])
def scene(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """The same rows with other statistics."""
    url = postgres.database()
    with connect(url, application_name="test") as connection:
        for table in _TABLES:
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
        if request.param == "of the empty table":
            connection.execute("ANALYZE")
        _fill(connection)
        if request.param == "when everything waited":
            _items(connection, ROUNDS)
            connection.execute("ANALYZE")
            connection.execute("TRUNCATE siorg_sync_queue, siorg_history")  # it leaves what is known of the columns
        _completed(connection)
        if request.param == "when everything was completed":
            connection.execute("ANALYZE")
        _items(connection)
        _items(connection, where="u.siorg_code % 100 = 0", status="'CONFLICT'", attempts="1")
        _items(connection, where="u.siorg_code % 100 = 10", status="'CONFLICT'", attempts="1", held_at="now()")
        _items(connection, where="u.siorg_code % 100 = 20", status="'FAILED'", attempts="3", processed_at="now()")
        connection.execute(_HISTORY.encode())
        yield connection
    postgres.drop(url)


@dataclass(frozen=True)
class Asked:
    """About which units a statement is asked."""

    codes: list[int]
    ids: list[UUID]
    organizations: list[UUID]
    rows: list[dict[str, Any]]
    """As a working copy would write them."""

    @property
    def none(self) -> list[None]:
        return [None] * len(self.codes)

    @property
    def entities(self) -> dict[str, Any]:
        return {"entity_types": ["UNIT"] * len(self.codes), "codes": self.codes}

    @property
    def positions(self) -> dict[str, Any]:
        """As ``blocked`` asks."""
        kinds = ["unit"] * len(self.codes)
        return {"positions": list(range(len(self.codes))), "kinds": kinds, "codes": self.codes, "ids": self.none}

    @property
    def new(self) -> Jsonb:
        return Jsonb([{**row, "id": str(uuid4()), "code": row["code"] + 5} for row in self.rows])

    @property
    def history(self) -> Jsonb:
        changed = {"entity_type": "UNIT", "change_type": "UPDATE", "affected_fields": ["name"], "requires_review": False}
        return Jsonb([{**changed, "siorg_code": row["code"], "local_id": row["id"]} for row in self.rows])


def _asked(connection: Connection, count: int) -> Asked:
    """About ``count`` units of one organization; one alone hangs below another."""
    lines = [100_000 + (HOME - 1000) * 1000 + line * 10 + level for line in range(25) for level in range(4)]
    codes = lines[1 : count + 1] if count < len(lines) else lines
    synced_at = datetime.now(UTC).isoformat()
    noted: dict[str, Any] = {"url": None, "version": "1", "base_raw": {}, "base_record": {}, "synced_at": synced_at}
    units = connection.execute(
        "SELECT id, to_jsonb(u) AS row FROM organizational_units AS u WHERE siorg_code = ANY (%s) ORDER BY siorg_code", [codes]
    ).fetchall()
    home = connection.execute("SELECT id FROM organizations WHERE siorg_code = %s", [HOME]).fetchall()
    rows = [{**unit["row"], **noted, "code": unit["row"]["siorg_code"]} for unit in units]
    return Asked(codes, [unit["id"] for unit in units], [row["id"] for row in home], rows)


@dataclass(frozen=True)
class Statement:
    """How much it may read: so many buffers, and so many more for each unit that it is asked about."""

    name: str
    parameters: Callable[[Asked], dict[str, Any]]
    each: int
    beside: int = 40

    @property
    def sql(self) -> str:
        package, file, name = self.name.split(".")
        return load(f"siorg_job.{package}", f"{file}.sql")[name]


_WHOLE = 160  # an organization, in which all its units may be read

STATEMENTS = [
    Statement("sync.read.lock", lambda a: {"organizations": [HOME], "codes": a.codes, "domains": False}, 5),
    Statement("sync.read.organizations", lambda a: {"codes": [HOME], "unit_codes": a.codes}, 5),
    Statement("sync.read.organizations_for_change", lambda _: {"codes": [HOME]}, 0),
    Statement("sync.read.active_units", lambda a: {"ids": a.organizations}, 0, _WHOLE),
    Statement("sync.read.units_for_change", lambda a: {"codes": a.codes, "local_ids": a.none}, 17),
    Statement("sync.read.units", lambda a: {"codes": a.codes, "local_ids": a.none}, 20),
    Statement("sync.read.units_to_compare", lambda a: {"organization": HOME, "codes": a.codes}, 5, 6 * _WHOLE),
    Statement("sync.read.ancestors", lambda a: {"codes": a.codes, "ids": a.ids}, 12),
    Statement("sync.read.children", lambda a: {"ids": a.ids}, 40),
    Statement("sync.read.hanging_wrong", lambda a: {"ids": a.ids}, 12),
    Statement("sync.read.organizations_of", lambda a: {"codes": a.codes}, 5),
    Statement("sync.read.kept", lambda a: a.entities, 20),
    Statement("sync.read.open_conflicts", lambda a: a.entities, 20),
    Statement("sync.held.ends", lambda a: {
        "settled": [uuid4()], "codes": a.codes, "alive": [], "organizations": [HOME]}, 5, 1_500),
    Statement("sync.held.names", lambda a: {
        "codes": a.codes, "names": ["x" for _ in a.codes], "organizations": [HOME]}, 15, 1_600),
    Statement("sync.held.units", lambda _: {"organizations": [HOME]}, 0, _WHOLE),
    Statement("sync.held.questions", lambda a: {"codes": a.codes}, 3),
    Statement("sync.blocked.rows", lambda a: a.positions, 17),
    Statement("sync.write.insert_units", lambda a: {"rows": a.new}, 35),
    Statement("sync.write.relocate_units", lambda a: {"rows": Jsonb(a.rows)}, 45),
    Statement("sync.write.update_units", lambda a: {"rows": Jsonb(a.rows)}, 45),
    Statement("sync.write.touch_units", lambda a: {"rows": Jsonb(a.rows)}, 45),
    Statement("sync.write.descendants_for_change", lambda a: {"ids": a.ids}, 30),
    Statement("sync.write.refresh_descendants", lambda a: {"ids": a.ids}, 30),
    Statement("sync.write.insert_mappings", lambda a: {"rows": a.new}, 20),
    Statement("sync.write.mapped_elsewhere", lambda a: {"rows": Jsonb(a.rows)}, 9),
    Statement("sync.write.upsert_mappings", lambda a: {"rows": Jsonb(a.rows)}, 40),
    Statement("sync.write.insert_history", lambda a: {"rows": a.history}, 15),
    Statement("fetch.fetch.here", lambda a: {"parents": a.codes, "organizations": [HOME], "categories": [1]}, 30),
    Statement("fetch.fetch.holder_of", lambda a: {"code": a.codes[0], "local_id": None}, 0),
    Statement("fetch.fetch.active_units", lambda _: {"code": HOME}, 0, _WHOLE),
    Statement("fetch.fetch.another", lambda a: {"codes": a.codes}, 5),
    Statement("reconciliation.discover.questions", lambda a: {"codes": a.codes, "organization": HOME}, 3, 100),
    Statement("reconciliation.ended.remembers_an_end", lambda _: {"organization": HOME}, 0),
    Statement("reconciliation.ended.in_question", lambda _: {"organization": HOME}, 0),
    Statement("reconciliation.preview.tree", lambda a: {"codes": a.codes, "ending": a.codes}, 40),
    Statement("reconciliation.preview.left_behind", lambda a: {
        "leaving": a.codes, "coming": a.codes, "homes": [HOME for _ in a.codes], "compared": [HOME]}, 18),
    Statement("reconciliation.verify.missing", lambda a: {"organization": HOME, "codes": a.codes}, 1, _WHOLE),
    Statement("reconciliation.verify.on_queue", lambda a: {"codes": a.codes}, 20),
    Statement("reconciliation.verify.moved", lambda a: {"codes": a.codes}, 5),
    Statement("reconciliation.verify.touched", lambda a: {"codes": a.codes, "asked_at": datetime.now(UTC)}, 25),
]  # fmt: skip


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_a_statement_reads_what_it_is_asked_about_and_no_more(scene: Connection, statement: Statement) -> None:
    for count in (1, 100):
        plan = explained(scene, statement.sql, **statement.parameters(_asked(scene, count)))
        most = statement.beside + statement.each * count
        assert buffers(plan) <= most, f"{buffers(plan)} buffers for {count} units, at most {most}\n{per_node(plan)}"


def test_no_statement_of_ours_is_compiled_and_the_session_keeps_its_setting(connection: Connection) -> None:
    before = connection.execute("SHOW jit").fetchone()
    with transaction(connection):
        assert connection.execute("SHOW jit").fetchone() == {"jit": "off"}
    assert connection.execute("SHOW jit").fetchone() == before
