"""Neither the token nor the database's password is ever printed, stored or raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from siorg_job.__main__ import main
from siorg_queue import Connection
from support.job import job_environment, run_job
from support.loopback_http import Answering, LoopbackServer
from support.queue import insert
from support.siorg_server import SiorgServer

TOKEN = "tok-Zx81QwV7-secret"
PASSWORD = "p@ss/W0rd:Zx81#%"
SHAPES = (TOKEN, PASSWORD, quote(PASSWORD, safe=""), "Zx81")
ASKING = (["discover", "--organization", "471"], ["run"], ["doctor"])
READING = (["status"], ["conflicts"], ["retry"])
COMMANDS = (*ASKING, *READING)


def with_password(url: str) -> str:
    return url.replace("postgres@", f"postgres:{quote(PASSWORD, safe='')}@", 1)


def answering(status: int, **headers: str) -> LoopbackServer:
    """A server that gives one answer to everything; as some gateways do, with what it was sent."""

    class Handler(Answering):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            body = f"<html>{self.headers.get('Authorization')} is not welcome</html>".encode()
            self.answer(status, body, "text/html", **headers)

    return LoopbackServer(Handler)


SIORGS: dict[str, Callable[[], SiorgServer | LoopbackServer]] = {
    "working": lambda: SiorgServer("--synthetic", "30", "--token", TOKEN),
    "failing": lambda: SiorgServer("--synthetic", "30", "--faults", "status=503:0.4,torn=0.3,garbage=0.3"),
    "redirecting": lambda: answering(302, Location=f"https://elsewhere.example/?token={TOKEN}"),
    "refusing": lambda: answering(401),
    "echoing": lambda: answering(200),
}


def text_of(connection: Connection) -> str:
    """Everything that is stored, of every table."""
    tables = connection.execute(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall()
    rows = [connection.execute(f"SELECT t::text AS row FROM {table['name']} AS t".encode()).fetchall() for table in tables]
    assert rows
    return "\n".join(row["row"] for part in rows for row in part)


def check(text: str) -> None:
    for shape in SHAPES:
        assert shape not in text, text


pytestmark = pytest.mark.usefixtures("handlers")


@pytest.mark.parametrize("kind", SIORGS)
def test_with_every_kind_of_siorg(
    kind: str, database_url: str, connection: Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    termination = tmp_path / "termination"
    termination.touch()
    for code in range(401, 406):
        insert(connection, siorg_code=code, max_attempts="1")
    form = "json" if kind in {"failing", "refusing"} else "text"
    with SIORGS[kind]() as siorg:
        env = job_environment(
            with_password(database_url), siorg.url, SIORG_API_TOKEN=TOKEN, LOG_LEVEL="debug", LOG_FORMAT=form,
            WORKER_TERMINATION_LOG=str(termination), WORKER_UNAVAILABLE_SECS="0.5", SIORG_BREAKER_COOLDOWN_SECS="0.2",
            WORKER_LINGER_SECS="0",
        )  # fmt: skip
        for command in ASKING:
            done = run_job(*command, env=env, code=None)
            assert done.returncode in {0, 1, 75}, done.stderr
            assert "Traceback" not in done.stderr, done.stderr
            check(done.stdout + done.stderr)
            if command == ["run"]:
                assert done.returncode == (0 if kind == "working" else 75), done.stderr
    for command in READING:
        assert main(command, env) == 0
        check("".join(capsys.readouterr()))
    check(termination.read_text())
    check(text_of(connection))


@pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_with_a_database_that_refuses(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    password = quote(PASSWORD, safe="")
    for url in (f"postgresql://siorg:{password}@127.0.0.1:9/d", f"postgresql://siorg@127.0.0.1:9/d?password={password}"):
        termination = tmp_path / "termination"
        termination.touch()
        env = job_environment(
            url, SIORG_API_TOKEN=TOKEN, WORKER_UNAVAILABLE_SECS="0", LOG_LEVEL="debug", WORKER_TERMINATION_LOG=str(termination)
        )
        assert main(command, env) in {1, 75}
        check("".join(capsys.readouterr()) + termination.read_text())


def test_a_server_that_turns_the_user_away(database_url: str) -> None:
    url = with_password(database_url).replace("/test_", "/no_such_", 1)
    done = run_job("run", env=job_environment(url, WORKER_UNAVAILABLE_SECS="0"), code=None)
    assert done.returncode in {1, 75}
    check(done.stdout + done.stderr)


@pytest.mark.parametrize(
    "url",
    [
        f"https://siorg.example:{TOKEN}@evil.example/doc",
        f"https://{TOKEN}@siorg.example/doc",
        f"https://siorg.example/doc?token={TOKEN}",
        f"https://siorg.example/doc#{TOKEN}",
        f"https://siorg.example\\@{TOKEN}.example/doc",
        f"http://{TOKEN}.example/doc",
        f"https://siorg.example:{TOKEN}/doc",
    ],
)
def test_tricks_with_the_address_are_refused_and_not_repeated(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"], {"DATABASE_URL": "postgresql://u@127.0.0.1:9/d", "SIORG_API_URL": url}) == 2
    told = capsys.readouterr()
    assert "SIORG_API_URL" in told.err
    check(told.out + told.err)


def test_errors_of_the_database_driver_do_not_hold_the_password() -> None:
    from siorg_queue import DatabaseUnavailable, connect

    with pytest.raises(DatabaseUnavailable) as refused:
        connect(f"postgresql://siorg:{quote(PASSWORD, safe='')}@127.0.0.1:9/d", application_name="test")
    error: BaseException | None = refused.value
    while error is not None:
        check(f"{error!r} {error} {error.args}")
        error = error.__cause__ or error.__context__
