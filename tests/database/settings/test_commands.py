"""Every command under every setting that a role or a database may have: the right result, or exit 2 with the setting's name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from siorg_job.__main__ import main
from siorg_queue import Connection
from support.fleet import eventually
from support.pgbouncer import pgbouncer, program
from support.postgres import Postgres
from support.siorg_server import SiorgServer

ENQUEUE = "enqueue 471 --entity organization"
COMMANDS = (
    "migrate", "migrate --check", "preview", "discover", ENQUEUE, "run", "status", "conflicts", "held", "discover --full",
    "verify", "adopted", "organizations", "cleanup", "doctor",
)  # fmt: skip

WORKS: dict[str, tuple[int, ...]] = dict.fromkeys(COMMANDS, (0,))
REFUSED: dict[str, tuple[int, ...]] = dict.fromkeys(COMMANDS, (2,))
# Read-only is obeyed. Who asks SIORG writes when it does, so that all keep the rate together; doctor names the setting.
READ_ONLY = dict.fromkeys(COMMANDS, (0, 75)) | {
    "migrate": (75,), ENQUEUE: (75,), "run": (75,), "discover": (75,), "status": (0,), "conflicts": (0,), "held": (0,),
    "organizations": (0,), "doctor": (1,),
}  # fmt: skip

SETTINGS = {
    "DateStyle": ["SQL, DMY", "German, YMD", "Postgres, MDY"],
    "IntervalStyle": ["sql_standard", "iso_8601"],
    "TimeZone": ["America/Cuiaba", "Asia/Kathmandu"],
    "array_nulls": ["off"],
    "bytea_output": ["escape"],
    "client_encoding": ["LATIN1", "SQL_ASCII"],
    "default_transaction_deferrable": ["on"],
    "default_transaction_isolation": ["repeatable read", "serializable", "read uncommitted"],
    "escape_string_warning": ["on"],
    "extra_float_digits": ["-15", "3"],
    "gin_fuzzy_search_limit": ["1"],
    "idle_in_transaction_session_timeout": ["50ms"],
    "idle_session_timeout": ["50ms"],
    "jit_above_cost": ["0"],
    "lc_messages": ["C.utf8"],
    "lock_timeout": ["200ms"],
    "quote_all_identifiers": ["on"],
    "row_security": ["off"],
    "session_replication_role": ["replica", "local"],
    "standard_conforming_strings": ["off"],
    "statement_timeout": ["200ms"],
    "transaction_timeout": ["200ms"],
    "transform_null_equals": ["on"],
}


pytestmark = pytest.mark.usefixtures("handlers")


WANTS_THE_SERVER = ("standard_conforming_strings", "statement_timeout", "lock_timeout")
"""To build an index with these, migrate has to be connected to the server itself."""

# What may run outside of a transaction of ours, in which the session's own settings hold.
_BY_ITSELF = (
    "BEGIN", "SELECT clock_timestamp()", "SELECT current_setting(", "SELECT pg_backend_pid()", "SELECT s.name, s.setting", "SET ",
    "RESET ", "SELECT 1 AS broken", "CREATE INDEX CONCURRENTLY", "DROP INDEX CONCURRENTLY",
)  # fmt: skip


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every other statement has the settings that it relies on."""
    found: list[str] = []
    execute = Connection.execute

    def watched(self: Connection, query: Any, *arguments: Any, **more: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else str(query)
        is_at_rest = self.info.transaction_status == psycopg.pq.TransactionStatus.IDLE and self.beginning is None
        if is_at_rest and self.pgconn.pipeline_status == psycopg.pq.PipelineStatus.OFF and not text.startswith(_BY_ITSELF):
            found.append(text)
        return execute(self, query, *arguments, **more)

    monkeypatch.setattr(Connection, "execute", watched)
    yield
    assert found == []


@pytest.fixture(scope="module")
def siorg() -> Iterator[SiorgServer]:
    with SiorgServer("--synthetic", "12") as server:
        yield server


ROLE = "siorg_with_settings"


@pytest.fixture
def admin(postgres: Postgres) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(ROLE)))
        yield connection
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(ROLE)))


@dataclass
class Commands:
    """Runs all commands with one database; keeps what came of each."""

    url: str
    siorg: str
    capsys: pytest.CaptureFixture[str]
    codes: dict[str, int] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> str:
        return self.url.rsplit("/", 1)[1].split("?", 1)[0]

    def run(self, *words: str) -> None:
        """These commands, or all."""
        for command in words or COMMANDS:
            siorg = {"SIORG_API_URL": self.siorg, "SIORG_ALLOW_INSECURE": "true"}
            self.codes[command] = main(command.split(), {"DATABASE_URL": self.url, "WORKER_UNAVAILABLE_SECS": "0.5", **siorg})
            self.told[command] = "".join(self.capsys.readouterr())

    def end_in(self, wanted: dict[str, tuple[int, ...]]) -> None:
        wrong = {name: (code, self.told[name]) for name, code in self.codes.items() if code not in wanted[name]}
        assert not wrong, "\n".join(f"{name}: exit {code}\n{told}" for name, (code, told) in wrong.items())
        assert not [name for name, told in self.told.items() if "Traceback" in told or "fault of ours" in told]


