"""Registering and correcting organizations, beside a SIORG that knows them, knows better, or is away."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from siorg_job.__main__ import main, parser
from siorg_queue import Connection
from support.loopback_http import Gateway
from support.scripted_server import envelope, unit_row
from support.simulated import row
from support.siorg_server import SiorgServer

UFMG, UFMG_CNPJ = 423, "17217985000104"
UFMT, UFMT_CNPJ = 471, "33004540000100"
ANOTHER_CNPJ = "00000000000191"
WITH_LETTERS = "12ABC34501DE35"
NAME = "Universidade Federal de Minas Gerais"
NOWHERE = "http://127.0.0.1:9/doc"
ADD = ("organizations", "add", str(UFMG), "--cnpj", "17.217.985/0001-04", "--ug-code", "153062")
ADD_OFFLINE = (*ADD, "--acronym", "UFMG", "--name", NAME, "--offline")

Job = Callable[..., int]


@pytest.fixture(scope="module")
def siorg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiorgServer]:
    """Knows UFMG and UFMT, a line of two units in UFMT, one unit in UFMG, and an organization without an acronym."""
    rows = [
        row(26, None, 26, codigoTipoUnidade="orgao"),
        row(UFMG, 26, UFMG, nome=NAME, sigla="UFMG"),
        row(UFMT, 26, UFMT, nome="Fundação Universidade Federal de Mato Grosso", sigla="UFMT"),
        row(16466, UFMT, UFMT, nome="Reitoria", sigla="RT"),
        row(16467, 16466, UFMT, nome="Secretaria", sigla="SEC"),
        row(9002, UFMG, UFMG),
        row(300, 26, 300, sigla=" "),
    ]
    snapshot = tmp_path_factory.mktemp("siorg") / "snapshot.json"
    snapshot.write_text(json.dumps({"servico": {}, "unidades": rows}), encoding="utf-8")
    with SiorgServer("--snapshot", snapshot) as server:
        yield server


@pytest.fixture
def job(database_url: str, siorg: SiorgServer) -> Job:
    """Run siorg-job with these words, beside this SIORG or another."""

    def run(*words: str, url: str = siorg.url) -> int:
        more = {"SIORG_API_URL": url, "SIORG_ALLOW_INSECURE": "true", "SIORG_TIMEOUT_SECS": "10"}
        return main(words, {"DATABASE_URL": database_url, **more})

    return run


def organization(connection: Connection, code: int = UFMG) -> dict[str, Any] | None:
    return connection.execute("SELECT * FROM organizations WHERE siorg_code = %s", [code]).fetchone()


def codes(connection: Connection) -> list[int]:
    return [one["siorg_code"] for one in connection.execute("SELECT siorg_code FROM organizations ORDER BY 1")]


# ── add ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_name_and_acronym_are_taken_from_siorg(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    assert job(*ADD) == 0
    assert f"registered UFMG (423), {NAME}" in capsys.readouterr().out
    added = organization(connection)
    assert added is not None
    wanted = {"acronym": "UFMG", "name": NAME, "cnpj": UFMG_CNPJ, "ug_code": 153062, "is_main": False, "is_active": True}
    assert wanted.items() <= added.items()
    assert added["siorg_synced_at"] is None  # that is the sync's to say


@pytest.mark.parametrize(
    ("name", "differs"), [("UNIVERSIDADE  FEDERAL de Minas-Gerais", False), ("Universidade de Minas Gerais", True)]
)
def test_a_given_name_is_written_and_siorgs_shown_where_it_differs_in_substance(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str], name: str, differs: bool
) -> None:
    assert job(*ADD, "--name", name) == 0
    assert (f"SIORG's name is '{NAME}'" in capsys.readouterr().out) is differs
    added = organization(connection)
    assert added is not None
    assert (added["name"], added["acronym"]) == (" ".join(name.split()), "UFMG")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (16466, ["no órgão or entidade: Reitoria (RT), unidade-administrativa of UFMT (471), which is registered"]),
        (9002, ["unidade-administrativa of organization 423", "siorg-job organizations add 423"]),
        (999, ["SIORG has no órgão or entidade 999", "102"]),
        (300, ["SIORG says nothing for --acronym of 300"]),
    ],
)
def test_what_siorg_does_not_have_as_an_organization_is_refused(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str], code: int, told: list[str]
) -> None:
    assert job("organizations", "add", str(code), *ADD[3:]) == 1
    printed = capsys.readouterr().err
    assert [part for part in [*told, "Nothing was written"] if part not in printed] == [], printed
    assert codes(connection) == [UFMT]


@pytest.mark.parametrize(
    ("status", "body", "code", "told"),
    [
        (200, envelope(code=101, message="Não existem unidades com os critérios informados."), 1, "no órgão or entidade 423"),
        (200, envelope(code=104, message="Unidade organizacional deve ser um órgão ou entidade."), 1, "no órgão or entidade 423"),
        (200, envelope(value=unit_row(UFMG, operacao="EXCLUSAO")), 1, "SIORG has ended 423"),
        (200, envelope(value=unit_row(UFMG, sigla="A" * 51)), 1, "sigla is text of 51 characters"),
        (200, envelope(code=1, message="Erro geral de processamento."), 75, "--offline"),
        (200, b"<html>", 75, "--offline"),
        (403, b"", 75, "SIORG_API_TOKEN"),
        (503, b"", 75, "Try again later"),
    ],
)
def test_an_answer_that_is_none_writes_nothing_and_says_what_to_do(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str], status: int, body: bytes, code: int, told: str
) -> None:
    with Gateway(status, body=body) as gateway:
        assert job(*ADD, url=gateway.url) == code
    printed = capsys.readouterr().err
    assert told in printed
    assert "Nothing was written" in printed
    assert "Traceback" not in printed
    assert codes(connection) == [UFMT]


def test_a_siorg_that_is_away_or_left_alone_is_75_and_offline_goes_on_without_it(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(*ADD, url=NOWHERE) == 75
    assert "SIORG cannot be asked about 423" in capsys.readouterr().err
    connection.execute("UPDATE siorg_request_pace SET paused_until = now() + interval '90 s'")
    assert job(*ADD) == 75
    assert "requests to SIORG have to wait" in capsys.readouterr().err
    assert codes(connection) == [UFMT]
    assert job(*ADD_OFFLINE, url=NOWHERE) == 0
    assert codes(connection) == [UFMG, UFMT]


def test_what_is_registered_already_is_named_without_asking_siorg(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(*ADD) == 0
    assert job(*ADD, url=NOWHERE) == 1
    assert f"the SIORG code 423 is registered already: UFMG, CNPJ {UFMG_CNPJ}" in capsys.readouterr().err
    assert job("organizations", "add", "300", *ADD[3:], url=NOWHERE) == 1
    assert f"the CNPJ {UFMG_CNPJ} is registered already, as that of UFMG (423)" in capsys.readouterr().err
    assert codes(connection) == [UFMG, UFMT]


def test_every_value_that_cannot_be_used_is_named(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("organizations", "add", "423", "--ug-code", "153062", "--cnpj", "123", "--name", "N" * 256, "--acronym", " \u202e ")
    assert job(*words, url=NOWHERE) == 1
    assert [line.split(";")[0] for line in capsys.readouterr().err.splitlines()] == [
        "--acronym has characters that cannot be printed",
        "--name is text of 256 characters",
        "--cnpj is text of 3 characters without punctuation",
    ]
    assert codes(connection) == [UFMT]


def test_a_cnpj_with_letters_is_taken_where_the_database_takes_it(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("organizations", "add", str(UFMG), "--ug-code", "153062", "--cnpj", "12.abc.345/01DE-35")
    assert job(*words) == 1
    printed = capsys.readouterr().err
    assert f"the check digits of the CNPJ {WITH_LETTERS} are right, but this database does not take it" in printed
    assert r"constraint chk_cnpj_format of table organizations: CHECK ((cnpj ~ '^\d{14}$'::text))" in printed
    assert job("organizations", "edit", str(UFMT), "--cnpj", WITH_LETTERS) == 1
    assert "chk_cnpj_format" in capsys.readouterr().err
    assert codes(connection) == [UFMT]
    connection.execute("ALTER TABLE organizations DROP CONSTRAINT chk_cnpj_format")
    assert job(*words) == 0
    assert (organization(connection) or {})["cnpj"] == WITH_LETTERS


# ── edit ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_edit_shows_before_and_after_and_changes_nothing_else(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    before = organization(connection, UFMT)
    words = ["--cnpj", "00.000.000/0001-91", "--ug-code", "7", "--no-is-main", "--city", " Cuiabá ", "--zip-code", "78060-900"]
    assert job("organizations", "edit", str(UFMT), *words, "--state", "mt", "--website", "", url=NOWHERE) == 0
    assert capsys.readouterr().out.splitlines() == [
        "UFMT (471)",
        f"  cnpj: {UFMT_CNPJ} → {ANOTHER_CNPJ}",
        "  city: nothing → Cuiabá",
        "  state: nothing → MT",
        "  zip_code: nothing → 78060900",
        "  website: https://www.ufmt.br → nothing",
        "  ug_code: 154045 → 7",
        "  is_main: yes → no",
        "It was never synced: the first sync brings what SIORG says",
    ]
    after = organization(connection, UFMT)
    assert before is not None
    assert after is not None
    changed = {name: value for name, value in after.items() if before[name] != value and name != "updated_at"}
    assert changed == {
        "cnpj": ANOTHER_CNPJ, "city": "Cuiabá", "state": "MT", "zip_code": "78060900", "website": None, "ug_code": 7,
        "is_main": False,
    }  # fmt: skip
    assert job("organizations", "edit", str(UFMT), "--ug-code", "7") == 0
    assert capsys.readouterr().out == "UFMT (471): nothing to change, it is so already\n"


def test_a_renamed_organization_is_in_the_paths_of_its_units_and_siorgs_name_is_shown(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("discover") == 0
    assert job("run") == 0
    capsys.readouterr()
    assert job("organizations", "edit", str(UFMT), "--name", "UFMT, a nossa") == 0
    printed = capsys.readouterr().out
    assert "name: Fundação Universidade Federal de Mato Grosso → UFMT, a nossa" in printed
    assert "SIORG's name is 'Fundação Universidade Federal de Mato Grosso'; yours stays until SIORG changes it" in printed
    paths = connection.execute("SELECT path_names FROM organizational_units ORDER BY siorg_code").fetchall()
    assert [unit["path_names"] for unit in paths] == ["UFMT, a nossa > Reitoria", "UFMT, a nossa > Reitoria > Secretaria"]


def test_a_second_main_organization_is_pointed_out(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job(*ADD) == 0
    assert job("organizations", "edit", str(UFMG), "--is-main") == 0
    assert "Main too: UFMT (471)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([str(UFMG), "--ug-code", "1"], "organization 423 is not registered here; siorg-job organizations list"),
        ([str(UFMT), "--cnpj", ANOTHER_CNPJ], f"the CNPJ {ANOTHER_CNPJ} is registered already, as that of O26 (26)"),
        ([str(UFMT), "--cnpj", "33004540000101"], "--cnpj is 33004540000101, whose check digits 01 are wrong"),
        ([str(UFMT), "--name", ""], "--name is text of 0 characters; allowed: 1 to 255 characters"),
        ([str(UFMT), "--state", "Mato Grosso"], "--state is text of 10 characters; allowed: two letters"),
        ([str(UFMT), "--zip-code", "7806090"], "--zip-code is text of 7 characters; allowed: eight digits"),
    ],
)
def test_an_edit_that_cannot_be_is_refused(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    connection.execute(
        "INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code) VALUES (26, 'O26', 'Outra', %s, 1)", [ANOTHER_CNPJ]
    )
    before = organization(connection, UFMT)
    assert job("organizations", "edit", *words) == 1
    assert told in capsys.readouterr().err
    assert organization(connection, UFMT) == before


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [["list", "--json"], ["--json"], ["--json", "list"]])
def test_the_list_for_programs_has_one_object_a_line(job: Job, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert job(*ADD) == 0
    capsys.readouterr()
    assert job("organizations", *words) == 0
    added, seeded = map(json.loads, capsys.readouterr().out.splitlines())
    assert added == {
        "siorg_code": UFMG, "acronym": "UFMG", "name": NAME, "cnpj": UFMG_CNPJ, "ug_code": 153062, "is_main": False,
        "is_active": True, "units": 0, "version": None, "synced_at": None, "exists_in_siorg": None,
    }  # fmt: skip
    assert seeded["siorg_code"] == UFMT


def test_the_list_for_people_names_each(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job("organizations") == 0
    assert "UFMT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*ADD, "--offline", "--name", NAME], "--offline needs --acronym and --name"),
        ([*ADD[:-1], "1000000"], "--ug-code"),
        (["organizations", "edit", str(UFMT)], "give at least one of --acronym, --name, --cnpj"),
        (["organizations", "edit", str(UFMT), "--is-main", "--no-is-main"], "not allowed with"),
    ],
)
def test_wrong_usage_is_2(job: Job, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as end:
        job(*words)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["add", "edit"])
def test_the_examples_of_the_help_are_commands(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["organizations", verb, "--help"])
    printed = capsys.readouterr().out.partition("examples:")[2].replace("\\\n", " ")
    examples = [words[1:] for line in printed.splitlines() if (words := shlex.split(line)) and words[0] == "siorg-job"]
    assert len(examples) >= 3
    for words in examples:
        parser().parse_args(words)
