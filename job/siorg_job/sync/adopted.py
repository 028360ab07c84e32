"""Values whose base is adopted: nothing is recorded of what we wrote there, and SIORG's older answer stands in. Pure.

What differs there counts as a person's edit, and may be the first worker's own mistake. One decision takes SIORG's values for
all of them; who makes it has seen them, so history asks for no further review.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from siorg_job.sync.model import PLACE, plain
from siorg_queue import Decision, EntityType, Item

if TYPE_CHECKING:
    from siorg_job.sync.compare import Difference

_TAKE = {"resolution": "MERGE", "shown": True}


def decisions_for(differences: Iterable[Difference], by: str) -> list[Decision]:
    """SIORG's value for each of these fields, one decision an entity; what else differs there is merged as ever."""
    entities: dict[tuple[EntityType, int], list[Difference]] = {}
    for difference in differences:
        entities.setdefault((difference.entity_type, difference.code), []).append(difference)
    return [
        Decision(
            entity_type,
            code,
            {**_TAKE, "field_resolutions": dict.fromkeys(_together(found), "SIORG"), "resolved_by": by},
            {str(each.field): plain({"base": each.base, "local": each.local, "remote": each.remote}) for each in found},
        )
        for (entity_type, code), found in entities.items()
    ]


def _together(differences: Iterable[Difference]) -> list[str]:
    """The fields to decide: organization and parent are one value."""
    names = {str(each.field) for each in differences}
    return sorted(names | {*map(str, PLACE)} if names & {*PLACE} else names)


def was_shown(item: Item, code: int, fields: Collection[str]) -> bool:
    """Whether a person was shown, and decided, all that changes with these fields of the item's own row."""
    details: Any = item.error_details
    if not isinstance(details, dict) or details.get("shown") is not True or code != item.siorg_code:
        return False
    choices = details.get("field_resolutions")
    return isinstance(choices, dict) and choices.keys() >= {*fields}
