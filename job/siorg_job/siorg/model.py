"""What SIORG says, once it has been read: frozen values, with SIORG's many spellings of "nothing" folded into None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, Self, TypeAlias

from siorg_job.siorg.errors import InvalidData, PermanentError

MAX_CODE = 2_147_483_647  # codes are PostgreSQL integers; SIORG's own were below 700,000 in 2026
MAX_NAME = 255  # characters of ``organizational_units.name``; the longest of 2016 had 110
MAX_ACRONYM = 50  # characters of ``organizational_units.acronym``; the longest of 2016 had 20
# Of an organization; what is longer is left out there. Of a unit they are JSON, of 1,000 characters each at most.
MAX_ADDRESS = 500
MAX_PHONE = 50
MAX_EMAIL = MAX_WEBSITE = 255

Operation = Literal["INCLUSAO", "ALTERACAO", "EXCLUSAO"]
ActivityArea = Literal["CORE", "SUPPORT"]

_ORGANIZATION_TYPES = frozenset({"orgao", "entidade", "ente"})


@dataclass(frozen=True, slots=True)
class RemoteUnit:
    """A unit, órgão or entidade as SIORG describes it.

    Every text is normalised (``values.normalise``), whether it comes from an answer or from ``siorg_raw_data``. None means
    that SIORG did not say: the key was absent, null, or text that is empty once normalised. An empty tuple is a statement
    (``[]`` inside a contact that is there).

    Attributes:
        code: SIORG's code, 1 … 2147483647.
        parent_code: code of the parent unit.
        organization_code: code of the órgão or entidade it belongs to; its own for one of those.
        type_slug: ``unidade-administrativa``, ``unidade-colegiada``, ``orgao``, ``entidade`` or ``ente``.
        name: at most 255 characters.
        acronym: at most 50 characters; not unique, not even inside an organization.
        category_code: numeric code of the categoria-unidade.
        activity_area: CORE for FIM, SUPPORT for MEIO.
        phones: in the order of SIORG, as it writes them, ``(55) (65) 36158267``.
        emails: as SIORG writes them.
        websites: without white space, doubled schemes and trailing dots.
        address: the first address in one readable line.
        zip_code: CEP of that address, eight digits.
        state: two letters of its federal unit.
        version: ``major.minor.build`` at which this unit last changed; see ``version_key``.
        ended: SIORG lists it as excluded.
        operation: what happened to it; only lists of changes say.
        raw: compact JSON of the unit as received, its own keys in lowerCamelCase; fit for jsonb (NUL removed, no lone
            surrogates, finite numbers).
    """

    code: int
    raw: str = field(repr=False)
    parent_code: int | None = None
    organization_code: int | None = None
    type_slug: str | None = None
    name: str | None = None
    acronym: str | None = None
    category_code: int | None = None
    activity_area: ActivityArea | None = None
    phones: tuple[str, ...] | None = None
    emails: tuple[str, ...] | None = None
    websites: tuple[str, ...] | None = None
    address: str | None = None
    zip_code: str | None = None
    state: str | None = None
    version: str | None = None
    ended: bool = False
    operation: Operation | None = None

    @property
    def is_organization(self) -> bool:
        """Whether this is an órgão, entidade or ente: an organization of its own, no unit."""
        return self.type_slug in _ORGANIZATION_TYPES

    @property
    def is_its_own(self) -> bool:
        """Whether SIORG has an organization of this code; a unit's answer to that code says that it was demoted."""
        return not self.ended and (self.is_organization or self.organization_code == self.code)


@dataclass(frozen=True, slots=True)
class Structure:
    """All units of one organization in one answer, its own row included.

    Attributes:
        organization: the code that was asked for; it is in ``units`` or ``invalid``.
        units: what could be read, by code. Rows of other organizations may be among them: each carries its own.
        invalid: codes whose row cannot be used, and why.
        unidentified: rows that have no readable code. While there are any, a code that is missing may be one of them.
        weight: bytes of memory that it takes, about.
    """

    organization: int
    units: dict[int, RemoteUnit]
    invalid: dict[int, InvalidData]
    unidentified: int = 0
    weight: int = field(default=0, compare=False)

    @property
    def is_whole(self) -> bool:
        """Whether to believe it: the organization's own row is in it, readable or not.

        An empty list or one without the root is what a filter that does not fit or a failing SIORG sends; taken for the
        truth it would end every unit.
        """
        return self.organization in self.units or self.organization in self.invalid


Answer: TypeAlias = RemoteUnit | PermanentError | None
"""What SIORG says of one unit by itself; or why that cannot be used; None: it has no such unit."""


def home_of(answer: Answer) -> int | None:
    """The organization that SIORG has a unit in; None: in none, or it cannot be told."""
    return answer.organization_code if isinstance(answer, RemoteUnit) and not answer.ended else None


@dataclass(frozen=True, slots=True)
class Told:
    """All that SIORG said of one organization.

    Attributes:
        structure: its whole structure.
        answers: about units by themselves: those that are here and not in the structure, and parents that it names and does not
            have.
        ended: SIORG has no such organization (any more); the structure is empty.
    """

    structure: Structure
    answers: Mapping[int, Answer] = field(default_factory=dict)
    ended: bool = False

    @property
    def elsewhere(self) -> dict[int, int | None]:
        """The organizations of those units; None: SIORG has it nowhere. What cannot be used is left out."""
        return {code: home_of(answer) for code, answer in self.answers.items() if not isinstance(answer, PermanentError)}

    def with_answers(self, answers: Mapping[int, Answer]) -> Self:
        return replace(self, answers={**self.answers, **answers})


@dataclass(frozen=True, slots=True)
class DomainRow:
    """A row of a domain table.

    Attributes:
        code: a number; of ``tipo-unidade`` two letters (``UA``), which are not the slug that units carry.
        name: the description, normalised.
        active: False only where SIORG says NAO.
        raw: compact JSON of the row as received, fit for jsonb.
    """

    code: int | str
    name: str
    active: bool
    raw: str = field(repr=False)


class DomainTable(StrEnum):
    """The tables that units refer to; the value is the path under the base address."""

    UNIT_TYPE = "tipo-unidade"
    UNIT_CATEGORY = "categoria-unidade"
    LEGAL_NATURE = "natureza-juridica"
    POWER = "poder"
    SPHERE = "esfera"

    @property
    def key(self) -> str:
        """The key of its rows in an answer, ``tipoUnidade``."""
        first, *rest = self.value.split("-")
        return first + "".join(word.capitalize() for word in rest)
