"""What makes a unit's answer complete: the parents that have to be applied before it, down from the first that is local."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from siorg_job.database.thread import DatabaseThread
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import InvalidData, NotFound, ParentFailed, PermanentError
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_queue.statements import load

_LONGEST_CHAIN = 64  # levels: far beyond any real hierarchy, so a longer one is damage


@dataclass(frozen=True, slots=True)
class LocalParent:
    """A parent that is here."""

    organization_code: int | None
    """None: it is inactive, and so may be anywhere in SIORG."""
    below: bool
    """Whether it hangs below the unit that is to hang below it."""
    touched: bool
    """Whether it has an item that is open, in dispute or FAILED, or is here where SIORG did not have it: it may be elsewhere."""


@dataclass(slots=True)
class Above:
    """What is above a unit."""

    chain: list[RemoteUnit] = field(default_factory=list)
    """The parents to apply first, nearest first."""
    outside: set[int] = field(default_factory=set)
    """Parents that belong to another organization than the unit."""
    missing: set[int] = field(default_factory=set)
    """Parents that SIORG names and does not have."""


class Ancestors:
    """Finds the parents of some units that were asked for together: each parent is looked for and fetched once."""

    def __init__(self, siorg: SiorgClient, database: DatabaseThread, structure: Structure | None) -> None:
        """``structure``: the answer in which the units stand, if they stand in one."""
        self._siorg = siorg
        self._database = database
        self._structure = structure
        self._local: Mapping[tuple[int, int], LocalParent] = {}
        self._elsewhere: set[int] = set()
        """Organizations that are not registered here, or inactive: what is above a unit there is none of ours."""
        self._answers: dict[int, RemoteUnit | PermanentError] = {}
        if structure is not None:
            self._answers = {**structure.units, **structure.invalid}

    async def look_up(self, units: Sequence[RemoteUnit]) -> None:
        """Find which parents of ``units`` are local, in one statement; to be called before ``of``."""
        home = None if self._structure is None else self._structure.organization
        if homes := {unit.organization_code for unit in units} - {None, home}:
            rows = await self._database.rows(load("siorg_job.sync", "read.sql")["registered"])
            self._elsewhere = {code for code in homes if code is not None} - {row["code"] for row in rows}
        self._local = await self._local_parents([(unit.code, unit) for unit in units])

    async def of(self, unit: RemoteUnit) -> Above:
        """What is above ``unit``, up to the first parent that is in its place here.

        Raises:
            InvalidData: SIORG's hierarchy has a loop here, or is too deep.
            ParentFailed: a parent that has to be applied first cannot be used.
            SiorgError: a parent could not be fetched.
        """
        if self._structure is not None:
            _refuse_loop(unit, self._structure)
        above, current = Above(), unit
        chain = above.chain
        if unit.is_organization or unit.code == unit.organization_code or unit.organization_code in self._elsewhere:
            return above  # it hangs below nothing here
        while True:
            parent_code = current.parent_code
            if parent_code is None or parent_code == current.organization_code:
                return above
            if parent_code == unit.code or any(parent_code == known.code for known in chain):
                raise _loop([*(known.code for known in (unit, *chain)), parent_code])
            if len(chain) >= _LONGEST_CHAIN:
                raise InvalidData(f"more than {_LONGEST_CHAIN} levels above unit {unit.code}", field="codigoUnidadePai")
            local = self._local.get((unit.code, parent_code))
            if local is None and current is not unit:
                local = (await self._local_parents([(unit.code, current)])).get((unit.code, parent_code))
            if local is not None and self._is_in_place(parent_code, local, current):
                return above
            # Not local, or local in another place than SIORG may have it by now.
            parent = await self._next(parent_code, local, current, unit, above)
            if parent is None:
                return above
            chain.append(parent)
            current = parent

    async def _next(
        self, code: int, local: LocalParent | None, child: RemoteUnit, unit: RemoteUnit, above: Above
    ) -> RemoteUnit | None:
        """The parent as SIORG has it; None where the chain ends there, with the reason in ``above``."""
        try:
            parent = await self._parent(code)
        except NotFound:
            above.missing.add(code)
            return None
        except InvalidData as error:
            if local is not None and local.organization_code == child.organization_code and not local.below:
                return None  # what cannot be read of it is its own item's fault
            raise _waits_for(code, error) from None
        except PermanentError as error:
            raise _waits_for(code, error) from None
        if parent.ended:
            above.missing.add(code)
        elif parent.organization_code != unit.organization_code or parent.organization_code == parent.code:
            above.outside.add(code)
        else:
            return parent
        return None

    def _is_in_place(self, code: int, parent: LocalParent, child: RemoteUnit) -> bool:
        """Whether nothing has to be asked about a parent."""
        if parent.organization_code != child.organization_code or parent.below:
            return False
        if self._structure is None:
            return not parent.touched
        return code in self._structure.units or code in self._structure.invalid  # not one that was asked for beside it

    async def _parent(self, code: int) -> RemoteUnit:
        if code not in self._answers:
            try:
                self._answers[code] = await self._siorg.unit(code)
            except PermanentError as error:
                self._answers[code] = error
        answer = self._answers[code]
        if isinstance(answer, PermanentError):
            raise answer
        return answer

    async def _local_parents(self, children: Sequence[tuple[int, RemoteUnit]]) -> dict[tuple[int, int], LocalParent]:
        """Look for the parents of ``children``, each given with the code of the unit that it is an ancestor of, or is."""
        pairs = sorted(
            {
                (code, child.parent_code)
                for code, child in children
                if child.parent_code not in (None, child.organization_code) and child.code != child.organization_code
            }
        )
        if not pairs:
            return {}
        rows = await self._database.rows(
            load("siorg_job.sync", "read.sql")["known_parents"],
            codes=[code for code, _ in pairs],
            parents=[parent for _, parent in pairs],
        )
        return {(row["unit"], row["code"]): LocalParent(row["organization_code"], row["below"], row["touched"]) for row in rows}


def _refuse_loop(unit: RemoteUnit, structure: Structure) -> None:
    """A unit that is its own ancestor in SIORG is refused, also while only a part of the loop would be new here.

    Raises:
        InvalidData: it is.
    """
    seen = [unit.code]
    current: RemoteUnit | None = unit
    while current is not None and current.parent_code is not None:
        if current.parent_code == unit.code:
            raise _loop([*seen, unit.code])
        if current.parent_code in seen:
            return  # a loop above: its own units' fault
        seen.append(current.parent_code)
        current = structure.units.get(current.parent_code)


def _waits_for(code: int, error: PermanentError) -> ParentFailed:
    return ParentFailed(f"waits for unit {code} above it, which cannot be used: {error}", waits_for=[code])


def _loop(codes: Sequence[int]) -> InvalidData:
    return InvalidData(f"SIORG's hierarchy has a loop: {', '.join(map(str, codes))}", field="codigoUnidadePai")
