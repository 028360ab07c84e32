"""An organization that SIORG has ended, or made a unit of another one, and one that it has again.

Its end and those of its units wait for one decision of a person; what SIORG has elsewhere goes there at once. Once a person has
deactivated it here, it is still asked for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.each import each_unit
from siorg_job.siorg.errors import InvalidData, MalformedResponse, NotAnOrganization, NotFound, SiorgError, says_no_organization
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.sync.model import OrganizationField, UnitField
from siorg_job.sync.organization import is_kept_active, lives_elsewhere
from siorg_job.sync.place import is_brought_here
from siorg_job.sync.read import read_decisions, read_for_comparison, read_registered
from siorg_queue import Connection, EntityType, NewItem, Operation, QueueStore, query, reading
from siorg_queue.statements import load

_SQL = load("siorg_job.reconciliation", "ended.sql")


class Elsewhere:
    """Where SIORG has units now: the structures of the registered organizations, each asked for once in a run.

    Attributes:
        is_last: every other organization has been asked for by now: what their structures say is known.
    """

    def __init__(self, siorg: SiorgClient, organizations: Iterable[int], *, is_last: bool = True) -> None:
        self._siorg = siorg
        self._unread = set(organizations)
        self._homes: dict[int, int] = {}  # and no more of the structures: all together would be some 200 MB
        self.is_last = is_last

    def add(self, structure: Structure) -> None:
        """A structure that was asked for anyway."""
        organization = structure.organization
        self._unread.discard(organization)
        for unit in structure.units.values():
            if unit.organization_code in (None, organization):
                self._homes[unit.code] = organization

    async def find(self, codes: Iterable[int], organization: int) -> dict[int, int]:
        """The organizations in which SIORG has these units of the ended ``organization``; without those that it has nowhere.

        Raises:
            SiorgError: a unit that is in no structure could not be asked for.
        """
        wanted = set(codes)
        for other in sorted(self._unread - {organization}) if wanted else ():
            try:
                self.add(await self._siorg.structure(other))
            except SiorgError:
                self._unread.discard(other)  # it has ended too, or cannot be read now: each unit is asked for
        found = {code: self._homes[code] for code in wanted if self._homes.get(code, organization) != organization}
        for code, answer in (await each_unit(wanted - found.keys(), self._siorg)).items():
            if isinstance(answer, RemoteUnit) and lives_elsewhere(answer, organization):
                found[code] = answer.organization_code or 0
        return found


@dataclass(frozen=True, slots=True)
class Ended:
    """What becomes of an organization that SIORG has no more."""

    items: list[NewItem] = field(default_factory=list)
    waiting: int = 0
    """Active units here that end with it."""
    nowhere: Collection[int] = ()
    """Those of them that were looked for, and that SIORG has nowhere."""
    is_kept: bool = False
    """A person decided that it stays active, or opened it again."""


async def version_of(organization: int, siorg: SiorgClient) -> str | None:
    """The version of an organization; None: SIORG says that it has no such organization.

    Raises:
        SiorgError: as ``SiorgClient.version``.
    """
    try:
        return await siorg.version(organization)
    except (NotFound, NotAnOrganization) as error:
        if not says_no_organization(error):
            raise
        return None


async def exists(organization: int, siorg: SiorgClient) -> bool:
    """Whether SIORG has an organization, whatever its version is.

    Raises:
        SiorgError: it could not be asked.
    """
    try:
        return await version_of(organization, siorg) is not None
    except InvalidData:
        return True


async def structure_of(organization: int, siorg: SiorgClient) -> Structure:
    """The structure of an organization that has a version.

    Raises:
        SiorgError: as ``SiorgClient.structure``.
        MalformedResponse: SIORG has no such organization after all.
    """
    try:
        return await siorg.structure(organization)
    except (NotFound, NotAnOrganization) as error:
        if not says_no_organization(error):
            raise
        failure = MalformedResponse(f"SIORG contradicts itself about organization {organization}: a version, and {error}")
    raise failure


async def confirm(organization: int, siorg: SiorgClient) -> None:
    """Ask twice more whether SIORG has no such organization, for the structure.

    Raises:
        SiorgError: it could not be asked.
        MalformedResponse: it has one.
    """
    for _ in range(2):
        try:
            await siorg.structure(organization)
        except (NotFound, NotAnOrganization) as error:
            if not says_no_organization(error):
                raise
        else:
            raise MalformedResponse(f"SIORG contradicts itself about organization {organization}: no version, and a structure")


async def look(organization: int, connection: Connection, elsewhere: Elsewhere | None, asked_at: datetime) -> Ended:
    """What has to be done about an organization that SIORG has no more.

    Args:
        organization: its code.
        connection: to the rows here; nothing is written.
        elsewhere: where its units are looked for; None: they were, and not long ago.
        asked_at: when SIORG was asked, by the database's clock.

    Raises:
        SiorgError: a unit could not be asked for.
    """
    with reading(connection):
        copy = read_for_comparison(connection, organization, [])
        asked = read_decisions(connection, [organization, *copy.units], copy)
        known = read_registered(connection)
    units = {code for code, unit in copy.units.items() if unit.is_active and unit.organization_code == organization}
    homes = {} if elsewhere is None else await elsewhere.find(units, organization)
    in_question = {  # not the end of one that has a place elsewhere, held or not; of one that leaves, nothing is in question
        code
        for entity_type, code, name, _ in asked
        if entity_type is EntityType.UNIT and name != UnitField.IS_ACTIVE and homes.get(code) in known
    }
    items = [
        NewItem(EntityType.UNIT, code, Operation.HIERARCHY_CHANGE, _hint(code, home), needed_at=asked_at)
        for code, home in sorted(homes.items(), key=lambda found: (copy.units[found[0]].level, found[0]))
        if code not in in_question and not is_brought_here(copy.units[code], home, copy)
    ]
    is_kept = is_kept_active(copy.organizations[organization], copy)
    question = (EntityType.ORGANIZATION, organization, str(OrganizationField.IS_ACTIVE), json.dumps(obj=False))
    if not is_kept and question not in asked:
        items.append(NewItem(EntityType.ORGANIZATION, organization, Operation.EXTINCTION, needed_at=asked_at))
    nowhere = units - homes.keys()
    return Ended(items, len(nowhere), nowhere if elsewhere is not None else (), is_kept=is_kept)


def end_questions(connection: Connection, store: QueueStore, organization: int) -> None:
    """Of an organization that is not active here: end what people are asked about its units, but for those that move away."""
    codes = [row["code"] for row in query(connection, _SQL["in_question"], organization=organization)]
    store.end_conflicts(codes, f"organization {organization} is not active here: nothing of it is kept in line")


def remembers_an_end(connection: Connection, organization: int) -> bool:
    """Whether the end of an organization that SIORG has is open, was turned down, or is what we last wrote."""
    return bool(query(connection, _SQL["remembers_an_end"], organization=organization)[0]["found"])


def record_ended(connection: Connection, organization: int, *, at_rest: bool) -> None:
    """Forget the version: a demotion that is undone comes back with the old one. ``at_rest``: nothing of it has to move."""
    query(connection, _SQL["record_ended"], organization=organization, at_rest=at_rest)


def record_existence(connection: Connection, organization: int, found: bool | None) -> None:  # noqa: FBT001 - three values
    """Note whether SIORG has an organization again that it had ended; None: there is nothing to say about it any more."""
    query(connection, _SQL["record_existence"], organization=organization, exists=json.dumps(found))


def _hint(code: int, organization: int) -> dict[str, Any]:
    """Where the item's unit is to be looked for, as a row of SIORG's says it."""
    return {"codigoUnidade": str(code), "codigoOrgaoEntidade": str(organization)} if organization else {}
