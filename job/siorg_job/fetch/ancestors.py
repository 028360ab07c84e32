"""What makes a unit's answer complete: the parents that have to be applied before it, down from the first that is local."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from siorg_job.fetch.local import Here, Local, LocalParent, Named
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import InvalidData, NotFound, ParentFailed, PermanentError
from siorg_job.siorg.model import RemoteUnit, Structure

_LONGEST_CHAIN = 64  # levels: far beyond any real hierarchy, so a longer one is damage


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

    def __init__(self, siorg: SiorgClient, local: Local, structure: Structure | None, named: Named, here: Here) -> None:
        """Begin with what was looked up.

        Args:
            siorg: asked for parents that are not at hand.
            local: asked for what is above those.
            structure: the answer in which the units stand, if they stand in one.
            named: what the units name; see ``named_by``.
            here: what of that is here.
        """
        self._siorg = siorg
        self._local = local
        self._structure = structure
        self._parents: dict[int, LocalParent | None] = {code: here.parents.get(code) for code in named.parents}
        """None: it is not here."""
        self._elsewhere = named.organizations - here.organizations
        """Organizations that are not registered here, or inactive: what is above a unit there is none of ours."""
        self._answers: dict[int, RemoteUnit | PermanentError] = {}
        if structure is not None:
            self._answers = {**structure.units, **structure.invalid}

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
            local = await self._local_parent(parent_code)
            if local is not None and self._is_in_place(parent_code, local, current, unit):
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
            if local is not None and local.organization_code == child.organization_code and unit.code not in local.line:
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

    def _is_in_place(self, code: int, parent: LocalParent, child: RemoteUnit, unit: RemoteUnit) -> bool:
        """Whether nothing has to be asked about a parent; below the very unit it is not in its place."""
        if parent.organization_code != child.organization_code or unit.code in parent.line:
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

    async def _local_parent(self, code: int) -> LocalParent | None:
        if code not in self._parents:  # it is named by an answer that came after the look-up
            self._parents[code] = (await self._local.look_up(Named(frozenset({code})))).parents.get(code)
        return self._parents[code]


def named_by(units: Sequence[RemoteUnit], structure: Structure | None) -> Named:
    """What these units name: with all parents above them, as far as ``structure``, the answer in which they stand, tells."""
    above = {} if structure is None else structure.units
    home = None if structure is None else structure.organization
    parents: set[int] = set()
    for unit in units:
        current: RemoteUnit | None = unit
        while current is not None and (code := _parent_of(current)) is not None and code not in parents:
            parents.add(code)
            current = above.get(code)
    organizations = {code for unit in units if (code := unit.organization_code) is not None and code != home}
    categories = {code for unit in units if (code := unit.category_code) is not None}
    return Named(frozenset(parents), frozenset(organizations), frozenset(categories))


def _parent_of(unit: RemoteUnit) -> int | None:
    """The unit that it hangs below; None: none, or its organization."""
    return None if unit.organization_code in (unit.code, unit.parent_code) else unit.parent_code


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
