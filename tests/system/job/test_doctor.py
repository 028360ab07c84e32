"""doctor finds what cannot work, and what it gives as SQL mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from siorg_job.__main__ import main
from siorg_job.doctor import vacuum
from siorg_job.doctor.rights import NEEDED, tables
from siorg_job.doctor.trials import STATEMENTS
from siorg_job.settings import Settings
from siorg_queue import Connection, connect
from siorg_queue.statements import load
from support.job import job_environment, run_job
from support.loopback_http import Answering, LoopbackServer
from support.siorg_server import REPOSITORY, SiorgServer

ROLE = "siorg_doctor_worker"
Doctor = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def siorg() -> Iterator[str]:
    with SiorgServer("--synthetic", "3") as server:
        yield server.url


@pytest.fixture
def worker_url(connection: Connection, database_url: str) -> Iterator[str]:
    """A user with exactly the rights that are needed."""
    connection.execute(f"CREATE ROLE {ROLE} LOGIN".encode())
    for table, rights in NEEDED.items():
        connection.execute(f"GRANT {', '.join(rights)} ON {table} TO {ROLE}".encode())
    yield database_url.replace("//postgres@", f"//{ROLE}@")
    connection.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}".encode())


@pytest.fixture
def doctor(siorg: str, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def run(url: str, **more: str) -> tuple[int, list[dict[str, Any]]]:
        environ = {"DATABASE_URL": url, "SIORG_API_URL": siorg, "SIORG_ALLOW_INSECURE": "true", **more}
        code = main(["doctor", "--json"], environ)
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told["exit_code"] == code
        return code, told["findings"]

    return run


def errors(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [finding for finding in findings if finding["level"] == "error"]


def test_with_exactly_the_rights_that_are_needed_all_is_well_and_nothing_stays(
    doctor: Doctor, worker_url: str, connection: Connection
) -> None:
    def contents() -> list[Any]:
        return [connection.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1".encode()).fetchall() for table in NEEDED]

    before = contents()
    code, findings = doctor(worker_url)
    assert (code, errors(findings)) == (0, [])
    assert contents() == before
    told = " ".join(finding["finding"] for finding in findings)
    assert "the statements of run, discover, verify" in told
    assert "every table can be written" in told
    assert "TLS" in told


BROKEN: dict[str, tuple[str, str]] = {
    "no right at all": (
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {ROLE}", "has no SELECT, INSERT, UPDATE, DELETE on siorg_sync_queue",
    ),
    "no right on the schema": ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", "may not use the schema public"),
    "the claim's index": ("DROP INDEX siorg_sync_queue_claim_idx", "siorg_sync_queue_claim_idx of siorg_sync_queue is missing"),
    "an invalid index": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'siorg_sync_queue_lease_idx'::regclass",
        "the index siorg_sync_queue_lease_idx of siorg_sync_queue is invalid",
    ),
    "a trigger": ("DROP TRIGGER siorg_sync_queue_added ON siorg_sync_queue", "the trigger siorg_sync_queue_added"),
    "a disabled trigger": (
        "ALTER TABLE siorg_sync_queue DISABLE TRIGGER siorg_sync_queue_needed_again",
        "siorg_sync_queue_needed_again of siorg_sync_queue is disabled",
    ),
    "row-level security without a policy": (
        "ALTER TABLE siorg_sync_queue ENABLE ROW LEVEL SECURITY", "row-level security of siorg_sync_queue keeps every row",
    ),
    "a depth that is no number": (
        "UPDATE system_settings SET value = '\"twelve\"' WHERE key = 'units.max_hierarchy_depth'",
        "units.max_hierarchy_depth cannot be read",
    ),
    "a switch that is no boolean": (
        "UPDATE system_settings SET value = '\"maybe\"' WHERE key = 'siorg.sync_enabled'",
        "siorg.sync_enabled cannot be read",
    ),
    "no pace": ("DELETE FROM siorg_request_pace", "siorg_request_pace has no row"),
    "read-only": (
        f"ALTER ROLE {ROLE} SET default_transaction_read_only = on",
        "the database is read-only for this user",
    ),
    "another schema": (
        (
            "ALTER SCHEMA public RENAME TO elsewhere;"
            " ALTER FUNCTION elsewhere.fn_org_unit_integrity() SET search_path = pg_catalog, elsewhere, pg_temp"
        ),
        "stand in the schema elsewhere, which is not on the",
    ),
}  # fmt: skip


def test_every_single_right_that_is_missing_is_named(worker_url: str, connection: Connection) -> None:
    with connect(worker_url, application_name="test") as worker:
        settings = Settings.from_environment({"DATABASE_URL": worker_url})
        for table, rights in NEEDED.items():
            for right in rights:
                connection.execute(f"REVOKE {right} ON {table} FROM {ROLE}".encode())
                (finding,) = tables(worker, settings)
                assert finding.remedy == f"GRANT {right} ON {table} TO {ROLE};"
                connection.execute(finding.remedy.encode())


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_work_is_found_and_its_remedy_mends_it(
    what: str, doctor: Doctor, worker_url: str, connection: Connection, database_url: str
) -> None:
    breaking, said = BROKEN[what]
    connection.execute(breaking.encode())
    code, findings = doctor(worker_url)
    assert code == 1
    assert any(said in finding["finding"] for finding in errors(findings)), findings
    for _ in range(3):  # what hid the next one comes first
        for finding in errors(findings):
            for statement in (finding["remedy"] or "").split("; "):
                if statement.startswith("siorg-job migrate"):
                    run_job("migrate", env=job_environment(database_url, "http://127.0.0.1:9/doc"))
                elif statement:
                    connection.execute(statement.encode())
        code, findings = doctor(worker_url)
        if code == 0:
            return
    assert errors(findings) == []


_RENAME = "ALTER TABLE siorg_history RENAME COLUMN new_data TO newer"
_BUG = "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1 / 0; RETURN NEW; END $$;"
_SWALLOW = "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
_HIDE = (
    "ALTER TABLE siorg_sync_queue ENABLE ROW LEVEL SECURITY;"
    f"CREATE POLICY mine ON siorg_sync_queue TO {ROLE} USING (false) WITH CHECK (true)"
)
REFUSED: dict[str, tuple[str, str]] = {
    "a column that was renamed": (_RENAME, "columns are missing: siorg_history.new_data"),
    "and what does not work without it": (_RENAME, "run, organizations cannot work: column"),
    "a column of another type": (
        "ALTER TABLE organizations ALTER COLUMN is_active DROP DEFAULT, ALTER COLUMN is_active TYPE text USING is_active::text",
        "cannot work",
    ),
    "a foreign trigger with a bug": (
        _BUG + "CREATE TRIGGER audit AFTER INSERT ON organizational_units FOR EACH ROW EXECUTE FUNCTION audit()",
        "run cannot work: writing organizational_units is refused: division by zero (by audit())",
    ),
    "the same, at the end of the transaction": (
        _BUG + "CREATE CONSTRAINT TRIGGER audit AFTER INSERT ON siorg_history DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION audit()",
        "at the end of a transaction is refused: division by zero",
    ),
    "a trigger that swallows rows": (
        _SWALLOW + "CREATE TRIGGER swallow BEFORE INSERT ON siorg_history FOR EACH ROW EXECUTE FUNCTION swallow()",
        "writing siorg_history has no effect",
    ),
    "no levels and paths": (
        "DROP TRIGGER trg_org_unit_integrity ON organizational_units", "no trigger gives units their level and path",
    ),
    "a policy that hides items": (
        _HIDE,
        "cannot work",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_people_have_to_mend_themselves_is_named(what: str, doctor: Doctor, worker_url: str, connection: Connection) -> None:
    breaking, said = REFUSED[what]
    connection.execute(breaking.encode())
    code, findings = doctor(worker_url)
    assert code == 1
    assert any(said in finding["finding"] for finding in errors(findings)), findings


def test_every_statement_of_ours_is_planned_by_some_command() -> None:
    planned = {place for files in STATEMENTS.values() for place in files}
    for package, file in planned:
        assert load(package, file)
    files = {
        (".".join(path.relative_to(REPOSITORY / root).parts[:-2]), path.name)
        for root in ("job", "core")
        for path in (REPOSITORY / root).glob("**/sql/*.sql")
    }
    assert files - planned == {("siorg_queue", "predicates.sql"), ("siorg_job.doctor", "doctor.sql")}


def test_what_keeps_vacuum_from_removing_dead_rows_is_named_with_what_ends_it(
    doctor: Doctor, worker_url: str, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(url: str) -> list[tuple[str, str]]:
        return [(one["finding"], one["remedy"]) for one in doctor(url)[1] if "dead rows" in one["finding"]]

    assert told(database_url) == []
    with connect(database_url, application_name="a report") as report, report.transaction():
        report.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        report.execute("SELECT FROM siorg_sync_queue")
        assert told(database_url) == []
        monkeypatch.setattr(vacuum, "OLD_SECONDS", 0.0)  # that it is ten minutes old
        ((finding, remedy),) = told(database_url)
        assert finding.startswith(
            f"session {report.info.backend_pid} of postgres (a report, idle in transaction) has kept VACUUM"
        )
        assert remedy == f"SELECT pg_terminate_backend({report.info.backend_pid});"
        ((finding, _),) = told(worker_url)
        assert f"GRANT pg_read_all_stats TO {ROLE};" in finding, "whose sessions it does not see"


def test_it_says_which_siorg_it_asks(doctor: Doctor, database_url: str) -> None:
    class Refusing(Answering):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            self.answer(401, b"no", "text/plain")

    (answers,) = [one for one in doctor(database_url)[1] if "SIORG answers" in one["finding"]]
    assert "neither the public open-data service nor the default, without a token" in answers["finding"]
    assert doctor(database_url, SIORG_API_URL="http://127.0.0.1:9/doc")[0] == 75
    with LoopbackServer(Refusing) as refusing:
        assert doctor(database_url, SIORG_API_URL=refusing.url)[0] == 1


def test_people_read_lines_with_remedies_below(
    doctor: Doctor, connection: Connection, database_url: str, siorg: str, capsys: pytest.CaptureFixture[str]
) -> None:
    connection.execute("DROP INDEX siorg_sync_queue_claim_idx")
    assert main(["doctor"], {"DATABASE_URL": database_url, "SIORG_API_URL": siorg, "SIORG_ALLOW_INSECURE": "true"}) == 1
    lines = capsys.readouterr().out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("   error  the index siorg_sync_queue_claim_idx"))
    assert lines[at + 1] == "          → siorg-job migrate makes it again"


def test_a_database_of_the_first_worker_passes_once_it_is_migrated(doctor: Doctor, empty_database_url: str) -> None:
    existing = (REPOSITORY / "tests" / "database" / "waterswamp.sql").read_text()
    with connect(empty_database_url, application_name="test") as connection:
        connection.execute(existing.encode())
    code, findings = doctor(empty_database_url)
    assert code == 1
    assert [finding["remedy"] for finding in errors(findings)] == ["siorg-job migrate"]
    assert main(["migrate"], {"DATABASE_URL": empty_database_url}) == 0
    # That file has no trigger for units' level and path; an installation has.
    assert [finding["finding"] for finding in errors(doctor(empty_database_url)[1])] == [
        "no trigger gives units their level and path"
    ]
