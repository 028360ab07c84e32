"""What a discovery and a run would write, told from comparisons: one change a row. Pure.

A comparison says what would become of each row by itself. ``settle`` lets them meet: a unit hangs below one that comes too, or
cannot; it would be its own ancestor; its end waits for those below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from siorg_job.siorg.errors import PermanentError
from siorg_job.siorg.model import Answer, RemoteUnit, Structure, Told
from siorg_job.sync.compare import EXISTS, Comparison, Difference, place_here
from siorg_job.sync.local_rows import Unit
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import PLACE, OrganizationField, UnitField, Value
from siorg_job.sync.organization import base_of as base_of_organization
from siorg_job.sync.place import base_of
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import EntityType

_TOLD = frozenset({EXISTS, *map(str, UnitField), *map(str, OrganizationField)})


class What(StrEnum):
    """What would become of a row."""

    CREATE = "create"
    RETURN = "return"
    """It was here, is inactive, and is in SIORG again."""
    UPDATE = "update"
    MOVE = "move"
    END = "end"
    """SIORG has it no more."""
    LEAVE = "leave"
    """SIORG has it in an organization that is not registered here, or as an organization of its own: deactivated."""
    CONFLICT = "conflict"
    """Nothing is written; a person is asked."""
    HELD = "held"
    """Beyond a limit: nothing is written before a person releases it."""
    FAILED = "failed"
    """Nothing is written: what SIORG says cannot be here."""


@dataclass(frozen=True, slots=True)
class Change:
    """What would become of one row."""

    what: What
    entity_type: EntityType
    code: int
    name: str
    organization: int
    """The organization that it is in afterwards; 0 for categories and types."""
    differences: tuple[Difference, ...] = ()
    """The fields that are written, or that a person is asked about."""
    reason: str = ""
    overwrites: bool = False
    """It was never synced: SIORG's values replace what people typed, and history asks for a review."""
    named: int | None = None
    """Of a unit, what SIORG has it below."""
    parent: Value = None
    """Of a unit that stays or comes: what it hangs below, as ``UnitField.PARENT`` has it."""
    before: str | None = None
    """Its path now, of a unit that moves, leaves or ends."""
    after: str | None = None
    """Its path then, of a unit that moves or comes."""

    @property
    def is_end(self) -> bool:
        """Whether the row is deactivated."""
        return self.what in (What.END, What.LEAVE)

    def not_written(self, what: What, reason: str) -> Change:
        """What it is instead, where nothing is written."""
        return replace(self, what=what, reason=reason, overwrites=False, before=None, after=None)


def changes_of(told: Told, comparison: Comparison, copy: WorkingCopy) -> Iterator[Change]:
    """What would become of the rows that SIORG's structure tells of.

    Args:
        told: what SIORG said.
        comparison: what came of comparing it.
        copy: the rows that it was compared with.
    """
    structure = told.structure
    looped = _looped(structure)
    for (entity_type, code), found in comparison.differences.items():
        if not (differences := tuple(each for each in found if each.rule is not Rule.EDITED and each.field in _TOLD)):
            continue  # what follows from the rest, or is noted beside it, makes no history
        if entity_type is EntityType.ORGANIZATION:
            yield _of_organization(code, differences, copy)
            continue
        change = _of_unit(structure.units[code], differences, told, copy)
        if any(each.rule is Rule.EDITED and each.field in PLACE for each in found):  # a person's place stays
            unit = copy.units[code]
            change = replace(change, organization=unit.organization_code, parent=unit.values()[UnitField.PARENT])
        yield change.not_written(What.FAILED, "SIORG's hierarchy has a loop") if code in looped else change
    for code, error in structure.invalid.items():
        if code != structure.organization:
            name = copy.units[code].name if code in copy.units else ""
            yield Change(What.FAILED, EntityType.UNIT, code, name, structure.organization, reason=str(error))


