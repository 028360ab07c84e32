"""What a limit has stopped is listed with paths and counts, and a person decides exactly what was listed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from siorg_job.__main__ import main
from support.job import job_environment
from support.local_structure import ANOTHER, UFMT, World, siorg_row

_REASON = "3 of 4 units would end; the limit is 2 (half of the units)"
_NAMES = "2 of 4 names would become one and the same"
Job = Callable[..., int]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """900 > 901 > 902 in UFMT, of which two ends and a name are held; 950 in another organization, of which the end is."""
    with World(database_url) as made:
        made.register(ANOTHER)
        made.have_line(900, 901, 902)
        made.have(siorg_row(950, ANOTHER, organization=ANOTHER))
        for code in (901, 902, 950):
            _held(made, code, "is_active", True, False, _REASON)
        _held(made, 900, "name", "Unidade 900", "Reitoria?", _NAMES)
        yield made


def _held(world: World, code: int, field: str, local: Any, remote: Any, reason: str) -> UUID:
    changes = json.dumps({field: {"base": local, "local": local, "remote": remote}})
    (id_,) = world.enqueue(
        code,
        operation="EXTINCTION" if field == "is_active" else "UPDATE",
        detected_changes=changes,
        status="CONFLICT",
        last_error=reason,
    )
    world.connection.execute("UPDATE siorg_sync_queue SET held_at = clock_timestamp() WHERE id = %s", [id_])
    return id_


@pytest.fixture
def job(world: World) -> Job:
    return lambda *words: main(("held", *words), {"DATABASE_URL": world.url})


def _statuses(world: World) -> dict[int, str]:
    found = world.rows("SELECT siorg_code, status::text FROM siorg_sync_queue WHERE held_at IS NOT NULL ORDER BY siorg_code")
    return {row["siorg_code"]: row["status"] for row in found}


def _listed(job: Job, capsys: pytest.CaptureFixture[str], code: int = UFMT) -> dict[str, Any]:
    assert job("list", "--organization", str(code), "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_list_has_each_organization_with_counts_reasons_paths_and_a_digest(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    ufmt = _listed(job, capsys)
    assert (ufmt["organization"], ufmt["acronym"], ufmt["counts"], ufmt["reasons"]) == (
        UFMT, "UFMT", {"ends": 2, "names": 1}, [_REASON, _NAMES],
    )  # fmt: skip
    last = ufmt["rows"][-1]
    assert (last["code"], last["field"], last["local"], last["remote"]) == (900, "name", "Unidade 900", "Reitoria?")
    assert job() == 0
    printed = capsys.readouterr().out
    assert f"UFMT (471): 2 ends, 1 name held, digest {ufmt['digest']}" in printed
    assert f"O500 (500): 1 end held, digest {_listed(job, capsys, ANOTHER)['digest']}" in printed
    lines = (
        "  901  Fundação Universidade Federal de Mato Grosso > Unidade 900 > Unidade 901  ends",
        'Unidade 900  name: "Unidade 900" → "Reitoria?"',
        "siorg-job held release --organization 471 --digest",
        _REASON,
    )
    for line in lines:
        assert line in printed, printed


def test_nothing_held_is_said(job: Job, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.connection.execute("DELETE FROM siorg_sync_queue WHERE held_at IS NOT NULL")
    assert job() == job("--json") == 0
    assert capsys.readouterr().out == "nothing is held\n"
    assert job("release", "--organization", "471", "--yes") == 1
    assert "nothing of organization 471 is held" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "decision"),
    [
        ("release", {"resolution": "ACCEPT_SIORG"}),
        ("drop", {"resolution": "MERGE", "field_resolutions": {"is_active": "LOCAL"}}),
    ],
)
def test_a_digest_decides_the_rows_that_were_listed_with_name_and_note(
    job: Job, world: World, capsys: pytest.CaptureFixture[str], verb: str, decision: dict[str, Any]
) -> None:
    digest = _listed(job, capsys)["digest"]
    assert job(verb, "--organization", "471", "--digest", digest, "--by", "ana", "--note", "Decreto 9.999", "--yes") == 0
    assert capsys.readouterr().out.startswith(f"3 {verb.rstrip('p')}")
    assert _statuses(world) == {900: "PENDING", 901: "PENDING", 902: "PENDING", 950: "CONFLICT"}
    item = world.items(902)[-1]
    assert (item["error_details"], item["resolution_notes"]) == ({**decision, "resolved_by": "ana"}, "Decreto 9.999")


def test_a_digest_of_other_rows_decides_nothing_and_says_what_came_since(
    job: Job, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = _listed(job, capsys)["digest"]
    late = _held(world, 900, "is_active", True, False, _REASON)
    assert job("release", "--organization", "471", "--digest", digest, "--yes") == 1
    now = _listed_after_error(job, capsys, "1 came since: 900 Unidade 900")
    world.connection.execute("DELETE FROM siorg_sync_queue WHERE id <> %s AND siorg_code = 900", [late])
    assert job("drop", "--organization", "471", "--digest", now, "--yes") == 1
    assert "some of them are not held any more" in capsys.readouterr().err
    assert set(_statuses(world).values()) == {"CONFLICT"}


def _listed_after_error(job: Job, capsys: pytest.CaptureFixture[str], said: str) -> str:
    error = capsys.readouterr().err
    digest: str = _listed(job, capsys)["digest"]
    assert said in error
    assert f"digest {digest}" in error
    return digest


def test_without_a_terminal_nobody_is_asked_and_nothing_is_decided(
    job: Job, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert job("release", "--organization", "471") == 1
    assert "--digest and --yes" in capsys.readouterr().err
    assert set(_statuses(world).values()) == {"CONFLICT"}


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1), ("no", 1), ("\x04", 1), (None, 1)])  # end of input, Ctrl-C
def test_on_a_terminal_it_lists_asks_and_decides_what_it_has_listed(world: World, answer: str | None, code: int) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "siorg_job", "held", "release", "--organization", "471"]
    process = subprocess.Popen(command, env=job_environment(world.url), stdin=theirs, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = ""
    while "[y/N] " not in printed:
        letter = process.stdout.read(1)
        assert letter, printed
        printed += letter
    late = _held(world, 902, "name", "Unidade 902", "Outra", _NAMES)
    if answer is None:
        process.send_signal(signal.SIGINT)
    else:
        os.write(ours, f"{answer}\n".encode())
    process.communicate(timeout=30)
    assert process.returncode == code
    assert "Unidade 900 > Unidade 901 > Unidade 902  ends" in printed
    assert world.item(late)["status"] == "CONFLICT"
    first = "PENDING" if code == 0 else "CONFLICT"
    others = "SELECT siorg_code, status::text FROM siorg_sync_queue WHERE held_at IS NOT NULL AND id <> %s"
    decided = {row["siorg_code"]: row["status"] for row in world.rows(others, late)}
    assert decided == {**dict.fromkeys((900, 901, 902), first), 950: "CONFLICT"}
    for each in (ours, theirs):
        os.close(each)


def test_what_was_released_is_applied_by_the_next_run(job: Job, world: World) -> None:
    world.siorg.remove(901, 902)
    world.siorg.change(900, nome="Reitoria?")
    assert job("release", "--organization", "471", "--yes") == 0
    world.drain()
    assert [world.unit(code)["is_active"] for code in (900, 901, 902)] == [True, False, False]
    assert world.unit(900)["name"] == "Reitoria?"


def test_what_was_dropped_stays_until_siorg_says_something_else(job: Job, world: World) -> None:
    world.siorg.change(900, nome="Reitoria?")
    world.siorg.remove(901, 902)
    assert job("drop", "--organization", "471", "--yes") == 0
    world.drain()
    assert world.sync(900)["status"] == "COMPLETED"
    assert (world.unit(900)["name"], world.unit(902)["is_active"]) == ("Unidade 900", True)
    world.sync_changed(900, nome="Reitoria")
    assert world.unit(900)["name"] == "Reitoria"
