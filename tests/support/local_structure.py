"""A local structure kept in line with a made-up SIORG: the job's own parts in this process, on a real database.

Only the HTTP client is replaced: answers are bytes in SIORG's envelope, read by the real parser.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from types import TracebackType
from typing import Any, Self, cast
from uuid import UUID

from psycopg.types.json import Jsonb

from siorg_job.__main__ import main
from siorg_job.database.thread import DatabaseThread
from siorg_job.fetch.failure import FetchFailure, FetchFault
from siorg_job.fetch.fetcher import Fetcher, FetchResult
from siorg_job.siorg import rows, values
from siorg_job.siorg.errors import InvalidData, MalformedResponse, SiorgError
from siorg_job.siorg.model import DomainRow, DomainTable, RemoteUnit, Structure
from siorg_job.sync import apply as applying
from siorg_job.sync.apply import Applied, Work
from siorg_job.sync.limits import Limits
from siorg_job.sync.outcomes import internal_error
from siorg_queue import Connection, Decisions, Item, Outcome, QueueStore, Verdict, connect
from support.scripted_server import envelope

UFMT = 471
ANOTHER = 500
"""A second organization, registered by ``World.register``."""

_URI = "https://estruturaorganizacional.dados.gov.br/id"
_ROUNDS = 20
_LEASE = timedelta(seconds=60)

Row = dict[str, Any]


def unit_uri(code: int | None) -> str | None:
    return None if code is None else f"{_URI}/unidade-organizacional/{code}"


def siorg_row(code: int, parent: int | None = UFMT, *, organization: int | None = UFMT, **fields: Any) -> Row:
    """A unit as SIORG writes it in the complete form; ``fields`` replace or add keys."""
    kind = "entidade" if code == organization else "unidade-administrativa"
    return {
        "codigoUnidade": unit_uri(code),
        "codigoUnidadePai": unit_uri(parent),
        "codigoOrgaoEntidade": unit_uri(organization),
        "codigoTipoUnidade": f"{_URI}/tipo-unidade/{kind}",
        "nome": f"Unidade {code}",
        "sigla": f"U{code}",
        "versaoConsulta": "99.0.0",
        "operacao": None,
        **fields,
    }


def contact(*, phones: Iterable[str] = (), emails: Iterable[str] = (), sites: Iterable[str] = ()) -> Row:
    """The key ``contato``; what is empty is left out."""
    said = {"telefone": list(phones), "email": list(emails), "site": [{"site": site} for site in sites]}
    return {"contato": [{key: value for key, value in said.items() if value}]}


def _belongs(row: Row, organization: int) -> bool:
    try:
        return (values.code(row.get("codigoOrgaoEntidade"), "") or UFMT) == organization
    except InvalidData:
        return organization == UFMT


class MadeUpSiorg:
    """SIORG's answers, out of rows that a test sets; what fetcher and discovery ask of ``SiorgClient``."""

    def __init__(self, *rows: Row) -> None:
        self.rows: dict[int, Row] = {}
        self.bodies: dict[int, bytes] = {}
        """Bodies that are served as they are, by unit code; the first also as structure."""
        self.also: dict[int, list[Row]] = {}
        """Rows that the structure of an organization has besides, whatever the unit itself says."""
        self.tables: dict[DomainTable, list[Row]] = {}
        self.requests: list[str] = []
        self.down: SiorgError | None = None
        self.publish(siorg_row(UFMT, 244, nome="Fundação Universidade Federal de Mato Grosso", sigla="UFMT"), *rows)

    def publish(self, *rows: Row) -> list[int]:
        """Add or replace rows; returns their codes."""
        found = {int(str(row["codigoUnidade"]).rsplit("/", 1)[-1]): row for row in rows}
        self.rows |= found
        return list(found)

    def publish_line(self, *codes: int, first: int = UFMT) -> None:
        """Units, each below the one before, the first below ``first``."""
        self.publish(*[siorg_row(code, parent) for parent, code in pairwise((first, *codes))])

    def change(self, code: int, **fields: Any) -> None:
        """Change keys of a row; ``parent`` and ``organization`` are codes."""
        for name, key in (("parent", "codigoUnidadePai"), ("organization", "codigoOrgaoEntidade")):
            if name in fields:
                fields[key] = unit_uri(fields.pop(name))
        self.rows[code] = {**self.rows[code], **fields}

    def remove(self, *codes: int) -> None:
        for code in codes:
            del self.rows[code]

    async def unit(self, code: int) -> RemoteUnit:
        self._requested(f"unit {code}")
        if code in self.bodies:
            return rows.parse_unit(self.bodies[code], code)
        if code not in self.rows:
            return rows.parse_unit(envelope("unidade", None, code=102, message="Unidade não encontrada"), code)
        return rows.parse_unit(envelope("unidade", self.rows[code]), code)

    async def structure(self, organization: int) -> Structure:
        self._requested(f"structure {organization}")
        own = [row for row in self.rows.values() if _belongs(row, organization)] + self.also.get(organization, [])
        body = next(iter(self.bodies.values())) if self.bodies else envelope("unidades", own)
        structure = rows.read_structure(body, organization)
        if not structure.is_whole:
            raise MalformedResponse("the organization itself is not in it")
        return structure

    async def domain(self, table: DomainTable) -> list[DomainRow]:
        self._requested(f"domain {table}")
        return rows.parse_domain(envelope(table.key, self.tables.get(table, [])), table)

    def _requested(self, what: str) -> None:
        self.requests.append(what)
        if self.down is not None:
            raise self.down


