"""Values that people merge: what the columns cannot hold is refused with the field's name, and what just fits is taken."""

from __future__ import annotations

from typing import Any

import pytest

from siorg_job.sync.model import OrganizationField, UnitField
from siorg_job.sync.resolution import ResolutionError, read_resolution

LONGEST = [
    (UnitField.NAME, 255),
    (UnitField.ACRONYM, 50),
    (OrganizationField.NAME, 255),
    (OrganizationField.STATE, 2),
    (OrganizationField.ZIP_CODE, 10),
    (OrganizationField.PHONE, 50),
]


def merge(field: str, value: Any) -> Any:
    fields = [*UnitField] if field in [*UnitField] else [*OrganizationField]
    merged = read_resolution({"resolution": "MERGE", "merged_payload": {field: value}}, fields)
    assert merged is not None
    return merged.merged[field]


@pytest.mark.parametrize(("field", "longest"), LONGEST)
def test_a_text_that_just_fits_is_taken_and_a_longer_one_or_one_with_a_nul_refused(field: str, longest: int) -> None:
    assert merge(field, "x" * longest) == "x" * longest
    for bad in ("x" * (longest + 1), "\0", "x\0"[:longest]):
        with pytest.raises(ResolutionError, match=f"merged_payload.{field} must be a text of 1 to {longest} characters"):
            merge(field, bad)


@pytest.mark.parametrize("field", [UnitField.PHONES, UnitField.EMAILS, UnitField.WEBSITES])
def test_of_several_each_has_to_be_a_text_that_can_be_printed(field: str) -> None:
    assert merge(field, ["1", "2"]) == ("1", "2")
    for bad in (["1", "2\0"], ["1", 2], "1"):
        with pytest.raises(ResolutionError, match=f"merged_payload.{field} must be a list of texts"):
            merge(field, bad)
