"""What the local rows have to be, by the rules as they are written: from SIORG's rows and raw SQL, none of the product's code.

``NOT_ASKED_YET`` is the one list of what is not asked of the product yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from siorg_queue import Connection
from support.convergence.siorg import Rows, is_organization, organization_of, parent_of, units_of
from support.local_structure import Row

NOT_ASKED_YET: dict[int, str] = {
    6: "of an item in conflict again nothing is carried out: no other field comes into dispute while a decision waits",
    5: "limits for names: no program overwrites more than ten of an organization",
}
"""By the fault of the issue *Convergence*; build one, take its entry out, and what the machine does about it."""

MAX_ENDS = 10

FIELDS = ("name", "acronym", "contact_info.phones", "place")
"""What people edit here: ``place`` is (organization, parent)."""

Entity = tuple[str, int]
"""Its type (UNIT, ORGANIZATION) and code."""

_UNITS = """
SELECT u.siorg_code AS code, u.name, u.acronym, o.siorg_code AS organization, o.is_active AS at_home,
       CASE WHEN u.parent_id IS NULL THEN o.siorg_code ELSE p.siorg_code END AS parent,
       t.code AS unit_type, c.siorg_code AS category, u.activity_area::text AS activity_area, u.is_active, u.contact_info,
       u.level, u.path_names, u.siorg_parent_code, u.parent_id IS NULL AS at_the_top, u.siorg_last_version AS version,
       substring(u.siorg_raw_data ->> 'codigoOrgaoEntidade' FROM '[0-9]+$')::integer AS told_of
FROM organizational_units u JOIN organizations o ON o.id = u.organization_id
JOIN organizational_unit_categories c ON c.id = u.category_id JOIN organizational_unit_types t ON t.id = u.unit_type_id
LEFT JOIN organizational_units p ON p.id = u.parent_id
WHERE u.siorg_code IS NOT NULL ORDER BY u.siorg_code
"""
_ORGANIZATIONS = """
SELECT siorg_code AS code, name, acronym, address, state, zip_code, phone, email, website, is_active FROM organizations
ORDER BY siorg_code
"""


@dataclass(frozen=True)
class Local:
    """The local structure at one moment."""

    units: dict[int, dict[str, Any]]
    organizations: dict[int, dict[str, Any]]

    def values(self) -> dict[Entity, dict[str, Any]]:
        """Every row in the words that history uses."""
        found: dict[Entity, dict[str, Any]] = {("ORGANIZATION", code): row for code, row in self.organizations.items()}
        for code, row in self.units.items():
            contacts = {f"contact_info.{kind}": row["contact_info"][kind] for kind in ("phones", "emails", "websites", "address")}
            same = ("name", "acronym", "organization", "parent", "unit_type", "category", "activity_area", "is_active")
            found["UNIT", code] = {**{key: row[key] for key in same}, **contacts}
        return found

    @property
    def registered(self) -> set[int]:
        return {code for code, row in self.organizations.items() if row["is_active"]}


def local(connection: Connection) -> Local:
    """Read the local structure."""
    units = {row.pop("code"): row for row in connection.execute(_UNITS).fetchall()}
    organizations = {row.pop("code"): row for row in connection.execute(_ORGANIZATIONS).fetchall()}
    return Local(units, organizations)


@dataclass
class Edit:
    """What a person wrote into one field."""

    base: Any
    """What stood there before: the sync wrote it."""
    values: list[Any]
    """What may stand there now: the edit, and what decisions put in its place."""
    kept: list[Any] = field(default_factory=list)
    """SIORG's values that a person turned down."""
    kept_at: int = 0
    """How often SIORG had been reformed when a person last decided for another value."""
    wavered: bool = False
    """SIORG changed since: what was turned down may be said anew."""
    accepted: bool = False
    """A person decided for SIORG's value."""
    named: tuple[int, int] | None = None
    """Organization and parent that SIORG named for the unit then."""
    weak: bool = False
    """Too much happened to tell what has to come of it."""


Edits = dict[tuple[Entity, str], Edit]