def apply(connection: Connection, store: QueueStore, works: Sequence[Work], limits: Limits | None = None) -> Applied:
    """Apply, and let those pay that cannot be applied even alone: as where others get past what they fail at."""
    applied = applying.apply(connection, store, works, limits)
    if applied.refusals:
        paid = applying.apply(connection, store, [(refusal.item, refusal.verdict) for refusal in applied.refusals])
        applied.verdicts |= paid.verdicts
        applied.settled |= paid.settled
        applied.stale |= paid.stale
    return applied


class World:
    """A fresh database and a SIORG."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.siorg = MadeUpSiorg()
        self.limits: Limits | None = None
        """For ends; most tests are about something else, in organizations of few units."""
        self.connection: Connection = connect(url, application_name="test")
        self.store = QueueStore(self.connection)
        self.decisions = Decisions(self.connection)
        self._runner = asyncio.Runner()
        self._reader = DatabaseThread(url, "test fetch")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._runner.run(self._reader.aclose())
        self._runner.close()
        self.connection.close()

    # -- work ---------------------------------------------------------------------------------------------------------

    def enqueue(
        self, *codes: int, operation: str = "UPDATE", entity: str = "UNIT", payload: object = None, **columns: Any
    ) -> list[UUID]:
        """Rows of the queue, as any producer writes them."""
        row = {"entity_type": entity, "operation": operation, "payload": Jsonb(payload or {}), **columns}
        names, marks = ", ".join(row), ", ".join(f"%({name})s" for name in row)
        sql = f"INSERT INTO siorg_sync_queue (siorg_code, {names}) VALUES (%(code)s, {marks}) RETURNING id"
        return [found["id"] for code in codes for found in self.connection.execute(sql, {"code": code, **row})]

    def claim(self, limit: int = 1000) -> list[Item]:
        return list(self.store.claim(limit, lease=_LEASE, worker="test").items)

    def fetch(self, items: Iterable[Item], fetcher: Fetcher | None = None) -> list[Work]:
        """What SIORG says of items; a passing failure is a retry, as it is in a drain that SIORG answers otherwise."""
        entries: list[FetchResult] = []
        used = fetcher or self.fetcher()
        self._runner.run(used.fetch(list(items), entries.extend))
        works: list[Work] = []
        for entry in entries:
            if isinstance(entry, FetchFailure):
                works.append((entry.item, Verdict(entry.item, Outcome.RETRY, error=str(entry.error), delay_seconds=60.0)))
            elif isinstance(entry, FetchFault):
                works.append((entry.item, internal_error(entry.item, entry.error)))
            else:
                works.append(entry)
        return works

    def fetched(self) -> list[Work]:
        """What waits, claimed and fetched, to be applied later."""
        return self.fetch(self.claim())

    def fetcher(self, fresh_seconds: float = 60.0, item_seconds: float = 20.0, at_once: int = 32) -> Fetcher:
        return Fetcher(
            cast("Any", self.siorg), self._reader, fresh_seconds=fresh_seconds, item_seconds=item_seconds, at_once=at_once
        )

    def apply(self, works: Iterable[Work]) -> Applied:
        return apply(self.connection, self.store, list(works), self.limits)

    def drain(self, *, at_a_time: int = 1000) -> int:
        """Claim, fetch and apply until nothing is claimable; returns how many history rows were written."""
        changes = 0
        fetcher = self.fetcher()
        for _ in range(_ROUNDS):
            items = self.claim(at_a_time)
            if not items:
                return changes
            changes += self.apply(self.fetch(items, fetcher)).changes
        raise AssertionError(f"still claimable after {_ROUNDS} rounds")

    def sync(self, *codes: int, operation: str = "UPDATE", **options: Any) -> dict[str, Any]:
        """Enqueue, drain, and return the item of the first code as it ended."""
        first, *_ = self.enqueue(*codes, operation=operation, **options)
        self.drain()
        return self.item(first)

    def have(self, *units: Row | int) -> None:
        """Units (rows of SIORG's, or codes directly under the organization) that are in line here."""
        self.sync(*self.siorg.publish(*[siorg_row(unit) if isinstance(unit, int) else unit for unit in units]))

    def have_line(self, *codes: int) -> None:
        """Units each below the one before, in line here."""
        self.siorg.publish_line(*codes)
        self.sync(codes[-1])

    def sync_changed(self, code: int, *, operation: str = "UPDATE", entity: str = "UNIT", **fields: Any) -> dict[str, Any]:
        """Change a row of SIORG's, sync it, and return the item as it ended."""
        self.siorg.change(code, **fields)
        return self.sync(code, operation=operation, entity=entity)

    def decide(self, id_: UUID, resolution: object, **details: Any) -> dict[str, Any]:
        """Let a person decide, carry it out, and return the item as it ended."""
        self.resolve(id_, resolution, **details)
        self.drain()
        return self.item(id_)

    # -- what there is ------------------------------------------------------------------------------------------------

    def item(self, id_: UUID) -> dict[str, Any]:
        (row,) = self.rows("SELECT * FROM siorg_sync_queue WHERE id = %s", id_)
        return row

    def items(self, code: int) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM siorg_sync_queue WHERE siorg_code = %s ORDER BY created_at, id", code)

    def statuses(self) -> dict[int, str]:
        """Status by code; of several items for one entity, the newest."""
        return {row["siorg_code"]: row["status"] for row in self.rows("SELECT * FROM siorg_sync_queue ORDER BY created_at")}

    def unit(self, code: int) -> dict[str, Any]:
        found = self.find(code)
        assert found is not None, f"unit {code} is not local"
        return found

    def find(self, code: int) -> dict[str, Any] | None:
        found = self.rows(
            "SELECT u.*, p.siorg_code AS parent_code, o.siorg_code AS organization_code, c.siorg_code AS category_code,"
            " c.name AS category_name, t.code AS type_slug FROM organizational_units u"
            " JOIN organizations o ON o.id = u.organization_id JOIN organizational_unit_categories c ON c.id = u.category_id"
            " JOIN organizational_unit_types t ON t.id = u.unit_type_id LEFT JOIN organizational_units p ON p.id = u.parent_id"
            " WHERE u.siorg_code = %s",
            code,
        )
        return found[0] if found else None

    def units(self) -> dict[int, dict[str, Any]]:
        return {row["siorg_code"]: row for row in self.rows("SELECT * FROM organizational_units WHERE siorg_code IS NOT NULL")}

    def history(self, code: int, entity: str = "UNIT") -> list[dict[str, Any]]:
        """What happened to an entity, oldest first."""
        return self.rows(
            "SELECT * FROM siorg_history WHERE siorg_code = %s AND entity_type = %s::siorg_entity_type_enum"
            " ORDER BY created_at, id", code, entity,
        )  # fmt: skip

    def organization(self, code: int = UFMT) -> dict[str, Any]:
        (row,) = self.rows("SELECT * FROM organizations WHERE siorg_code = %s", code)
        return row

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        return self.connection.execute(sql, parameters).fetchall()

    # -- what people do -----------------------------------------------------------------------------------------------

    def edit(self, code: int, **columns: Any) -> None:
        """A person's edit of a unit."""
        self._update("organizational_units", code, columns)

    def edit_organization(self, code: int = UFMT, **columns: Any) -> None:
        self._update("organizations", code, columns)

    def edit_contact(self, code: int, **kinds: Any) -> None:
        self.edit(code, contact_info=Jsonb({**self.unit(code)["contact_info"], **kinds}))

    def _update(self, table: str, code: int, columns: Mapping[str, Any]) -> None:
        sets = ", ".join(f"{name} = %({name})s" for name in columns)
        done = self.connection.execute(
            f"UPDATE {table} SET {sets} WHERE siorg_code = %(_code)s",
            {**columns, "_code": code},
        )
        assert done.rowcount == 1

    def resolve(self, id_: UUID, resolution: object, **details: Any) -> None:
        """What the API server writes when a person decides: attempts and scheduled_for stay as they were."""
        written = {"resolution": resolution, "resolved_by": "9d3f6c1e-0000-4000-8000-000000000001", **details}
        self.connection.execute(
            "UPDATE siorg_sync_queue SET status = 'PENDING', error_details = %s WHERE id = %s", [Jsonb(written), id_]
        )

    def resolve_by_command(self, id_: UUID, *words: str) -> None:
        """What ``siorg-job conflicts resolve`` writes."""
        assert main(["conflicts", "resolve", str(id_), *words], {"DATABASE_URL": self.url}) == 0

    def keep_as_the_api_server(self, id_: UUID) -> None:
        """What the API server writes when a person keeps the local values."""
        self.connection.execute(
            "UPDATE siorg_sync_queue SET status = 'COMPLETED', processed_at = now(), resolution_notes = 'ours is right'"
            " WHERE id = %s AND status = 'CONFLICT'", [id_],
        )  # fmt: skip

    def pauses_are_over(self) -> None:
        """What waits for later is due now."""
        self.connection.execute("UPDATE siorg_sync_queue SET scheduled_for = now() WHERE status = 'PENDING'")

    def setting(self, key: str, value: object) -> None:
        self.connection.execute(
            "INSERT INTO system_settings (key, value) VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [key, Jsonb(value)],
        )

    def register(self, code: int = ANOTHER, name: str = "Outra Universidade") -> None:
        """Register a further organization, here and in SIORG."""
        self.connection.execute(
            "INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code) VALUES (%s, %s, %s, %s, 1)",
            [code, f"O{code}", name, f"{code:014d}"],
        )
        self.siorg.publish(siorg_row(code, 244, organization=code, nome=name, sigla=f"O{code}"))


def wait_until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Wait for a condition; fails when it does not come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


_WATCHED = (
    "organizational_units", "organizations", "organizational_unit_categories", "organizational_unit_types",
    "siorg_mappings", "siorg_history", "siorg_sync_queue", "system_settings",
)  # fmt: skip


def whole_tables(connection: Connection) -> dict[str, list[str]]:
    """Every row of every table that a sync could touch, to see that nothing changed."""
    return {
        table: [
            json.dumps(row["line"], sort_keys=True)
            for row in connection.execute(f"SELECT to_jsonb(t) AS line FROM {table} AS t ORDER BY to_jsonb(t)::text")
        ]
        for table in _WATCHED
    }


def check_tree(connection: Connection) -> int:
    """Level, path_ids and path_names of every unit agree with its parent's; returns how many units were looked at."""
    rows = connection.execute(
        "SELECT u.id, u.siorg_code, u.name, u.level, u.path_ids, u.path_names, u.parent_id, p.level AS parent_level,"
        " p.path_ids AS parent_ids, p.path_names AS parent_names, o.name AS organization_name"
        " FROM organizational_units u JOIN organizations o ON o.id = u.organization_id"
        " LEFT JOIN organizational_units p ON p.id = u.parent_id"
    ).fetchall()
    for row in rows:
        expected = (
            (1, [row["id"]], f"{row['organization_name']} > {row['name']}")
            if row["parent_id"] is None
            else (row["parent_level"] + 1, [*row["parent_ids"], row["id"]], f"{row['parent_names']} > {row['name']}")
        )
        assert (row["level"], row["path_ids"], row["path_names"]) == expected, f"unit {row['siorg_code']}"
        assert len(set(row["path_ids"])) == len(row["path_ids"])
    return len(rows)
