"""The client against the simulator: the same structure comes out whatever form SIORG gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from siorg_job.siorg.breaker import Breaker
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import NotAnOrganization, NotFound, VersionUnknown
from siorg_job.siorg.model import DomainTable, RemoteUnit
from siorg_job.siorg.rate_limiter import Unlimited
from siorg_job.siorg.values import version_key
from support.siorg_server import SiorgServer

STRUCTURE = ("--synthetic", "80", "--synthetic-changes", "12", "--seed", "7")


@pytest.fixture(scope="module")
def plain() -> Iterator[SiorgServer]:
    with SiorgServer(*STRUCTURE) as server:
        yield server


def client_of(server: SiorgServer) -> SiorgClient:
    return SiorgClient(server.url, limiter=Unlimited(), breaker=Breaker(5, 1, 60))


def comparable(unit: RemoteUnit) -> dict[str, Any]:
    """What must not depend on the form; a municipality's number leaves the same line, raw is the form itself."""
    names = [name for name in RemoteUnit.__slots__ if name != "raw"]
    return {name: getattr(unit, name) for name in names}


async def everything(client: SiorgClient) -> dict[str, Any]:
    structure = await client.structure(471)
    assert not structure.invalid
    assert not structure.unidentified
    codes = sorted(structure.units)[:10]
    return {
        "structure": {code: comparable(unit) for code, unit in structure.units.items()},
        "units": [comparable(unit) for unit in await asyncio.gather(*map(client.unit, codes))],
        "version": await client.version(471),
        "domains": {table: {row.code: row.name for row in await client.domain(table)} for table in DomainTable},
    }


QUIRKS = [
    "unit-as-array", "unit-key-plural", "list-key-singular", "list-as-object-when-one", "legacy-slugs",
    "codes-as-int", "padded-codes",
    "http-uris", "versao-doc-shape", "not-found-404", "empty-null", "empty-absent", "nulls-absent",
    "root-only", "address-ints",
    "no-later-keys", "message-dot", "pascal-case",
]  # fmt: skip


@pytest.mark.parametrize("quirk", QUIRKS)
def test_every_form_of_the_answers_gives_the_same_model(plain: SiorgServer, quirk: str) -> None:
    async def scenario(server: SiorgServer) -> dict[str, Any]:
        async with client_of(server) as client:
            found = await everything(client)
            with pytest.raises(NotFound):
                await client.unit(2_000_000_000)
            with pytest.raises(NotAnOrganization):
                await client.structure(next(code for code in found["structure"] if code != 471))
            assert await client.changed_since(471, found["version"]) == []
            with pytest.raises(VersionUnknown):
                await client.changed_since(471, "1.0.0")
            return found

    expected = asyncio.run(scenario(plain))
    assert len(expected["structure"]) >= 70
    with SiorgServer(*STRUCTURE, "--quirk", quirk) as server:
        assert asyncio.run(scenario(server)) == expected


def test_changes_lead_from_the_old_structure_to_the_new() -> None:
    async def scenario(server: SiorgServer) -> None:
        async with client_of(server) as client:
            server.control("PUT", "snapshot", {"index": 0})
            old, old_version = await client.structure(471), await client.version(471)
            server.control("PUT", "snapshot", {"index": 1})
            new, new_version = await client.structure(471), await client.version(471)
            assert version_key(old_version) < version_key(new_version)
            changes = {unit.code: unit for unit in await client.changed_since(471, old_version)}
            ended = {code for code, unit in changes.items() if unit.ended}
            assert set(old.units) | set(changes) == set(new.units) | ended
            assert ended == set(old.units) - set(new.units)
            for code, unit in new.units.items():
                known = changes.get(code) or old.units[code]
                assert (known.name, known.acronym, known.parent_code) == (unit.name, unit.acronym, unit.parent_code)

    with SiorgServer(*STRUCTURE) as server:
        asyncio.run(scenario(server))


def test_a_wrong_path_of_the_right_server_is_told(plain: SiorgServer) -> None:
    async def scenario() -> None:
        url = plain.url.removesuffix("/doc") + "/docs"
        async with SiorgClient(url, limiter=Unlimited(), breaker=Breaker(5, 1, 60), retries=0) as client:
            with pytest.raises(Exception, match="is SIORG_API_URL right"):
                await client.unit(471)

    asyncio.run(scenario())
