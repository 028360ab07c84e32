"""The client against the simulator: the same structure comes out whatever form SIORG gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import NotAnOrganization, NotFound
from siorg_job.siorg.model import DomainTable, RemoteUnit
from support.siorg_client import client_of
from support.siorg_server import SiorgServer

QUIRKS = [
    "unit-as-array", "unit-key-plural", "list-key-singular", "list-as-object-when-one", "legacy-slugs",
    "codes-as-int", "padded-codes",
    "http-uris", "versao-doc-shape", "not-found-404", "empty-null", "empty-absent", "nulls-absent",
    "root-only", "address-ints",
    "no-later-keys", "message-dot", "pascal-case",
]  # fmt: skip


@pytest.fixture
def server() -> Iterator[SiorgServer]:
    with SiorgServer("--synthetic", "80", "--synthetic-changes", "12", "--seed", "7") as server:
        yield server


def comparable(unit: RemoteUnit) -> RemoteUnit:
    """What must not depend on the form; a municipality's number leaves the same line, raw is the form itself."""
    return replace(unit, raw="")


async def everything(client: SiorgClient) -> dict[str, Any]:
    structure = await client.structure(471)
    assert not structure.invalid
    assert not structure.unidentified
    codes = sorted(structure.units)[:10]
    version = await client.version(471)
    with pytest.raises(NotFound):
        await client.unit(2_000_000_000)
    with pytest.raises(NotAnOrganization):
        await client.structure(next(code for code in structure.units if code != 471))
    return {
        "structure": {code: comparable(unit) for code, unit in structure.units.items()},
        "units": [comparable(unit) for unit in await asyncio.gather(*map(client.unit, codes))],
        "version": version,
        "domains": {table: {row.code: row.name for row in await client.domain(table)} for table in DomainTable},
    }


async def test_every_form_of_the_answers_gives_the_same_model(server: SiorgServer) -> None:
    async with client_of(server.url) as client:
        expected = await everything(client)
        assert len(expected["structure"]) >= 70
        for quirk in QUIRKS:
            server.control("PUT", "quirks", {"quirks": [quirk]})
            assert await everything(client) == expected, quirk
