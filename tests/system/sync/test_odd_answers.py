"""What SIORG may say oddly has one defined result, which a discovery finds in line afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from siorg_job.reconciliation.discover import Discovery, discover, registered
from siorg_job.reconciliation.verify import verify
from siorg_job.siorg.model import Structure
from support.local_structure import UFMT, World, siorg_row


class Siorg:
    """SIORG's side of a discovery over made-up rows, with a version of its own."""

    def __init__(self, world: World) -> None:
        self.rows, self.version_now = world.siorg, "99.0.0"
        self.unit = world.siorg.unit
        self.before: list[Callable[[], None]] = []
        """What happens right before the next structures are answered."""

    async def version(self, organization: int) -> str:
        return self.version_now

    async def structure(self, organization: int) -> Structure:
        for happen in self.before[:1]:
            happen()
        del self.before[:1]
        return await self.rows.structure(organization)


@pytest.fixture
def siorg(world: World) -> Siorg:
    return Siorg(world)


def _synced(world: World, siorg: Siorg) -> Discovery:
    (organization,) = registered(world.connection, [UFMT])
    found = asyncio.run(discover(organization, cast("Any", siorg), world.connection, world.store))
    world.drain()
    return found


_UNIT = "https://estruturaorganizacional.dados.gov.br/id/unidade-organizacional"
_ODD: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "an override": ({"nome": "Secre\u202etaria\u202c", "sigla": "\u200fSEC"}, {"name": "Secretaria", "acronym": "SEC"}),
    "controls": ({"nome": "\x00Secre\x07ta\x9fria\r\n \t Geral\x1b"}, {"name": "Secretaria Geral"}),
    "an acronym of 50": ({"sigla": f" {'S' * 50} "}, {"acronym": "S" * 50}),
    "an acronym of controls": ({"sigla": "\u202e\x07 "}, {"acronym": None}),
    "leading zeros": (
        {"codigoUnidade": "000900", "codigoUnidadePai": f"{_UNIT}/000899", "codigoOrgaoEntidade": "0471"},
        {"siorg_code": 900, "siorg_parent_code": 899, "parent_code": 899, "organization_code": UFMT},
    ),
    "numbers for codes": (
        {"codigoUnidade": 900, "codigoUnidadePai": 899, "codigoOrgaoEntidade": 471},
        {"siorg_code": 900, "parent_code": 899, "organization_code": UFMT},
    ),
    "a version with zeros": ({"versaoConsulta": "099.00.0"}, {"siorg_last_version": "99.0.0"}),
}  # fmt: skip


@pytest.mark.parametrize("odd", _ODD)
def test_it_is_stored_in_one_form_and_differs_no_more(world: World, siorg: Siorg, odd: str) -> None:
    said, stored = _ODD[odd]
    world.siorg.rows |= {899: siorg_row(899), 900: {**siorg_row(900, 899), **said}}
    _synced(world, siorg)
    unit = world.unit(900)
    assert {column: unit[column] for column in stored} == stored
    assert (world.unit(899)["parent_id"], len(world.units())) == (None, 2)
    siorg.version_now = "100.0.0"  # so that all is compared again
    assert list(_synced(world, siorg).items) == []
    assert not asyncio.run(verify(UFMT, cast("Any", siorg), world.connection)).departures


def test_an_acronym_of_51_fails_alone_with_its_name_and_comes_once_it_is_mended(world: World, siorg: Siorg) -> None:
    world.siorg.publish(siorg_row(899), siorg_row(900, sigla="S" * 51), siorg_row(901))
    _synced(world, siorg)
    assert world.statuses() == {UFMT: "COMPLETED", 899: "COMPLETED", 900: "FAILED", 901: "COMPLETED"}
    error = world.items(900)[0]["last_error"]
    assert "sigla is text of 51 characters; allowed: text of at most 50 characters" in error
    (departure,) = asyncio.run(verify(UFMT, cast("Any", siorg), world.connection)).departures
    assert (departure.code, departure.kind) == (900, "failed")
    assert "sigla" in departure.reason
    world.siorg.change(900, sigla="SEC")
    siorg.version_now = "100.0.0"
    _synced(world, siorg)
    assert world.unit(900)["acronym"] == "SEC"


@pytest.mark.parametrize("version_first", [True, False])
def test_a_version_beside_a_structure_of_another_time_hides_no_change(world: World, siorg: Siorg, version_first: bool) -> None:
    """SIORG changes between the two requests, or shows the new version beside the old rows."""
    world.siorg.publish(siorg_row(900))
    for _ in range(2):
        _synced(world, siorg)

    def change() -> None:
        world.siorg.change(900, nome="Nova", versaoConsulta="100.0.0")

    siorg.version_now = "100.0.0"
    if version_first:
        siorg.before = [lambda: None, change]
    else:
        siorg.before = [change]
        siorg.version_now = "99.5.0"
    for _ in range(2):
        _synced(world, siorg)
        siorg.version_now = "100.0.0"
    unit = world.unit(900)
    assert (unit["name"], unit["siorg_last_version"]) == ("Nova", "100.0.0")
    for _ in range(2):
        assert list(_synced(world, siorg).items) == []
    assert _synced(world, siorg).how == "unchanged"
