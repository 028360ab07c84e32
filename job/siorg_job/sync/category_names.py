"""What SIORG's categories are called here. Pure.

Names of categories are unique here, and are not in SIORG. Of SIORG's namesakes the one with the lowest code has the bare
name, each other its code behind it. A name that a local row keeps whatever SIORG's table says (a person's, or one that the
table has no more) is taken likewise. So a name follows from the table and from what people did, never from the order in
which items came.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from siorg_job.siorg.model import DomainRow
from siorg_job.sync.domain_rows import LONGEST_BEFORE_CODE, LONGEST_NAME, is_ours
from siorg_job.sync.local_rows import Domain
from siorg_job.sync.model import Fetched
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import EntityType


def possible_names(said: str, code: int) -> Iterator[str]:
    """What a category that SIORG calls so may be called here, the best first, without end."""
    yield said[:LONGEST_NAME]
    yield f"{said[:LONGEST_BEFORE_CODE]} ({code})"
    for number in count(2):
        yield f"{said[:LONGEST_BEFORE_CODE]} ({code}, {number})"


def follows(row: Domain, said: DomainRow | None, fetched: Fetched) -> bool:
    """Whether a local category takes the name that SIORG's table gives it, even without an item of its own."""
    if said is None or len(said.name) > LONGEST_NAME or fetched.is_older_than(row.synced_at):
        return False
    return is_ours(row, said.name)


def table_of(fetched: Fetched) -> dict[int | None, DomainRow]:
    """SIORG's categories by code."""
    return {row.code: row for row in fetched.rows if isinstance(row.code, int)}


def names_here(fetched: Fetched, copy: WorkingCopy) -> dict[int, str]:
    """The name here of each category in SIORG's table, by code, whether it is here yet or not."""
    table = table_of(fetched)
    codes = sorted(code for code in table if code is not None)
    first: dict[str, int] = {}
    for code in codes:
        first.setdefault(table[code].name[:LONGEST_NAME], code)
    categories = copy.domains_of(EntityType.CATEGORY)
    here = {category.code for category in categories}
    taken: dict[str, int | None] = {}
    for category in categories:
        is_adopted = category.is_adoptable and category.name in first and first[category.name] not in here
        if not is_adopted and not follows(category, table.get(category.code), fetched):
            taken[category.name] = category.code
    names: dict[int, str] = {}
    for code in codes:
        names[code] = next(name for name in possible_names(table[code].name, code) if taken.get(name, code) == code)
        taken[names[code]] = code
    return names