def said(row: Row, name: str) -> Any:
    """What SIORG says of a field, as it is written here; None where it is silent."""
    if name == "name":
        return " ".join(row["nome"].split())
    if name == "acronym":
        return row["sigla"]
    if name == "contact_info.phones":
        phones = next((entry.get("telefone") for entry in row.get("contato") or ()), None)
        return None if phones is None else list(dict.fromkeys(phones))
    return row["codigoTipoUnidade"].rsplit("/", 1)[-1]


def place_in(code: int, siorg: Rows) -> tuple[int, int]:
    """Where SIORG has a unit, as it can be here: below a parent of its organization, else directly under that."""
    home, above = organization_of(siorg[code]), parent_of(siorg[code])
    if above in siorg and organization_of(siorg[above]) != home:
        above = home
    return home, above


def contests(edit: Edit, name: str, code: int, siorg: Rows) -> bool:
    """Whether SIORG has another value now than it had when the person wrote, or kept, another one."""
    if name == "place" and parent_of(siorg[code]) not in siorg and parent_of(siorg[code]) != organization_of(siorg[code]):
        return False  # nobody knows where that is
    theirs = place_in(code, siorg) if name == "place" else said(siorg[code], name)
    return theirs is not None and theirs not in [edit.base, *edit.kept, *edit.values]


@dataclass(frozen=True)
class Asked:
    """What the queue has, by raw SQL."""

    open: Mapping[Entity, Mapping[str, Mapping[str, Any]]]
    """What people are asked: by entity, of its conflicts what they show of each field in dispute."""
    several: Collection[Entity] = ()
    """Entities about which more than one question is open."""
    held: Collection[int] = ()
    """Units of which the end is held: verification keeps the limits always, discovery where the program says so."""
    failed: Collection[Entity] = ()
    """Entities about which the newest decision failed."""


Departures = dict[tuple[str, int, str], frozenset[str]]
"""By (entity, code, field): the kinds that it may have; mostly one."""

_NONE = ""
"""It may as well be no departure."""
_FAILED, _DRIFT = frozenset({"failed"}), frozenset({"drift"})
_MANAGED = ("name", "acronym", "contact_info.phones", "unit_type")


def departures(here: Local, siorg: Rows, edits: Edits, asked: Asked, damaged: Collection[int]) -> Departures:
    """What differs at rest, and why; what nothing explains is ``drift``."""
    found: Departures = {}
    by_entity = _by_entity(edits)
    for code in sorted({*here.units, *units_of(siorg)}):
        for name, kinds in _Unit(code, here, siorg, by_entity, asked, damaged).departures():
            known = found.get(("UNIT", code, name))
            found["UNIT", code, name] = kinds if known is None else min(known, kinds, key=_precedence)
    for code in sorted(here.registered):
        if not is_organization(code, siorg):
            found |= _end_of(code, here, siorg, by_entity)
        if not is_organization(code, siorg) or code in damaged:
            continue
        row, entity = here.organizations[code], ("ORGANIZATION", code)
        for name in ("name", "acronym"):
            theirs = said(siorg[code], name)
            if theirs is not None and row[name] != theirs:
                edit = by_entity.get(entity, {}).get(name)
                contested = edit is not None and contests(edit, name, code, siorg)
                found[*entity, name] = _kinds(entity, name, edit, asked, None, contested=contested)
    return found


def _end_of(
    organization: int, here: Local, siorg: Rows, by_entity: Mapping[Entity, Mapping[str, Edit]]
) -> dict[tuple[str, int, str], frozenset[str]]:
    """One that SIORG has no more: it and those of its units that are nowhere wait for one decision, or people keep them."""
    kept = "is_active" in by_entity.get(("ORGANIZATION", organization), {})
    found = {("ORGANIZATION", organization, "is_active"): frozenset({"edited" if kept else "ended"})}
    for code, row in here.units.items():
        if row["organization"] == organization and row["is_active"] and code not in siorg:
            alone = "is_active" in by_entity.get(("UNIT", code), {})
            found["UNIT", code, "is_active"] = frozenset({"edited"} if kept or alone else {"ended"})
    return found


ORDER = ("conflict", "held", "ended", "failed", "waiting", "outside", "edited", "drift")


def _precedence(kinds: Collection[str]) -> int:
    return min(ORDER.index(kind) for kind in kinds if kind)


