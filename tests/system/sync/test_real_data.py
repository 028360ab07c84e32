"""Discover and drain by real processes, against the simulator: the local structure becomes SIORG's, and stays."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from siorg_queue import Connection, connect
from support.job import job_environment, run_job, summary_of
from support.local_structure import check_tree, whole_tables
from support.siorg_server import CAPTURES, SiorgServer

OLD, NEW = CAPTURES / "ufmt-2016-03-02.json", CAPTURES / "ufmt-2016-06-30.json"
_GENERATED = ("--synthetic", "240", "--seed", "7")


@dataclass(frozen=True)
class Story:
    """SIORG at two times."""

    before: tuple[str | Path, ...]
    after: tuple[str | Path, ...]


@pytest.fixture(params=["captured", "generated"])
def story(request: pytest.FixtureRequest) -> Story:
    if request.param == "generated":
        return Story(_GENERATED, (*_GENERATED, "--synthetic-changes", "40"))
    if not NEW.exists():
        pytest.skip("no captured data beside this checkout; the generated structure has the same dirt")
    return Story(("--snapshot", OLD), ("--snapshot", OLD, "--snapshot", NEW))


def _code(value: object) -> int | None:
    return int(str(value).rsplit("/", 1)[-1]) if value not in (None, "") else None


def _said(value: str | None) -> str | None:
    return " ".join((value or "").split()) or None


def _siorg_rows(server: SiorgServer) -> dict[int, dict[str, Any]]:
    """SIORG's structure by code, read past our own client and parser."""
    query = "codigoPoder=1&codigoEsfera=1&codigoUnidade=471&retornarOrgaoEntidadeVinculados=NAO"
    url = f"{server.url}/estrutura-organizacional/completa?{query}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        rows = json.load(answer)["unidades"]
    return {code: row for row in rows if (code := _code(row["codigoUnidade"])) is not None}


def _local_units(connection: Connection) -> dict[int, dict[str, Any]]:
    rows = connection.execute(
        "SELECT u.*, p.siorg_code AS parent, o.siorg_code AS organization FROM organizational_units u"
        " JOIN organizations o ON o.id = u.organization_id LEFT JOIN organizational_units p ON p.id = u.parent_id"
    )
    return {row["siorg_code"]: row for row in rows}


def _assert_in_line(connection: Connection, siorg: dict[int, dict[str, Any]]) -> None:
    local = _local_units(connection)
    for code, row in siorg.items():
        if code == 471:
            continue
        unit = local[code]
        parent = _code(row["codigoUnidadePai"])
        assert unit["name"] == _said(row["nome"])
        assert unit["acronym"] == _said(row["sigla"])
        assert unit["parent"] == (None if parent == 471 else parent)
        assert unit["siorg_parent_code"] == parent
        assert unit["organization"] == 471
        assert unit["siorg_last_version"] == row["versaoConsulta"]
        assert unit["is_active"]
    for code in local.keys() - siorg.keys():
        assert not local[code]["is_active"]
        assert local[code]["deactivated_at"] is not None
    assert check_tree(connection) == len(local)


@pytest.fixture
def siorg(story: Story) -> Iterator[SiorgServer]:
    with SiorgServer(*story.before) as server:
        yield server


def test_a_structure_comes_whole_then_follows_siorg_and_then_stays(
    story: Story, siorg: SiorgServer, empty_database_url: str
) -> None:
    env = job_environment(empty_database_url, siorg.url)
    run_job("migrate", env=env)
    with connect(empty_database_url, application_name="test") as connection:
        first = _siorg_rows(siorg)
        run_job("discover", "--organization", "471", env=env)
        summary_of(run_job("run", env=env).stdout)
        _assert_in_line(connection, first)

        siorg.stop()
        with SiorgServer(*story.after) as later:
            second = _siorg_rows(later)
            env = job_environment(empty_database_url, later.url)
            run_job("discover", env=env)
            run_job("run", env=env)
            _assert_in_line(connection, second)
            if story.after[0] == "--snapshot":
                assert len(second) == 476
            gone = first.keys() - second.keys()
            assert gone
            for code in gone:
                (end,) = connection.execute(
                    "SELECT * FROM siorg_history WHERE siorg_code = %s AND change_type = 'EXTINCTION'", [code]
                )
                assert end["requires_review"]
                assert end["previous_data"]["is_active"]
                assert end["new_data"] is None
            statuses = {row["status"] for row in connection.execute("SELECT DISTINCT status FROM siorg_sync_queue")}
            assert statuses == {"COMPLETED"}

            still = whole_tables(connection)
            run_job("discover", env=env)
            run_job("run", env=env)
            assert whole_tables(connection) == still
