"""``siorg-job preview`` and ``siorg-job adopted`` as people run them, beside the simulator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from siorg_job.__main__ import main
from siorg_queue import Connection
from support.local_structure import whole_tables
from support.simulated import row
from support.siorg_server import SiorgServer

UFMT = 471

Job = Callable[..., list[str]]


@pytest.fixture(scope="module")
def siorg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiorgServer]:
    rows = [
        row(26, None, 26, codigoTipoUnidade="orgao"),
        row(UFMT, 26, UFMT, nome="Fundação Universidade Federal de Mato Grosso", sigla="UFMT"),
        row(16466, UFMT, UFMT, nome="Reitoria", sigla="RT"),
        row(16467, 16466, UFMT, nome="Secretaria", sigla="SEC"),
    ]
    snapshot = tmp_path_factory.mktemp("siorg") / "snapshot.json"
    snapshot.write_text(json.dumps({"servico": {}, "unidades": rows}), encoding="utf-8")
    with SiorgServer("--snapshot", snapshot) as server:
        yield server


@pytest.fixture
def job(database_url: str, siorg: SiorgServer, capsys: pytest.CaptureFixture[str]) -> Job:
    """Run siorg-job with these words; the lines that it prints."""

    def run(*words: str, code: int = 0, url: str = siorg.url) -> list[str]:
        settings = {
            "DATABASE_URL": database_url,
            "SIORG_API_URL": url,
            "SIORG_ALLOW_INSECURE": "true",
            "SIORG_TIMEOUT_SECS": "10",
        }
        capsys.readouterr()
        ended, printed = main(words, settings), capsys.readouterr()
        assert ended == code, printed
        return (printed.out + printed.err if code else printed.out).splitlines()

    return run


def test_counts_come_first_and_nothing_is_written(job: Job, connection: Connection) -> None:
    before = whole_tables(connection)
    home = connection.execute("SELECT name FROM organizations").fetchone()
    printed = job("preview", "--organization", str(UFMT))
    assert whole_tables(connection) == before
    assert printed[:2] == ["1 organizations, 3 rows compared; nothing was written", "+ 2 created"]
    assert home is not None
    assert f"+ unit 16467 Secretaria  {home['name']} > Reitoria > Secretaria" in printed


def test_as_json_the_counts_are_the_first_line(job: Job) -> None:
    counts, *changes = [json.loads(line) for line in job("preview", "--json", "--organization", str(UFMT))]
    assert (counts["organizations"], counts["rows"], counts["changes"]["create"], counts["untold"]) == (1, 3, 2, {})
    assert [(change["what"], change["code"]) for change in changes if change["entity_type"] == "UNIT"] == [
        ("create", 16466), ("create", 16467),
    ]  # fmt: skip


def test_after_the_real_thing_nothing_is_left(job: Job) -> None:
    job("discover")
    job("run")
    assert "nothing would be written" in job("preview")


def test_what_cannot_be_asked_is_75_and_said(job: Job) -> None:
    printed = job("preview", "--organization", str(UFMT), code=75, url="http://127.0.0.1:9/doc")
    assert any(line.startswith("471 could not be compared: ") for line in printed)
    assert "organization 9 is not registered here: siorg-job organizations add" in job("preview", "--organization", "9", code=1)


def test_one_decision_about_adopted_bases(job: Job, connection: Connection) -> None:
    job("discover")
    job("run")
    connection.execute(
        "UPDATE organizational_units SET siorg_base = NULL, name = CASE siorg_code WHEN 16466 THEN 'Errado' ELSE name END"
    )
    assert job("adopted") == [
        'unit 16466 name: here "Errado", SIORG "Reitoria", siorg_raw_data "Reitoria"',
        "1 values differ where nothing is recorded of what was last written",
    ]
    assert any("Say --yes" in line for line in job("adopted", "accept-siorg", code=1))
    assert job("adopted", "accept-siorg", "--yes", "--by", "Ana")[-1] == "1 decisions on the queue; the next run applies them"
    job("run")
    assert connection.execute("SELECT name FROM organizational_units WHERE siorg_code = 16466").fetchone() == {"name": "Reitoria"}
    assert job("adopted", "accept-siorg", "--yes") == ["nothing to decide"]