def _kinds(entity: Entity, name: str, edit: Edit | None, asked: Asked, failed: str | None, *, contested: bool) -> frozenset[str]:
    """The kinds of a field that differs."""
    shown = asked.open.get(entity)
    edited = edit is not None and not edit.accepted and not contested
    if edit is not None and edit.wavered:
        asks, failed_too = shown is not None, entity in asked.failed
        return frozenset({"edited", *(["conflict"] if asks else []), *(["failed"] if failed_too else [])})
    if shown is not None and not edited:
        return frozenset({"conflict"})  # while a question about a unit is open, nothing of it is written
    if edited and edit is not None and not edit.weak:  # SIORG contested it, and the decision to keep it came to nothing
        return _FAILED if edit.kept and entity in asked.failed else frozenset({"edited"})
    if failed is not None:
        return frozenset({"failed", *(["edited"] if edit is not None and edit.weak else [])})
    if edit is not None and edit.weak:
        return frozenset({"edited", *(["conflict"] if shown is not None else [])})
    return _DRIFT


def problems(here: Local, siorg: Rows, edits: Edits, asked: Asked, damaged: Collection[int]) -> list[str]:
    """Everything at rest that is neither SIORG's nor a departure with a name."""
    found: list[str] = []
    by_entity = _by_entity(edits)
    for code in sorted({*here.units, *units_of(siorg)}):
        unit = _Unit(code, here, siorg, by_entity, asked, damaged)
        found += [f"unit {code}: {problem}" for problem in unit.problems()]
    for code, row in here.organizations.items():
        if not row["is_active"] or code in damaged:
            continue
        entity = ("ORGANIZATION", code)
        if not is_organization(code, siorg):
            is_asked = "is_active" in asked.open.get(entity, {})
            if not is_asked and "is_active" not in by_entity.get(entity, {}):
                found.append(f"organization {code}: SIORG has ended it, and nobody is asked")
            continue
        if "is_active" in asked.open.get(entity, {}):
            found.append(f"organization {code}: a person is asked about its end, and SIORG has it")
        if _is_disputed(entity, by_entity.get(entity, {}), code, siorg, asked):
            continue
        for name in ("name", "acronym"):
            problem = _compare(name, row[name], said(siorg[code], name), by_entity.get(entity, {}).get(name), code, siorg)
            found += [f"organization {code}: {problem}"] if problem else []
    return found


def held_up(here: Local, siorg: Rows, edits: Edits, asked: Asked, damaged: Collection[int]) -> set[int]:
    """Units whose parent in SIORG hangs below them here, and may."""
    by_entity = _by_entity(edits)
    units = [code for code in units_of(siorg) if code in here.units]
    return {code for code in units if _Unit(code, here, siorg, by_entity, asked, damaged).is_held_up()}


def _by_entity(edits: Edits) -> dict[Entity, dict[str, Edit]]:
    found: dict[Entity, dict[str, Edit]] = {}
    for (entity, name), edit in edits.items():
        found.setdefault(entity, {})[name] = edit
    return found


def _is_disputed(entity: Entity, edits: Mapping[str, Edit], code: int, siorg: Rows, asked: Asked) -> bool:
    if entity not in asked.open:
        return False
    return any(edit.weak or edit.kept or contests(edit, name, code, siorg) for name, edit in edits.items())


def _compare(name: str, mine: Any, theirs: Any, edit: Edit | None, code: int, siorg: Rows) -> str | None:
    if theirs is None or mine == theirs:
        return None
    if isinstance(mine, list) and sorted(mine) == sorted(theirs):
        return None  # in another order it is no other value
    if edit is None:
        return f"{name} is {mine!r}, and {theirs!r} in SIORG"
    if edit.weak:
        return None if mine in edit.values else f"{name} is {mine!r}: neither SIORG's {theirs!r} nor a person's {edit.values}"
    if mine not in edit.values:
        return f"{name} is {mine!r}, a person wrote {edit.values}, SIORG says {theirs!r}"
    if edit.accepted:
        return f"{name} is still {mine!r}, although a person decided for SIORG's {theirs!r}"
    if name == "place" and edit.named == (organization_of(siorg[code]), parent_of(siorg[code])):
        return None  # what SIORG says of the unit is the same; where its parent is now, nobody needs to be asked about
    if contests(edit, name, code, siorg):
        return f"{name} is {mine!r}, SIORG moved from {edit.base!r} to {theirs!r}, and nobody is asked"
    return None


