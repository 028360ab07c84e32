"""A made-up SIORG that is reformed: versions, going back in time, faults, and changes in mid-request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from siorg_job.siorg.errors import MalformedResponse, NotAnOrganization, NotFound, SiorgUnavailable
from siorg_job.siorg.model import RemoteUnit, Structure
from support.local_structure import UFMT, MadeUpSiorg, Row, contact, siorg_row, unit_uri

TOP = 244
"""What is above every organization; never served."""
_DEEPEST = 7
_TYPES = "https://estruturaorganizacional.dados.gov.br/id/tipo-unidade"

Rows = dict[int, Row]


def code_in(uri: object) -> int:
    return int(str(uri).rsplit("/", 1)[-1])


def parent_of(row: Row) -> int:
    return code_in(row["codigoUnidadePai"])


def organization_of(row: Row) -> int:
    return code_in(row["codigoOrgaoEntidade"])


def is_organization(code: int, rows: Mapping[int, Row]) -> bool:
    return code in rows and organization_of(rows[code]) == code


def units_of(rows: Mapping[int, Row]) -> list[int]:
    return [code for code in rows if not is_organization(code, rows)]


def children_of(code: int, rows: Mapping[int, Row]) -> list[int]:
    """Units with that parent; of an organization those within it."""
    return [child for child in units_of(rows) if parent_of(rows[child]) == code]


def subtree_of(code: int, rows: Mapping[int, Row]) -> list[int]:
    """``code`` and what hangs below it in the same organization, from the top down."""
    found = [code]
    for above in found:
        home = organization_of(rows[code])
        found += [child for child in children_of(above, rows) if organization_of(rows[child]) == home and child not in found]
    return found


def as_unit(row: Row, parent: int, organization: int, slug: str = "unidade-administrativa") -> Row:
    """The row as one of a unit there."""
    return placed(row, parent, organization) | {"codigoTipoUnidade": f"{_TYPES}/{slug}"}


def placed(row: Row, parent: int, organization: int) -> Row:
    return row | {"codigoUnidadePai": unit_uri(parent), "codigoOrgaoEntidade": unit_uri(organization)}


def _fits(rows: Mapping[int, Row]) -> bool:
    """Whether SIORG could be so: no loops, nothing too deep."""
    for code in units_of(rows):
        seen = [code]
        while (above := parent_of(rows[seen[-1]])) in rows and not is_organization(seen[-1], rows):
            if above in seen or len(seen) > _DEEPEST:
                return False
            seen.append(above)
    return True


class ReformingSiorg(MadeUpSiorg):
    """SIORG's answers, out of rows that a machine reforms."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[int, int] = {}
        self.past: list[Rows] = []
        self.torn: set[int] = set()
        """Codes whose answers are torn."""
        self.events: list[tuple[int, Callable[[], Any]]] = []
        """What happens between requests: (after so many, what)."""

    def begin(self, organizations: Iterable[int]) -> None:
        """A SIORG of these organizations and no units."""
        self.rows = {}
        for code in organizations:
            self.publish(siorg_row(code, TOP, organization=code, nome=f"Órgão {code}", sigla=f"O{code}"))
        for attribute in (self.versions, self.past, self.torn, self.events):
            attribute.clear()
        self.down = None
        self.requests.clear()
        for code in self.rows:
            self.announce(code)

    # -- reforms ------------------------------------------------------------------------------------------------------

    def reform(self, rows: Rows, *, silently: bool = False, back: bool = False) -> bool:
        """From now on SIORG has these rows; False where it could not be so, or is so already.

        Args:
            rows: all of them.
            silently: no version moves with it.
            back: the rows are an earlier state, versions of units included.
        """
        changed = [code for code in {**self.rows, **rows} if rows.get(code) != self.rows.get(code)]
        if not changed or not _fits(rows):
            return False
        self.past.append(self.rows)
        touched = {organization_of(side[code]) for code in changed for side in (self.rows, rows) if code in side}
        self.rows = dict(rows)
        for organization in sorted(touched):
            if not silently or organization not in self.versions:
                self.announce(organization, [] if back else changed)
        return True

    def announce(self, organization: int, changed: Iterable[int] = ()) -> None:
        """The organization's version moves, and with it those of its units that changed."""
        number = self.versions[organization] = max(self.versions.values(), default=99) + 1
        for code in changed:
            if code in self.rows and organization_of(self.rows[code]) == organization:
                self.rows[code] = self.rows[code] | {"versaoConsulta": f"{number}.0.0"}

    def rows_of(self, organization: int) -> Rows:
        return {code: row for code, row in self.rows.items() if organization_of(row) == organization}

    def new_unit(self, code: int, parent: int, organization: int, name: str) -> Row:
        return siorg_row(code, parent, organization=organization, nome=name, sigla=f"S{code}", **contact(phones=[f"1{code}"]))

    # -- answers ------------------------------------------------------------------------------------------------------

    async def version(self, organization: int) -> str:
        self._requested(f"version {organization}")
        self._check_organization(organization)
        return f"{self.versions[organization]}.0.0"

    async def structure(self, organization: int) -> Structure:
        self._requested(f"structure {organization} of many")
        self._check_organization(organization)
        return await super().structure(organization)

    async def unit(self, code: int) -> RemoteUnit:
        if code in self.torn:
            self._requested(f"unit {code}")
            raise MalformedResponse("torn")
        return await super().unit(code)

    def _check_organization(self, code: int) -> None:
        if code in self.torn:
            raise MalformedResponse("torn")
        if code not in self.rows:
            raise NotFound("Unidade não encontrada", siorg_error=102)
        if not is_organization(code, self.rows):
            raise NotAnOrganization("não é órgão nem entidade", siorg_error=104)

    def _requested(self, what: str) -> None:
        super()._requested(what)
        waiting, self.events = self.events, []
        for left, happen in waiting:
            if left:
                self.events.append((left - 1, happen))
            else:
                happen()

    # -- faults -------------------------------------------------------------------------------------------------------

    def fail(self, *, down: bool) -> None:
        self.down = SiorgUnavailable("no answer") if down else None


ORGANIZATIONS = (UFMT, 500, 600, 800, 900)
"""Those that are registered at the beginning, or the first of them."""
UNREGISTERED = 700
