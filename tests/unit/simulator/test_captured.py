"""The captured structures of UFMT, served in the form of 2026."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from siorg_simulator.control import load_snapshot
from siorg_simulator.endpoints import Site
from siorg_simulator.quirks import Quirk
from siorg_simulator.structure import History, differences
from support.simulated import ask
from support.siorg_server import CAPTURES

OLD, NEW = CAPTURES / "ufmt-2016-03-02.json", CAPTURES / "ufmt-2016-06-30.json"

pytestmark = pytest.mark.skipif(not OLD.exists(), reason="the captured data is not beside this checkout")


@pytest.fixture(scope="module")
def site() -> Site:
    return Site(History.of([load_snapshot(OLD), load_snapshot(NEW)]))


def test_the_whole_structure_in_the_captured_order(site: Site) -> None:
    rows = ask(site, "estrutura-organizacional/completa", codigoUnidade="471", codigoPoder="1", codigoEsfera="1")["unidades"]
    captured = json.loads(NEW.read_text())["unidades"]
    assert len(rows) == 476
    for served, given in zip(rows, captured, strict=True):
        for key in ("codigoUnidade", "codigoUnidadePai", "codigoOrgaoEntidade", "codigoTipoUnidade"):
            assert served[key] == given[key].replace("http://", "https://")
        for key in ("nome", "sigla", "nivelNormatizacao", "versaoConsulta", "dataInicialVersaoConsulta"):
            assert served[key] == given[key]
        assert [served[key].rsplit("/", 1)[1] for key in ("codigoEsfera", "codigoPoder", "codigoNaturezaJuridica")] == list("112")


def test_legacy_quirks_give_the_captured_rows_back() -> None:
    quirks = frozenset({Quirk.LEGACY_SLUGS, Quirk.HTTP_URIS, Quirk.NO_LATER_KEYS})
    site = Site(History.of([load_snapshot(OLD), load_snapshot(NEW)]), quirks)
    assert ask(site, "estrutura-organizacional", codigoUnidade="471")["unidades"] == json.loads(NEW.read_text())["unidades"]


def test_what_changed_between_the_captures(site: Site) -> None:
    rows = ask(site, "unidade-organizacional/471/alteradas", versaoConsulta="104.0.0")["unidades"]
    assert Counter(row["operacao"] for row in rows) == {"INCLUSAO": 19, "ALTERACAO": 1, "EXCLUSAO": 2}
    old, new = site.history.editions
    assert len(differences(old, new, 471)) == 22
    assert ask(site, "unidade-organizacional/471/versao")["unidades"][0]["versaoConsulta"] == "107.0.0"
    assert ask(site, "unidade-organizacional/471/alteradas", versaoConsulta="103.0.0")["servico"]["codigoErro"] == 103