@dataclass
class _Unit:
    code: int
    here: Local
    siorg: Rows
    edits_of: Mapping[Entity, Mapping[str, Edit]]
    asked: Asked
    damaged: Collection[int]

    @property
    def edits(self) -> Mapping[str, Edit]:
        return self.edits_of.get(("UNIT", self.code), {})

    def problems(self) -> Iterable[str]:
        code, siorg, row = self.code, self.siorg, self.here.units.get(self.code)
        is_unit = code in siorg and not is_organization(code, siorg)
        home = organization_of(siorg[code]) if is_unit else None
        wanted = home in self.here.registered and home is not None and is_organization(home, siorg)
        if code in self.damaged or self._below_damaged():
            return  # failed
        if row is None:
            if wanted and not self.is_held_up():
                yield f"is not here; SIORG has it below {parent_of(siorg[code])} in {home}"
            return
        if not row["at_home"]:
            if wanted and home != row["organization"] and not self._is_disputed():
                yield f"is in the inactive organization {row['organization']}; SIORG has it in {home}"
            return
        if not wanted:
            yield from self._end(row)
            return
        yield from self._needless()
        if self._is_disputed() or self.is_held_up():
            return
        if not row["is_active"]:
            yield f"is inactive; SIORG has it in {home}"
            return
        yield from self._fields(row)

    def departures(self) -> Iterable[tuple[str, frozenset[str]]]:
        code, siorg, row = self.code, self.siorg, self.here.units.get(self.code)
        home = organization_of(siorg[code]) if code in siorg and not is_organization(code, siorg) else None
        wanted = home in self.here.registered and home is not None and is_organization(home, siorg)
        if code in self.damaged:
            if wanted:
                yield "*", _FAILED
            if row is not None and row["at_home"] and row["is_active"] and row["organization"] != home:
                yield "organization", _FAILED
            elif row is not None and row["at_home"] and not row["is_active"] and not wanted:
                yield from self._ended(row)
        elif row is None:
            if wanted:
                yield "*", _FAILED if self._below_damaged() or self.is_held_up() else _DRIFT
        elif wanted:
            yield from self._differing(row)
        elif row["at_home"]:
            yield from self._ended(row)

    def _ended(self, row: dict[str, Any]) -> Iterable[tuple[str, frozenset[str]]]:
        gone = self.code not in self.siorg
        if not row["is_active"]:  # what ends, or returns, in an organization that is not registered nobody tells of
            told = not gone and row["told_of"] not in (None, row["organization"])
            yield "is_active", frozenset({"outside"} if told and self.code not in self.damaged else {"outside", _NONE})
            return
        failed = not gone and self._below_damaged()
        failed = failed or (gone and self._end_waits(self.code))
        if self.code in self.asked.held:
            yield "is_active", frozenset({"held"})
            return
        if not gone and "is_active" in self.edits:  # a person did not let it go: outside all the same
            yield "is_active", frozenset({"conflict" if ("UNIT", self.code) in self.asked.open else "outside"})
            return
        yield "is_active", self._kinds("is_active", "is_active", "what is above it, or below" if failed else None)

    def _differing(self, row: dict[str, Any]) -> Iterable[tuple[str, frozenset[str]]]:
        failed = "what is above it" if self._below_damaged() or self.is_held_up() else None
        theirs, found = self.siorg[self.code], False
        for name in _MANAGED:
            mine, said_ = row["contact_info"]["phones"] if name == "contact_info.phones" else row[name], said(theirs, name)
            same = mine == said_ or (isinstance(mine, list) and isinstance(said_, list) and sorted(mine) == sorted(said_))
            if said_ is not None and not same:
                found = True
                yield name, self._kinds(name, name, failed)
        if not row["is_active"]:
            found = True
            yield "is_active", self._kinds("is_active", "is_active", failed)
        home, above = organization_of(theirs), parent_of(theirs)
        if row["organization"] != home:
            found = True
            yield "organization", self._kinds("organization", "place", failed)
        listed = above == home or (above in self.siorg and organization_of(self.siorg[above]) == home)
        unknown = not listed and (above not in self.siorg or above in self.damaged)
        parent = above if listed or (unknown and self._is_in(above, home)) else home
        mine = None if row["parent"] == row["organization"] else row["parent"]
        if mine != (None if parent == home else parent):
            found = True
            kinds = self._kinds("parent", "place", "its parent" if above in self.damaged else failed)
            stayed = above in self.here.units and not self._is_in(above, row["organization"])
            yield "parent", frozenset({"outside"}) if kinds == _DRIFT and stayed else kinds
        elif above in self.damaged and row["organization"] != home:
            yield "parent", frozenset({"failed", _NONE})  # it stays behind with its parent
        if not listed:
            shown = self.asked.open.get(("UNIT", self.code), {})
            kind = "failed" if unknown else "outside"
            yield "parent", frozenset({"conflict" if "parent" in shown else kind})
        if theirs["versaoConsulta"] not in (None, row["version"]):
            kinds = self._kinds("siorg_last_version", "siorg_last_version", failed)
            yield "siorg_last_version", (kinds | {_NONE}) if found else kinds

    def _is_in(self, code: int, organization: int) -> bool:
        return code in self.here.units and self.here.units[code]["organization"] == organization

    def _kinds(self, name: str, edited: str, failed: str | None) -> frozenset[str]:
        edit, row = self.edits.get(edited), self.siorg.get(self.code)
        contested = edit is not None and row is not None and name != "is_active" and contests(edit, edited, self.code, self.siorg)
        if contested and edited == "place" and edit and row and edit.named == (organization_of(row), parent_of(row)):
            # SIORG has moved it, or what is above it, before the person did.
            return frozenset({"conflict" if ("UNIT", self.code) in self.asked.open else "edited"})
        return _kinds(("UNIT", self.code), name, edit, self.asked, failed, contested=contested)

    def _end(self, row: dict[str, Any]) -> Iterable[str]:
        if not row["is_active"]:
            return
        gone = self.code not in self.siorg
        if not is_organization(row["organization"], self.siorg) and (
            gone or organization_of(self.siorg[self.code]) == row["organization"]
        ):
            return  # it ends with its organization, when a person says so
        if self.code in self.asked.held:
            return  # a person is asked
        entity = ("UNIT", self.code)
        below = [c for c, other in self.here.units.items() if other["is_active"] and other["parent"] == self.code]
        if gone and below and entity in self.asked.open:
            return
        if gone and self._end_waits(self.code):
            return  # failed: SIORG has others below it, nobody can tell where they are, or a person is asked about them
        if "is_active" in self.edits:
            return  # a person kept it
        yield f"is active; SIORG has it {'nowhere' if gone else 'in ' + str(organization_of(self.siorg[self.code]))}"

    def _end_waits(self, code: int) -> bool:
        """Whether something that stays is below the unit here, or below it in SIORG."""
        if any(parent_of(row) == code for other, row in self.siorg.items() if other != code):
            return True
        below = [other for other, row in self.here.units.items() if row["is_active"] and row["parent"] == code]
        return any(
            other in self.damaged
            or ("UNIT", other) in self.asked.open
            or other in self.asked.held
            or (other not in self.siorg and self._end_waits(other))
            for other in below
        )

    def _needless(self) -> Iterable[str]:
        for name, sides in self.asked.open.get(("UNIT", self.code), {}).items():
            edit = self.edits.get(name)
            if edit is None or edit.weak or name in ("place", "is_active"):
                continue
            if said(self.siorg[self.code], name) == edit.base == sides.get("remote"):
                yield f"a person is asked about {name}, although SIORG says {edit.base!r} as before"

    def _fields(self, row: dict[str, Any]) -> Iterable[str]:
        theirs = self.siorg[self.code]
        for name in ("name", "acronym", "contact_info.phones", "unit_type"):
            mine = row["contact_info"]["phones"] if name == "contact_info.phones" else row[name]
            if problem := _compare(name, mine, said(theirs, name), self.edits.get(name), self.code, self.siorg):
                yield problem
        mine = (row["organization"], row["parent"])
        if mine not in self._places() and (problem := _compare(
            "place", mine, place_in(self.code, self.siorg), self.edits.get("place"), self.code, self.siorg
        )):  # fmt: skip
            yield problem
        if row["siorg_parent_code"] != parent_of(theirs):
            yield f"siorg_parent_code is {row['siorg_parent_code']}, and {parent_of(theirs)} in SIORG"

    def _places(self) -> list[tuple[int, int]]:
        """Where the unit may hang: below its parent where that is in the same organization here, else at the top."""
        home, above = place_in(self.code, self.siorg)
        if above == home:
            allowed = [(home, home)]
            stayed = self.here.units.get(parent_of(self.siorg[self.code]))
            if stayed is not None and stayed["organization"] == home and self._departs(parent_of(self.siorg[self.code])):
                allowed.append((home, parent_of(self.siorg[self.code])))
            return allowed
        row = self.here.units.get(above)
        if row is None or row["organization"] != home:
            return [(home, home)]
        if above not in self.siorg and not row["is_active"]:
            return [(home, home), (home, above)]
        return [(home, above), (home, home)] if self._departs(above) else [(home, above)]

    def _departs(self, code: int) -> bool:
        """Whether that unit may be elsewhere here than SIORG has it."""
        entity = ("UNIT", code)
        return entity in self.asked.open or code in self.damaged or code not in self.siorg

    def is_held_up(self) -> bool:
        """Whether its parent, or that of one above it, hangs below it here, and may: by a person's word, or failed."""
        code = self.code
        while code in self.siorg and not is_organization(code, self.siorg):
            if self._is_below(code):
                return True
            code = parent_of(self.siorg[code])
        return False

    def _is_below(self, code: int) -> bool:
        """Whether the parent that SIORG names for that unit hangs below it here, and may."""
        above, may = parent_of(self.siorg[code]), False
        if not self._is_in(above, organization_of(self.siorg[code])):
            return False  # in another organization here, it is no parent
        seen: set[int] = set()
        while above in self.here.units and above not in seen and above != code:
            seen.add(above)
            place = self.edits_of.get(("UNIT", above), {}).get("place")
            may = may or self._departs(above) or (place is not None and self.here.units[above]["parent"] == place.values[0][1])
            above = self.here.units[above]["parent"]
        return above == code and may

    def _is_disputed(self) -> bool:
        return _is_disputed(("UNIT", self.code), self.edits, self.code, self.siorg, self.asked)

    def _below_damaged(self) -> bool:
        code = self.code
        while code in self.siorg and not is_organization(code, self.siorg):
            code = parent_of(self.siorg[code])
            if code in self.damaged:
                return True
        return False


