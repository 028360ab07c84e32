"""The CNPJ of an organization: 12 characters and 2 check digits; since 2026 the 12 may be letters too. Pure."""

from __future__ import annotations

import re

_PUNCTUATION = re.compile(r"[./\-\s]")
_CNPJ = re.compile(r"[0-9A-Za-z]{12}[0-9]{2}")
_ALLOWED = "14 digits, or (since 2026) 12 digits and letters A-Z and 2 digits; with or without punctuation"


def read_cnpj(text: str) -> str:
    """A CNPJ as it is stored: 14 characters without punctuation, letters as capitals.

    The check digits are those of Receita Federal (Instrução Normativa RFB 2.229/2024), one rule for both forms.

    Raises:
        ValueError: it is none; the message says what it is and what is allowed, to stand behind the name of the field.
    """
    bare = _PUNCTUATION.sub("", text)
    if not _CNPJ.fullmatch(bare):
        raise ValueError(f"is text of {len(bare)} characters without punctuation; allowed: {_ALLOWED}")
    cnpj = bare.upper()
    if len(set(cnpj)) == 1:  # fourteen zeros have the right check digits
        raise ValueError(f"is {cnpj[0]} fourteen times, which nobody has; allowed: {_ALLOWED}")
    right = check_digits(cnpj[:12])
    if cnpj[12:] != right:
        raise ValueError(f"is {cnpj}, whose check digits {cnpj[12:]} are wrong; allowed after {cnpj[:12]}: {right}")
    return cnpj


def check_digits(stem: str) -> str:
    """The two check digits of the first 12 characters."""
    for _ in range(2):
        stem += _check_digit(stem)
    return stem[12:]


def _check_digit(characters: str) -> str:
    # Weights 2 to 9 from the right, again and again; the value of a character is its ASCII code less 48.
    weighted = ((ord(character) - 48) * (2 + place % 8) for place, character in enumerate(reversed(characters)))
    rest = sum(weighted) % 11
    return "0" if rest < 2 else str(11 - rest)