@pytest.fixture
def commands(
    postgres: Postgres, admin: psycopg.Connection, siorg: SiorgServer, capsys: pytest.CaptureFixture[str]
) -> Iterator[Commands]:
    """With a database of the role's own, without any table."""
    url = postgres.database(migrated=False)
    made = Commands(url.replace("//postgres@", f"//{ROLE}@"), siorg.url, capsys)
    admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(made.database), sql.Identifier(ROLE)))
    yield made
    postgres.drop(url)


def set_for_role(admin: psycopg.Connection, name: str, value: str) -> None:
    words = sql.SQL(", ").join(sql.Literal(word.strip()) for word in value.split(","))
    admin.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(sql.Identifier(ROLE), sql.Identifier(name), words))


def everything_was_done(postgres: Postgres, database: str) -> None:
    """Each item once, and what was written is what is written elsewhere."""
    with psycopg.connect(postgres.url(database), row_factory=dict_row) as connection:
        items = connection.execute("SELECT status, attempts, last_error FROM siorg_sync_queue").fetchall()
        assert len(items) > 10
        assert {(item["status"], item["attempts"], item["last_error"]) for item in items} == {("COMPLETED", 1, None)}
        (ufmt,) = connection.execute("SELECT name FROM organizations WHERE siorg_code = 471")
        assert ufmt["name"] == "Fundação Universidade Federal de Mato Grosso"
        units = connection.execute("SELECT path_names, level, path_ids FROM organizational_units").fetchall()
        assert units
        assert all(unit["path_names"] and unit["level"] == len(unit["path_ids"]) for unit in units)
        (pattern,) = connection.execute("SELECT pg_get_indexdef('siorg_sync_queue_open_units_idx'::regclass) AS definition")
        assert r"/?\s*$" in pattern["definition"]
        assert not connection.execute("SELECT FROM pg_index WHERE NOT indisvalid").fetchall()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in SETTINGS.items() for value in values])
def test_commands_work_with_a_setting_or_name_it(
    name: str, value: str, commands: Commands, admin: psycopg.Connection, postgres: Postgres
) -> None:
    try:
        set_for_role(admin, name, value)
    except psycopg.errors.UndefinedObject:
        pytest.skip("this server does not know the setting")
    commands.run()
    if (name, value) == ("session_replication_role", "replica"):
        commands.end_in(REFUSED)
        assert all(name in told for told in commands.told.values())
    else:
        commands.end_in(WORKS)
        everything_was_done(postgres, commands.database)


def test_read_only_is_obeyed(commands: Commands, admin: psycopg.Connection, postgres: Postgres) -> None:
    commands.run()
    commands.run("enqueue 16466")
    set_for_role(admin, "default_transaction_read_only", "on")
    commands.run()
    commands.end_in({**READ_ONLY, "enqueue 16466": (0,)})
    assert "default_transaction_read_only" in commands.told["doctor"]
    with psycopg.connect(postgres.url(commands.database)) as connection:
        waiting = connection.execute("SELECT attempts FROM siorg_sync_queue WHERE status = 'PENDING'").fetchall()
    assert waiting
    assert {attempts for (attempts,) in waiting} == {0}


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_in_another_encoding_is_refused_by_name(
    encoding: str, commands: Commands, admin: psycopg.Connection, postgres: Postgres
) -> None:
    admin.execute(f"DROP DATABASE {commands.database}")
    admin.execute(
        f"CREATE DATABASE {commands.database} OWNER {ROLE} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    commands.run()
    commands.end_in(REFUSED)
    assert all(f"server_encoding is {encoding}" in told for told in commands.told.values())


def test_an_index_may_take_longer_than_the_roles_limit(commands: Commands, admin: psycopg.Connection, postgres: Postgres) -> None:
    set_for_role(admin, "statement_timeout", "300ms")
    building = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND starts_with(query, 'CREATE INDEX CONCURRENTLY')"
        " AND clock_timestamp() - query_start > interval '1 second'"
    )
    with psycopg.connect(postgres.url(commands.database)) as report:
        report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        report.execute("SELECT 1")

        def end_report() -> None:
            eventually(lambda: admin.execute(building, [commands.database]).fetchone())
            report.rollback()

        ending = Thread(target=end_report)
        ending.start()
        commands.run("migrate")
        ending.join()
    commands.end_in(WORKS)


@pytest.mark.pgbouncer
@pytest.mark.skipif(program() is None, reason="the program pgbouncer is not installed")
@pytest.mark.parametrize(
    "name", ["DateStyle", "TimeZone", "client_encoding", "default_transaction_isolation", "extra_float_digits", *WANTS_THE_SERVER]
)
def test_behind_pgbouncer_too_where_an_index_wants_the_server_itself(
    name: str, commands: Commands, admin: psycopg.Connection, postgres: Postgres
) -> None:
    set_for_role(admin, name, SETTINGS[name][0])
    direct = commands.url
    with pgbouncer(postgres, user=ROLE) as port:
        commands.url = f"postgresql://{ROLE}@127.0.0.1:{port}/{commands.database}"
        commands.run("migrate")
        if name in WANTS_THE_SERVER:
            assert commands.codes["migrate"] == 2
            assert f"{name} is " in commands.told["migrate"]
            pooled, commands.url = commands.url, direct
            commands.run("migrate")
            commands.url = pooled
        commands.run()
    commands.end_in(WORKS)
    everything_was_done(postgres, commands.database)
