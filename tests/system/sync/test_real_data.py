"""Discover and drain by real processes, against the simulator: the local structure becomes SIORG's, and stays."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from support.captured import NEW, OLD, story
from support.job import job_environment, run_job, summary_of
from support.local_structure import UFMT, World, check_tree, whole_tables
from support.siorg_server import SiorgServer

_GENERATED = ("--synthetic", "240", "--seed", "7")


Story: TypeAlias = tuple[tuple[str | Path, ...], tuple[str | Path, ...]]
"""SIORG at two times, as arguments of the simulator."""


@pytest.fixture(params=["captured", "generated"])
def stages(request: pytest.FixtureRequest) -> Story:
    if request.param == "generated":
        return _GENERATED, (*_GENERATED, "--synthetic-changes", "40")
    if not NEW.exists():
        pytest.skip("no captured data beside this checkout; the generated structure has the same dirt")
    return ("--snapshot", OLD), ("--snapshot", OLD, "--snapshot", NEW)


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


def _assert_in_line(world: World, siorg: dict[int, dict[str, Any]]) -> None:
    local = world.units()
    for code, row in siorg.items():
        if code == UFMT:
            continue
        unit, parent = world.unit(code), _code(row["codigoUnidadePai"])
        assert (unit["name"], unit["acronym"]) == (_said(row["nome"]), _said(row["sigla"]))
        assert (unit["parent_code"], unit["siorg_parent_code"]) == (None if parent == UFMT else parent, parent)
        assert (unit["organization_code"], unit["siorg_last_version"]) == (UFMT, row["versaoConsulta"])
        assert unit["is_active"]
    for code in local.keys() - siorg.keys():
        assert not local[code]["is_active"]
        assert local[code]["deactivated_at"] is not None
    assert check_tree(world.connection) == len(local)


def test_a_structure_comes_whole_then_follows_siorg_and_then_stays(stages: Story, empty_database_url: str) -> None:
    before, after = stages
    with World(empty_database_url) as world:
        with SiorgServer(*before) as server:
            env = job_environment(world.url, server.url)
            run_job("migrate", env=env)
            first = _siorg_rows(server)
            run_job("discover", "--organization", "471", env=env)
            summary_of(run_job("run", env=env).stdout)
            _assert_in_line(world, first)

        with SiorgServer(*after) as server:
            second = _siorg_rows(server)
            env = job_environment(
                world.url, server.url, SIORG_MAX_ENDS="100"
            )  # of the generated ones more end than a person would let
            run_job("discover", env=env)
            run_job("run", env=env)
            if world.rows(
                "SELECT FROM siorg_sync_queue WHERE status = 'CONFLICT' AND held_at IS NOT NULL"
            ):  # more than the limit
                run_job("held", "release", "--organization", "471", "--yes", env=env)
                run_job("run", env=env)
            _assert_in_line(world, second)
            if after[0] == "--snapshot":
                assert len(second) == 476
            gone = first.keys() - second.keys()
            assert gone
            for code in gone:
                (end,) = [entry for entry in world.history(code) if entry["change_type"] == "EXTINCTION"]
                assert (end["requires_review"], end["previous_data"]["is_active"], end["new_data"]) == (True, True, None)
            assert {row["status"] for row in world.rows("SELECT DISTINCT status FROM siorg_sync_queue")} == {"COMPLETED"}

            still = whole_tables(world.connection)
            run_job("discover", env=env)
            run_job("run", env=env)
            del still["system_settings"]  # when it was compared
            assert whole_tables(world.connection) | still == whole_tables(world.connection)


def test_edited_decided_in_every_way_and_reformed_there_and_back_it_has_no_drift(database_url: str, tmp_path: Path) -> None:
    if not NEW.exists():
        pytest.skip("no captured data beside this checkout")
    lines = story(database_url, tmp_path, seed=2, states=("first", "reform", "first"))
    assert "decided" in lines[1], lines  # or nothing was in dispute
