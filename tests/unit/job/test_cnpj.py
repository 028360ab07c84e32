"""Check digits of a CNPJ, in the numeric form and in that of 2026, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from siorg_job.cnpj import read_cnpj


@pytest.mark.parametrize(
    ("text", "cnpj"),
    [
        ("17217985000104", "17217985000104"),
        ("33.004.540/0001-00", "33004540000100"),
        (" 00 000 000 / 0001 - 91 ", "00000000000191"),
        ("12.ABC.345/01DE-35", "12ABC34501DE35"),  # the example of Receita Federal
        ("12abc34501de35", "12ABC34501DE35"),
        ("11111111111180", "11111111111180"),
    ],
)
def test_a_right_one_is_read_without_punctuation_and_in_capitals(text: str, cnpj: str) -> None:
    assert read_cnpj(text) == cnpj


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "text of 0 characters"),
        ("17217985000", "text of 11 characters"),
        ("172179850001041", "text of 15 characters"),
        ("17217985000199", "whose check digits 99 are wrong; allowed after 172179850001: 04"),
        ("17217985000140", "allowed after 172179850001: 04"),
        ("71217985000104", "whose check digits 04 are wrong"),
        ("12ABC34501DE53", "allowed after 12ABC34501DE: 35"),
        ("12abd34501de35", "12ABD34501DE35"),
        ("12ABC34501DE3A", "14 digits, or (since 2026) 12 digits and letters A-Z and 2 digits"),
        ("12ÁBC34501DE35", "12 digits and letters A-Z"),
        ("\uff11\uff17217985000104", "14 digits"),  # digits of another script
        ("00000000000000", "0 fourteen times"),  # its check digits are right
        ("11111111111111", "1 fourteen times"),
    ],
)
def test_a_wrong_one_is_refused_with_what_is_allowed(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="allowed") as wrong:
        read_cnpj(text)
    assert told in str(wrong.value)
