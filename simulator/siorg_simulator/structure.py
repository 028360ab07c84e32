"""The units, the versions they were published in, and what differs between two of them. Pure.

A *snapshot* is a whole structure as someone gave it. Put into a history it becomes an *edition*: it then knows the
version of each organization, which may have to be raised where the snapshot's own did not grow although its content
changed, because SIORG's clients tell by the version whether anything changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from siorg_simulator.domain import ORGANIZATION_TYPES

Version = tuple[int, int, int]
"""``major.minor.build``, compared as numbers."""

INITIAL_VERSION: Version = (99, 0, 0)
"""The version of SIORG's initial load (2013-11-11): what an organization without any version is given."""

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", re.ASCII)


def parse_version(text: str) -> Version | None:
    """Read ``major.minor.build``; None when the text is something else."""
    found = _VERSION.fullmatch(text.strip())
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def format_version(version: Version) -> str:
    """Write a version as SIORG does."""
    return ".".join(str(part) for part in version)


class Details(Protocol):
    """What only the complete form of a unit has (codigoCategoriaUnidade … autoridade)."""

    def fields(self) -> dict[str, object]:
        """The keys of the complete form that are known, by SIORG's names."""
        ...


@dataclass(frozen=True, slots=True)
class GivenDetails:
    """Details that came with a snapshot, kept as JSON text (a tenth of the memory of the parsed objects)."""

    text: str = ""

    def fields(self) -> dict[str, object]:
        """See Details."""
        parsed: dict[str, object] = json.loads(self.text) if self.text else {}
        return parsed


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit. Tails of domain URIs are text, numeric where the number is known; ``""`` is kept apart from None."""

    code: int
    parent: int | None
    organization: int | None
    type_slug: str
    name: str | None
    acronym: str | None
    sphere: str | None
    power: str | None
    nature: str | None
    subnature: str | None
    norm_level: str | None
    version: str | None
    since: str | None
    until: str | None = None
    regulation: str | None = None
    details: Details = field(default_factory=GivenDetails)
    verbatim: str = ""
    """JSON object of keys that are served exactly as given, whatever they are; for tests of odd data."""

    @property
    def is_organization(self) -> bool:
        """Whether it is an órgão, entidade or ente."""
        return self.type_slug in ORGANIZATION_TYPES


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole structure: units by code, in the order in which lists give them."""

    source: str
    """Where it came from, for people: a path, or how it was generated."""
    units: Mapping[int, Unit]


class Operation(StrEnum):
    """What happened to a unit between two versions, in SIORG's words."""

    INCLUDED = "INCLUSAO"
    CHANGED = "ALTERACAO"
    EXCLUDED = "EXCLUSAO"


@dataclass(frozen=True, slots=True)
class Difference:
    """One unit that differs between two editions. Of an excluded unit: its last data."""

    unit: Unit
    operation: Operation
    previous_parent: int | None = None
    previous_organization: int | None = None


class Edition:
    """A snapshot in its place in the history: the same units, with the organizations' effective versions.

    Attributes:
        source: Where the snapshot came from.
        units: All units by code. An organization's own row carries the organization's effective version.
        versions: Effective version by organization code; also of organizations that an earlier edition had and this
            one lacks, so that a version never goes back should they return.
        members: The codes of each organization's units (its own row among them), in list order.
        children: The codes directly under a code, in list order.
    """

    __slots__ = ("children", "members", "source", "units", "versions")

    def __init__(self, snapshot: Snapshot, previous: Edition | None) -> None:
        self.source = snapshot.source
        self.members: dict[int, list[int]] = {}
        self.children: dict[int, list[int]] = {}
        for unit in snapshot.units.values():
            if unit.organization is not None:
                self.members.setdefault(unit.organization, []).append(unit.code)
            if unit.parent is not None:
                self.children.setdefault(unit.parent, []).append(unit.code)
        units = dict(snapshot.units)
        self.units: Mapping[int, Unit] = units
        self.versions: dict[int, Version] = dict(previous.versions) if previous else {}
        for unit in snapshot.units.values():
            if unit.is_organization:
                version = self._effective_version(unit, previous)
                self.versions[unit.code] = version
                units[unit.code] = replace(unit, version=format_version(version))

    def _effective_version(self, root: Unit, previous: Edition | None) -> Version:
        own = parse_version(root.version) if root.version else None
        known = previous.versions.get(root.code) if previous else None
        if previous is None or known is None:
            return own or INITIAL_VERSION
        if own is not None and own > known:
            return own
        if self._content(root.code) != previous._content(root.code):
            return (known[0], known[1], known[2] + 1)
        return known

    def _content(self, organization: int) -> dict[int, Unit]:
        """Everything of an organization but the version of its own row, which follows from the rest."""
        units = {code: self.units[code] for code in self.members.get(organization, ())}
        if organization in self.units:
            units[organization] = replace(self.units[organization], version=None)
        return units

    def organization_units(self, organization: int) -> list[Unit]:
        """An organization's own units, its own row among them, in list order."""
        return [self.units[code] for code in self.members.get(organization, ())]

    def linked_organizations(self, organization: int) -> list[int]:
        """The organizations (at any depth) whose own row lies under a unit of this one, nearest first."""
        found: dict[int, None] = {organization: None}
        queue = [organization]
        for current in queue:
            for member in self.members.get(current, ()):
                for child in self.children.get(member, ()):
                    unit = self.units[child]
                    if unit.is_organization and child not in found:
                        found[child] = None
                        queue.append(child)
        return queue[1:]

    def organization_of(self, code: int) -> int | None:
        """The organization that a unit says it belongs to; None for an unknown unit."""
        unit = self.units.get(code)
        return unit.organization if unit else None


