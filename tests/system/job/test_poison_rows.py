"""Every command on a database in which some row of each kind has a value that cannot be held here, as a person runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest

from siorg_job.__main__ import main
from siorg_job.reconciliation import compared
from siorg_job.sync.read import read_for_comparison
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection, Decisions
from support.queue import number
from support.rows import holds_for
from support.simulated import row
from support.siorg_server import SiorgServer

UFMT = 471
_NUMBER = "('{\"a\": ' || repeat('9', 5000) || '}')::jsonb"
_DEEP = "(repeat('{\"a\":', 1500) || '1' || repeat('}', 1500))::jsonb"
_TIMES = ("infinity", "-infinity", "10001-01-01", "294276-12-31", "0044-03-15 BC", "4714-11-24 BC")
_READING = (
    "status", "status --json", "conflicts", "conflicts --json", "held", "held --json", "retry", "organizations",
    "organizations --json", "doctor", "preview", "preview --json", "adopted", "verify", "verify --json", "migrate --check",
)  # fmt: skip
_WRITING = (
    "organizations edit 471 --city Cuiabá",
    "enqueue 16467",
    "verify --enqueue",
    "discover",
    "discover --full",
    "run",
    "retry --all",
    "run",
    "cleanup",
)


@pytest.fixture(scope="module")
def siorg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiorgServer]:
    rows = [
        row(26, None, 26, codigoTipoUnidade="orgao", nome="Ministério", sigla="MIN"),
        row(UFMT, 26, UFMT, nome="Fundação Universidade Federal de Mato Grosso", sigla="UFMT"),
        *(row(code, above, UFMT, nome=f"Unidade {code}") for code, above in ((16466, UFMT), (16467, 16466), (16468, 16466))),
    ]
    snapshot = tmp_path_factory.mktemp("siorg") / "snapshot.json"
    snapshot.write_text(json.dumps({"servico": {}, "unidades": rows}), encoding="utf-8")
    with SiorgServer("--snapshot", snapshot) as server:
        yield server


def _environment(database_url: str, siorg: SiorgServer) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url, "SIORG_API_URL": siorg.url, "SIORG_ALLOW_INSECURE": "true", "SIORG_TIMEOUT_SECS": "10",
    }  # fmt: skip


def _poison(connection: Connection) -> None:
    """Rows that no form of ours writes, and that people, other programs and other clocks can."""
    for value in (_NUMBER, _DEEP):
        for status in ("PENDING", "COMPLETED", "FAILED", "CONFLICT", "SKIPPED"):
            for held_at in ("NULL", "now()"):
                connection.execute(
                    "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, status, payload, error_details,"
                    f" detected_changes, held_at) SELECT t, 16468, 'UPDATE', '{status}', {value}, {value}, {value}, {held_at}"
                    " FROM unnest(enum_range(NULL::siorg_entity_type_enum)) AS t".encode()
                )
    for time in _TIMES:
        connection.execute(
            "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, status, payload, error_details, detected_changes,"
            " created_at, processed_at, last_attempt_at, expires_at, scheduled_for, held_at, needed_at, attempts, failures)"
            " SELECT 'UNIT', 16468, 'UPDATE', s::sync_status_enum, '{\"codigoOrgaoEntidade\": \"99999999999\"}',"
            " '{\"kind\": \"parent_failed\", \"details\": {\"waits_for\": {\"a\": 1}}}', to_jsonb('scalar'::text),"
            " t, t, t, t, t, t, t, -2147483648, 2147483647"
            " FROM (SELECT %s::timestamptz) AS at (t),"
            " unnest('{PENDING,COMPLETED,FAILED,CONFLICT,SKIPPED,PROCESSING}'::text[]) AS s", [time],
        )  # fmt: skip
    connection.execute(
        f"UPDATE organizational_units SET siorg_raw_data = {_DEEP}, siorg_base = {_NUMBER}, contact_info = {_DEEP},"
        " name = 'Nosso' WHERE siorg_code = 16468".encode()
    )
    for table in ("organizations", "organizational_unit_types", "organizational_unit_categories"):
        connection.execute(f"UPDATE {table} SET siorg_raw_data = {_NUMBER}, siorg_base = {_DEEP}".encode())
    for key, value, time in (
        (f"siorg_versao:{UFMT}", _DEEP, "294276-12-31"), (f"siorg_em_dia:{UFMT}", "'true'", "4714-11-24 BC"),
        (f"siorg_existe:{UFMT}", _NUMBER, "infinity"), ("units.max_hierarchy_depth", _NUMBER, "-infinity"),
        ("siorg.hierarchy_strict_mode", _DEEP, "10001-01-01"),
    ):  # fmt: skip
        connection.execute(
            f"INSERT INTO system_settings (key, value, updated_at) VALUES ('{key}', {value}, '{time}')"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at".encode()
        )
    connection.execute("UPDATE siorg_request_pace SET next_at = '294276-12-31', paused_until = '-infinity'")


def test_an_organization_that_cannot_be_read_does_not_stop_the_others(
    database_url: str, connection: Connection, siorg: SiorgServer, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    connection.execute(
        "INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code) VALUES (26, 'MIN', 'MEC', '00000000000026', 9)"
    )

    def refuse(connection: Connection, organization: int, codes: Sequence[int]) -> WorkingCopy:
        if organization == 26:
            connection.execute("SELECT 1 / 0")
        return read_for_comparison(connection, organization, codes)

    monkeypatch.setattr(compared, "read_for_comparison", refuse)
    environment = _environment(database_url, siorg)
    assert main(["discover"], environment) == 1
    assert number(connection, "SELECT count(*) FROM siorg_sync_queue WHERE siorg_code = 16467") == 1
    assert main(["verify"], environment) == 75
    assert "26 MIN could not be told: its rows cannot be read: division by zero" in capsys.readouterr().out
    assert main(["preview"], environment) == 75
    assert "26 could not be compared: its rows cannot be read: division by zero" in capsys.readouterr().out


def test_no_command_stops_at_a_row_that_cannot_be_held(
    database_url: str, connection: Connection, siorg: SiorgServer, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = _environment(database_url, siorg)

    def run(words: str) -> None:
        code = main(words.split(), environment)
        printed = capsys.readouterr()
        codes = (0, 1) if words == "doctor" else (0, 3)  # it says which settings cannot be read
        assert code in codes, printed
        assert "Traceback" not in printed.out + printed.err
        assert "fault of ours" not in printed.err

    for words in ("discover", "run"):
        run(words)
    _poison(connection)
    holds_for(_READING, run)
    connection.execute("UPDATE organizational_units SET name = 'Nosso', siorg_base = NULL WHERE siorg_code = 16467")
    (asked,) = connection.execute(
        "SELECT array_agg(id) AS ids FROM siorg_sync_queue WHERE status = 'CONFLICT' AND entity_type = 'UNIT' AND held_at IS NULL"
    ).fetchall()
    holds_for([f"conflicts show {id_}" for id_ in asked["ids"]], run)
    decisions = ("--accept-siorg", "--keep-local", "--skip", "--set name=SIORG")
    holds_for([f"conflicts resolve {id_} {word}" for id_, word in zip(asked["ids"], decisions, strict=False)], run)
    held = [row.id for row in Decisions(connection).held()]
    assert len(held) > 0
    assert Decisions(connection).drop_held(held[::2], notes=None, by="me") == len(held[::2])
    assert Decisions(connection).release_held(held[1::2], notes=None, by="me") == len(held[1::2])
    holds_for(_WRITING, run)
    assert number(connection, "SELECT count(*) FROM siorg_sync_queue WHERE siorg_code = 16467 AND status = 'COMPLETED'") > 0
    assert (
        number(
            connection,
            "SELECT count(*) FROM siorg_sync_queue WHERE status IN ('PENDING', 'PROCESSING') AND scheduled_for <= now()",
        )
        == 0
    )
