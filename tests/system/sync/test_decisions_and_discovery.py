"""After a decision, in whatever form, the next discovery brings what nobody was asked about, and asks again what was put off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast
from uuid import UUID

import pytest

from siorg_job.reconciliation.discover import Discovery, discover, registered
from siorg_job.siorg.model import Structure
from support.local_structure import UFMT, MadeUpSiorg, World, siorg_row, whole_tables

CODE = 900


class _Versioned:
    """SIORG's side of a discovery: one version, which moves when a test says so."""

    def __init__(self, siorg: MadeUpSiorg) -> None:
        self.siorg, self.number = siorg, 99

    async def version(self, organization: int) -> str:
        return f"{self.number}.0.0"

    async def structure(self, organization: int) -> Structure:
        return await self.siorg.structure(organization)


@pytest.fixture
def discovered(world: World) -> Callable[[], Discovery]:
    """A unit at rest; then its name changes here and in SIORG, its acronym there, its area here, and a conflict is open.

    Discovers, as often as it is called.
    """
    siorg = _Versioned(world.siorg)

    def again() -> Discovery:
        (organization,) = registered(world.connection, [UFMT])
        return asyncio.run(discover(organization, cast("Any", siorg), world.connection, world.store))

    world.siorg.publish(siorg_row(CODE, nome="Secretaria", sigla="SEC", areaAtuacao="MEIO"))
    for _ in range(2):
        again()
        world.drain()
    world.edit(CODE, name="Nossa Secretaria", activity_area="CORE")
    world.siorg.change(CODE, nome="Secretaria Geral", sigla="SG", versaoConsulta="100.0.0")
    siorg.number = 100
    again()
    world.drain()
    for _ in range(2):  # what a person was asked is not asked again, nor is what waits for the answer beside it
        assert list(again().items) == []
    return again


def _by_command(*words: str) -> Callable[[World, UUID], None]:
    return lambda world, id_: world.resolve_by_command(id_, *words)


def _as_the_api_server(resolution: str, fields: Mapping[str, str] | None = None, **changes: str) -> Callable[[World, UUID], None]:
    def write(world: World, id_: UUID) -> None:
        copied = {"merged_payload": {**world.siorg.rows[CODE], **changes}, "field_resolutions": fields or {}}
        world.resolve(id_, resolution, **(copied if resolution == "MERGE" else {}))

    return write


def _closed(status: str) -> Callable[[World, UUID], None]:
    """What the API server writes: COMPLETED keeps the local values, SKIPPED is later."""

    def write(world: World, id_: UUID) -> None:
        world.connection.execute(
            "UPDATE siorg_sync_queue SET status = %s::sync_status_enum, processed_at = now()"
            " WHERE id = %s AND status = 'CONFLICT'", [status, id_],
        )  # fmt: skip

    return write


def _deleted(world: World, id_: UUID) -> None:
    world.connection.execute("DELETE FROM siorg_sync_queue WHERE id = %s", [id_])


_OURS, _SIORGS = "Nossa Secretaria", "Secretaria Geral"
_ASKED_AGAIN = None
_WAYS: dict[str, tuple[Callable[[World, UUID], None], str | None]] = {
    "--accept-siorg": (_by_command("--accept-siorg"), _SIORGS),
    "--keep-local": (_by_command("--keep-local"), _OURS),
    "--set": (_by_command("--set", "name=Mista"), "Mista"),
    "--skip": (_by_command("--skip"), _ASKED_AGAIN),
    "the API server: accept": (_as_the_api_server("ACCEPT_SIORG"), _SIORGS),
    "the API server: merge of a copy": (_as_the_api_server("MERGE", {"name": "LOCAL"}), _OURS),
    "the API server: merge of an edited copy": (_as_the_api_server("MERGE", nome="Mista"), "Mista"),
    "the API server: keep": (_closed("COMPLETED"), _OURS),
    "the API server: skip": (_closed("SKIPPED"), _ASKED_AGAIN),
    "the API server: delete": (_deleted, _ASKED_AGAIN),
}


@pytest.mark.parametrize("way", _WAYS)
def test_what_was_not_asked_about_comes_and_what_was_put_off_is_asked_again(
    world: World, discovered: Callable[[], Discovery], way: str
) -> None:
    decide, name = _WAYS[way]
    (asked,) = world.rows("SELECT * FROM siorg_sync_queue WHERE status = 'CONFLICT'")
    assert list(asked["detected_changes"]) == ["name"]
    decide(world, asked["id"])
    world.drain()
    discovered()
    world.drain()
    unit = world.unit(CODE)
    open_ = world.rows("SELECT * FROM siorg_sync_queue WHERE status = 'CONFLICT'")
    if name is _ASKED_AGAIN:
        assert (unit["name"], unit["acronym"], unit["activity_area"]) == (_OURS, "SEC", "CORE")
        assert [list(item["detected_changes"]) for item in open_] == [["name"]]
    else:
        assert (unit["name"], unit["acronym"], unit["activity_area"]) == (name, "SG", "CORE")
        assert open_ == []
    still = whole_tables(world.connection)
    assert list(discovered().items) == []
    world.drain()
    del still["system_settings"]  # when it was compared
    assert whole_tables(world.connection) | still == whole_tables(world.connection)