def _of_organization(code: int, differences: tuple[Difference, ...], copy: WorkingCopy) -> Change:
    row = copy.organizations[code]
    change = Change(
        What.UPDATE, EntityType.ORGANIZATION, code, row.name, code, differences, overwrites=base_of_organization(row) is None
    )
    return _disputed(change, ()) or change


def _of_unit(
    remote: RemoteUnit,
    differences: tuple[Difference, ...],
    told: Told,
    copy: WorkingCopy,
) -> Change:
    structure = told.structure
    unit = copy.units.get(remote.code)
    fields = {each.field for each in differences}
    place = place_here(remote, structure, copy, told.elsewhere)
    what = What.UPDATE
    if unit is None:
        what = What.CREATE
    elif not unit.is_active and UnitField.IS_ACTIVE in fields:
        what = What.RETURN
    elif fields & {*PLACE}:
        what = What.MOVE
    change = Change(
        what, EntityType.UNIT, remote.code, unit.name if unit is not None else remote.name or "", structure.organization,
        differences, overwrites=unit is not None and base_of(unit, copy) is None, parent=place[UnitField.PARENT],
        named=remote.parent_code,
    )  # fmt: skip
    lacking = [word for word, value in (("nome", remote.name), ("codigoTipoUnidade", remote.type_slug)) if value is None]
    if unit is None and lacking:
        return change.not_written(What.FAILED, f"SIORG gives no {lacking[0]}: it cannot be created")
    if (above := _unusable_above(remote, told, copy)) is not None:
        return change.not_written(What.FAILED, f"waits for unit {above} above it, which cannot be used")
    strict = copy.strict_hierarchy and unit is not None and not change.overwrites
    return _disputed(change, PLACE if strict else ()) or change


def _unusable_above(remote: RemoteUnit, told: Told, copy: WorkingCopy) -> int | None:
    """The first unit above, up to one that is in its place here, whose row in SIORG cannot be used."""
    structure = told.structure
    seen = {remote.code, structure.organization, None}
    while (parent := remote.parent_code) not in seen and parent is not None:
        row = copy.units.get(parent)
        if row is not None and row.is_active and row.organization_code == structure.organization:
            return None
        if parent in structure.invalid or isinstance(told.answers.get(parent), PermanentError):
            return parent
        if parent not in structure.units:
            return None
        seen.add(parent)
        remote = structure.units[parent]
    return None


def _disputed(change: Change, may_not_move: Iterable[str]) -> Change | None:
    """The conflict that prevents it: nothing of a row is written while a field of it is in dispute."""
    apart = tuple(each for each in change.differences if each.rule is Rule.APART or each.field in {*may_not_move})
    if not apart:
        return None
    changed = any(each.rule is Rule.APART for each in apart)
    reason = "changed here and in SIORG" if changed else "the unit moved in SIORG, and siorg.hierarchy_strict_mode is on"
    return replace(change, what=What.CONFLICT, differences=apart, reason=reason, overwrites=False)


def end_of(unit: Unit, copy: WorkingCopy, said: Answer, homes: Iterable[int]) -> Change | None:
    """What would become of a unit that is missing in its organization's structure; None where it is not ended by that.

    Args:
        unit: the row here.
        copy: where it is from.
        said: what SIORG says about it by itself, or why that cannot be used; None: it has no such unit.
        homes: the active organizations here.
    """
    code = unit.code
    ended = Difference(EntityType.UNIT, code, UnitField.IS_ACTIVE, Rule.TAKE, base=True, local=True, remote=False)
    change = Change(What.END, EntityType.UNIT, code, unit.name, unit.organization_code, (ended,), "SIORG has it no more")
    if isinstance(said, PermanentError):
        return change.not_written(What.FAILED, str(said))
    if said is None or said.ended:
        return change
    home = said.organization_code
    if home == code or said.is_organization:
        reason = "it is an organization of its own in SIORG"
    elif home is not None and home not in homes:
        reason = f"it moved to organization {home}, which is not registered here"
    else:
        return None
    change = replace(change, what=What.LEAVE, reason=reason)
    if copy.strict_hierarchy and base_of(unit, copy) is not None:
        moved = Difference(EntityType.UNIT, code, UnitField.ORGANIZATION, Rule.TAKE, None, unit.organization_code, home)
        return replace(
            change, what=What.CONFLICT, differences=(moved, ended), reason=f"{reason}, and siorg.hierarchy_strict_mode is on"
        )
    return change