_CONFLICTS = """
SELECT entity_type::text AS type, siorg_code AS code, detected_changes AS changes
FROM siorg_sync_queue WHERE status = 'CONFLICT' AND held_at IS NULL ORDER BY created_at, id
"""
_HELD = """
SELECT siorg_code AS code FROM siorg_sync_queue
WHERE entity_type = 'UNIT' AND status = 'CONFLICT' AND held_at IS NOT NULL AND detected_changes ? 'is_active'
"""
_FAILED_DECISIONS = """
SELECT type, code FROM (
    SELECT DISTINCT ON (entity_type, siorg_code) entity_type::text AS type, siorg_code AS code, status
    FROM siorg_sync_queue WHERE error_details ? 'resolution' ORDER BY entity_type, siorg_code, created_at DESC, id
) AS newest WHERE status = 'FAILED'
"""


def asked_of_people(connection: Connection) -> Asked:
    found: dict[Entity, dict[str, Any]] = {}
    several: set[Entity] = set()
    for row in connection.execute(_CONFLICTS).fetchall():
        entity = (row["type"], row["code"])
        if entity in found:
            several.add(entity)
        found[entity] = found.get(entity, {}) | (row["changes"] or {})
    held = {row["code"] for row in connection.execute(_HELD).fetchall()}
    failed = {(row["type"], row["code"]) for row in connection.execute(_FAILED_DECISIONS).fetchall()}
    return Asked(found, several, held, failed)
