"""One answer of SIORG's in ever other dirt: whoever reads it reads the same. By a seeded ``Random``, for many at a time."""

from __future__ import annotations

import unicodedata
from random import Random
from typing import Any

from support.local_structure import UFMT, Row, siorg_row, unit_uri

_SPACES = " \xa0\t\r\n\v\x1f\x85\u2003\u2028\u3000"
_UNSEEN = "\x00\x07\x1b\x96\xad\u200b\u200f\u202a\u202c\u202e\u2066\u2069\ufeff"
_NOTHING = (None, "", " \xa0", "\u202e\x00")
_LETTERS = "aZ9éãÇº-/.¿\ufffd"


def _word(random: Random) -> str:
    return "".join(random.choices(_LETTERS, k=random.randint(1, 6)))


def _text(random: Random) -> str:
    return " ".join(_word(random) for _ in range(random.randint(1, 3)))


def clean_row(random: Random, code: int, parent: int = UFMT) -> Row:
    """A unit as SIORG would write it if it wrote cleanly; what it does not say is None, and a list without entries."""

    def maybe(value: str) -> str | None:
        return random.choice((value, value, None))

    place = {
        "logradouro": _text(random), "numero": maybe("2367"), "complemento": maybe(_text(random)), "bairro": maybe(_text(random)),
        "municipio": maybe(_word(random)), "uf": maybe("MT"), "cep": maybe(random.choice(("78060900", "07061908"))),
    }  # fmt: skip
    numbers = random.sample(range(1000, 9999), 3)
    said = {
        "telefone": [f"(65) {number}" for number in numbers[: random.randint(0, 3)]],
        "email": [f"{_word(random)}{number}@ufmt.br" for number in numbers[: random.randint(0, 2)]],
        "site": [f"https://{_word(random)}{number}.br/x" for number in numbers[: random.randint(0, 2)]],
    }
    return siorg_row(
        code,
        parent,
        nome=random.choice((_text(random), "ã" * 255, "SEÇÃO ¿ SEDE")),
        sigla=maybe(random.choice((_word(random), "É" * 50))),
        areaAtuacao=maybe(random.choice(("FIM", "MEIO"))),
        versaoConsulta=maybe("107.2.0"),
        codigoCategoriaUnidade=maybe(random.choice(("12", "13"))),
        contato=[said],
        endereco=[place],
    )


def dirty_text(random: Random, clean: str) -> str:
    """The text with white space of any kind, padding, unseen characters, and accents that stand by themselves."""

    def spaces(least: int) -> str:
        return "".join(random.choices(_SPACES, k=random.randint(least, 3)))

    def unseen(word: str) -> str:
        word = unicodedata.normalize(random.choice(("NFC", "NFD")), word)
        where = random.randint(0, len(word))
        return word[:where] + "".join(random.choices(_UNSEEN, k=random.randint(0, 2))) + word[where:]

    first, *words = clean.split(" ")
    return spaces(0) + unseen(first) + "".join(spaces(1) + unseen(word) for word in words) + spaces(0)


def dirty_row(random: Random, clean: Row, *, shuffled: bool = True) -> Row:
    """The row in some dirt: texts, forms of codes and of "nothing", contacts split and (``shuffled``) in another order."""

    def dirty(value: str | None) -> str | None:
        return random.choice(_NOTHING) if value is None else dirty_text(random, value)

    def code(number: int) -> Any:
        padded = f"{number:0{random.randint(0, 9)}}"
        forms = (number, padded, dirty(padded), unit_uri(number), f"http://x.br/id/unidade-organizacional/{padded}/")
        return random.choice(forms)

    row: Row = {key: dirty(value) for key, value in clean.items() if value is None or isinstance(value, str)}
    for key in ("codigoUnidade", "codigoUnidadePai", "codigoOrgaoEntidade", "codigoCategoriaUnidade"):
        if clean[key] is not None:
            row[key] = code(int(clean[key].rsplit("/", 1)[-1]))
    (said,), (place,) = clean["contato"], clean["endereco"]
    row["endereco"] = [{key: dirty(value) for key, value in place.items()}]
    row["contato"] = contacts = [Row(), Row()]
    for key, texts in said.items():
        order = random.sample(texts, len(texts)) if shuffled else texts
        entries: list[Any] = [dirty(text) for text in (*order, *order[:1])]
        if key == "site":
            entries = [{"tipo": "Site", "site": f"http://{entry}."} for entry in entries]
        cut = random.randint(0, len(entries))
        if entries:
            contacts[0][key], contacts[1][key] = entries[:cut], entries[cut:]
        elif random.random() < 0.75:
            contacts[0][key] = random.choice((None, [], [None]))
    for key, value in clean.items():
        if value is None and random.random() < 0.5:
            del row[key]
    return row