def hold_back(change: Change, field: str, reason: str) -> Iterator[Change]:
    """What is left of a change of which a field is held, and that."""
    held = tuple(each for each in change.differences if each.field == field)
    rest = tuple(each for each in change.differences if each.field != field)
    yield replace(change.not_written(What.HELD, reason), differences=held)
    if rest:
        yield replace(change, differences=rest)


def _looped(structure: Structure) -> set[int]:
    """Units that are their own ancestors in SIORG."""
    found: set[int] = set()
    for code in structure.units:
        seen: list[int] = []
        above: int | None = code
        while above in structure.units and above not in seen and above != structure.organization:
            seen.append(above)
            above = structure.units[above].parent_code
        if above == code:
            found.add(code)
    return found


# -- together ---------------------------------------------------------------------------------------------------------

Key = int | str
"""A unit's SIORG code, or ``local:`` and the id of one without, as ``UnitField.PARENT`` names it."""


@dataclass(frozen=True, slots=True)
class Node:
    """Where a unit hangs."""

    name: str
    organization: int
    parent: Key | None
    """None: directly under the organization."""
    is_active: bool = True
    path: str | None = None
    """As the database has it."""
    level: int = 1
    named: int | None = None
    """What SIORG has it below."""


@dataclass(slots=True)
class Tree:
    """The part of the local tree that is needed, as it is going to be."""

    nodes: dict[Key, Node]
    organizations: dict[int, str]
    """What the paths of their units begin with."""
    max_depth: int = 10
    _below: dict[Key, set[Key]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, node in self.nodes.items():
            self._hang(key, node)

    def put(self, key: Key, node: Node) -> None:
        if (was := self.nodes.get(key)) is not None and was.parent is not None:
            self._below[was.parent].discard(key)
        self.nodes[key] = node
        self._hang(key, node)

    def _hang(self, key: Key, node: Node) -> None:
        if node.parent is not None:
            self._below.setdefault(node.parent, set()).add(key)

    def chain(self, key: Key | None) -> list[Key]:
        """From ``key`` up to the top."""
        found: list[Key] = []
        while key is not None and key in self.nodes and key not in found:
            found.append(key)
            key = self.nodes[key].parent
        return found

    def active_below(self, key: Key) -> list[Key]:
        return [below for below in self._below.get(key, ()) if self.nodes[below].is_active]

    def path(self, key: Key) -> str:
        nodes = [self.nodes[above] for above in reversed(self.chain(key))]
        # Of the topmost: a unit in dispute may be left below one that has gone to another organization.
        return " > ".join([self.organizations.get(nodes[0].organization, ""), *(node.name for node in nodes)])


def settle(changes: Iterable[Change], tree: Tree) -> list[Change]:
    """What would become of all of them together, each row once; the ends come last, the deepest first.

    Args:
        changes: of one entity the first counts, unless that is its end.
        tree: the units meant and those above them, the active ones directly below those that end; it is changed.
    """
    found: dict[tuple[EntityType, int, bool], Change] = {}
    for change in sorted(changes, key=lambda change: change.is_end):
        found.setdefault((change.entity_type, change.code, change.what is What.HELD), change)
    paths = {key: node.path for key, node in tree.nodes.items()}
    settled = [come for change in found.values() if not change.is_end and (come := _come(change, tree)) is not None]
    ends = [change for change in found.values() if change.is_end]
    ends.sort(key=lambda change: (change.what is What.END, -tree.nodes[change.code].level, change.code))
    settled += [_go(change, tree) for change in ends]
    return [_with_paths(change, paths, tree) for change in settled]


def _come(change: Change, tree: Tree) -> Change | None:
    """A change that ends nothing, None where nothing is left of it; ``tree`` is as it is after that."""
    written = {each.field: each.remote for each in change.differences}
    name = str(written.get(UnitField.NAME, change.name))
    if change.what in (What.CONFLICT, What.FAILED, What.HELD):
        return change
    if change.entity_type is EntityType.ORGANIZATION:
        _rename(change, tree)
    if change.entity_type is not EntityType.UNIT:
        return change
    if change.what is What.UPDATE:
        if change.code in tree.nodes:
            tree.put(change.code, replace(tree.nodes[change.code], name=name, named=change.named))
        return change
    parent = None if change.parent == change.organization else change.parent
    assert parent is None or isinstance(parent, Key)
    if parent is not None and parent not in tree.nodes:
        return change.not_written(What.FAILED, f"its parent {parent} is not here, and cannot be")
    if parent is not None and tree.nodes[parent].organization != change.organization:
        parent = None  # what prevents its parent from coming along lets it wait at the top
    was = tree.nodes.get(change.code)
    if was is not None and (moved := _moved(change, was, parent)) != change.differences:
        if not moved:
            return None
        what = What.MOVE if {each.field for each in moved} & {*PLACE} else What.UPDATE
        change = replace(change, what=What.RETURN if change.what is What.RETURN else what, differences=moved)
    chain = tree.chain(parent)
    if change.code in chain:
        return change.not_written(What.FAILED, f"below {parent} it would be its own ancestor")
    if len(chain) + 1 > tree.max_depth:
        return change.not_written(What.FAILED, f"it would be on level {len(chain) + 1}; at most {tree.max_depth} are allowed")
    is_active = True if was is None or change.what is What.RETURN else was.is_active
    tree.put(change.code, Node(name, change.organization, parent, is_active, named=change.named))
    return change


def _moved(change: Change, was: Node, parent: Key | None) -> tuple[Difference, ...]:
    """The fields that are written of a unit that comes to hang below ``parent`` in its organization."""
    before, after = (was.organization, was.parent), (change.organization, parent)
    local, remote = (tuple(here) if here[1] is not None else (here[0], here[0]) for here in (before, after))
    known = {each.field: each for each in change.differences}
    place = tuple(
        known[name] if name in known and known[name].remote == theirs
        else Difference(EntityType.UNIT, change.code, name, Rule.TAKE, None, mine, theirs)
        for name, now, then, mine, theirs in zip(PLACE, before, after, local, remote, strict=True)
        if now != then
    )  # fmt: skip
    return (*(each for each in change.differences if each.field not in PLACE), *place)


def _rename(change: Change, tree: Tree) -> None:
    names = (OrganizationField.NAME, OrganizationField.ACRONYM)
    for each in change.differences:
        if each.field in names and tree.organizations.get(change.code) == each.local:
            tree.organizations[change.code] = str(each.remote)


def _go(change: Change, tree: Tree) -> Change:
    node = tree.nodes[change.code]
    if change.what is What.END and (below := tree.active_below(change.code)):
        names = ", ".join(f"{key} {tree.nodes[key].name}" for key in sorted(below, key=str)[:5])
        if all(tree.nodes[key].named == change.code for key in below):
            return change.not_written(What.FAILED, f"SIORG has it no more, and still has units below it: {names}")
        tree.put(change.code, replace(node, named=None))
        return change.not_written(What.CONFLICT, f"SIORG ended it, but {len(below)} active units are below it: {names}")
    tree.put(change.code, replace(node, is_active=False))
    return change


def _with_paths(change: Change, before: Mapping[Key, str | None], tree: Tree) -> Change:
    if change.entity_type is not EntityType.UNIT:
        return change
    if change.is_end:
        return replace(change, before=before.get(change.code))
    if change.what in (What.CREATE, What.RETURN, What.MOVE):
        return replace(change, before=before.get(change.code), after=tree.path(change.code))
    return change