class History:
    """All editions, oldest first, and which of them is current. Immutable: a change is a new history."""

    __slots__ = ("current_index", "editions")

    def __init__(self, editions: tuple[Edition, ...], current_index: int) -> None:
        self.editions = editions
        self.current_index = current_index

    @classmethod
    def of(cls, snapshots: Iterable[Snapshot]) -> History:
        """A history of at least one snapshot, oldest first; the last is current."""
        history = cls((), -1)
        for snapshot in snapshots:
            history = history.with_snapshot(snapshot)
        return history

    @property
    def current(self) -> Edition:
        """The edition that is served."""
        return self.editions[self.current_index]

    def with_snapshot(self, snapshot: Snapshot) -> History:
        """The history with one more edition at its end, which becomes current."""
        last = self.editions[-1] if self.editions else None
        return History((*self.editions, Edition(snapshot, last)), len(self.editions))

    def switched(self, index: int) -> History:
        """The history with another edition current; those after it are not known yet to clients.

        Raises:
            ValueError: There is no such edition.
        """
        if not 0 <= index < len(self.editions):
            message = f"index: there are snapshots 0 to {len(self.editions) - 1}, not {index}"
            raise ValueError(message)
        return History(self.editions, index)

    def known_versions(self, organization: int, limit: int | None = None) -> list[tuple[Version, Edition]]:
        """The organization's versions up to the current one, oldest first, each with its newest edition.

        Args:
            organization: Its code.
            limit: Only the last this many versions; None for all.
        """
        known: dict[Version, Edition] = {}
        for edition in self.editions[: self.current_index + 1]:
            if organization in edition.units:
                known[edition.versions[organization]] = edition
        versions = list(known.items())
        return versions if limit is None else versions[-limit:]

    def edition_at(self, organization: int, version: Version, limit: int | None = None) -> Edition | None:
        """The newest known edition whose version of the organization is at most the given one.

        None when the version is newer than the current one or older than all that are known.
        """
        known = self.known_versions(organization, limit)
        if not known or version > known[-1][0]:
            return None
        return next((edition for found, edition in reversed(known) if found <= version), None)


def differences(old: Edition, new: Edition, organization: int) -> list[Difference]:
    """What changed in an organization's structure; a unit that moved in or out is a change, with where it was."""
    codes = dict.fromkeys([*new.members.get(organization, ()), *old.members.get(organization, ())])
    found: list[Difference] = []
    for code in codes:
        before, after = old.units.get(code), new.units.get(code)
        if after is None:
            if before is not None:
                found.append(Difference(before, Operation.EXCLUDED))
        elif before is None:
            found.append(Difference(after, Operation.INCLUDED))
        elif before != after:
            found.append(
                Difference(
                    after,
                    Operation.CHANGED,
                    previous_parent=before.parent if before.parent != after.parent else None,
                    previous_organization=before.organization if before.organization != after.organization else None,
                )
            )
    return found


@dataclass(frozen=True, slots=True)
class OrganizationChanges:
    """Which organizations came, changed and went between two editions."""

    included: tuple[int, ...]
    changed: tuple[int, ...]
    excluded: tuple[int, ...]


def organization_changes(old: Edition | None, new: Edition) -> OrganizationChanges:
    """What ``/alteracoes`` tells; everything is included when there is no old edition."""
    now = {code for code, unit in new.units.items() if unit.is_organization}
    then = {code for code, unit in old.units.items() if unit.is_organization} if old else set()
    changed = {code for code in now & then if old and old.versions[code] != new.versions[code]}
    return OrganizationChanges(tuple(sorted(now - then)), tuple(sorted(changed)), tuple(sorted(then - now)))
