"""What SIORG said of one organization beside the rows here, with what people decided: for discovery, verification and preview."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from siorg_job.siorg.model import Told
from siorg_job.sync.compare import Comparison, Disputed, compare
from siorg_job.sync.model import UnitField
from siorg_job.sync.read import read_decisions, read_for_comparison, read_registered
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of comparing one organization, and what it was compared with."""

    told: Told
    copy: WorkingCopy
    comparison: Comparison
    disputed: Set[Disputed]
    """What waits for a person already: it is not asked again."""
    registered: Set[int]
    """Codes of the organizations that are registered here, and active."""


def compared(told: Told, connection: Connection) -> Compared:
    """Read what is here of the organization, and compare. Nothing is written."""
    structure, elsewhere = told.structure, told.elsewhere
    copy = read_for_comparison(connection, structure.organization, [*structure.units, *structure.invalid, *elsewhere])
    first = compare(structure, copy, elsewhere)
    codes = _may_be_decided(first) + ([structure.organization] if told.ended else [])
    disputed = read_decisions(connection, codes, copy)
    comparison = compare(structure, copy, elsewhere) if codes else first  # with what people turned down
    return Compared(told, copy, comparison, disputed, read_registered(connection))


def _may_be_decided(comparison: Comparison) -> list[int]:
    """Codes of what a person may have been asked about: both sides changed it, it is gone, or a name is overwritten."""
    named = {code for (_, code), found in comparison.differences.items() if any(each.field == UnitField.NAME for each in found)}
    return sorted({*comparison.apart, *comparison.gone, *named})
