"""One value of SIORG's: every spelling that was seen is read, and what cannot be used is named with its shape."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as whatever
from hypothesis import strategies as st

from siorg_job.siorg import values
from siorg_job.siorg.errors import InvalidData

Reader = Callable[[Any, str], Any]

BLANK: list[Any] = [None, "", "  ", "\xa0\r\n\t", "\x00 \u202e\u200b\x9b", "\u3164"]


def contacts(key: str, reader: Reader = values.label) -> Reader:
    return lambda value, field: values.texts(values.objects(value, field), key, reader)


PHONES, MAILS = contacts("telefone"), contacts("email", values.text)

READ: list[tuple[Reader, Any, list[Any]]] = [
    *((reader, None, BLANK) for reader in (
        values.text, values.label, values.area, values.operation, values.code, values.version, values.numeric_code,
        values.type_slug, values.type_letters, values.website, PHONES)),
    (values.code, 244, [
        "http://estruturaorganizacional.dados.gov.br/id/unidade-organizacional/244",
        "HTTPS://other.host:8443/doc/unidade-organizacional/000244/", "244", "000244", " 244 ", "\u202d244\u202c", "244\x00",
        244]),
    (values.text, "a bc", ["  a \r\n" + "\xa0" * 2000 + "b\u200bc\t"]),  # the limit counts after normalising
    (values.text, "X Y", [" " * 2000 + "X\u2028Y"]),
    (values.text, "x" * 1000, ["x" * 1000]),
    (values.text, "ab", ["a\x00b", "a\x07b", "a\x96b", "\u202eab\u202c", "\u2066a\u2069b", "a\u00adb", "\ufeffab", "ab\ufe0f"]),
    (values.text, "São", ["São", "Sa\u0303o", "Sa\u034f\u0303o"]),
    *((values.text, damaged, [damaged]) for damaged in ("ORGAO ¿ SEDE", "SE\ufffdO", "Ã‡", "q\u0303", "\ue000")),
    (values.text, r"C:\u0000 \ud83d", [r"C:\u0000 \ud83d"]),
    (values.text, "\U0001f600", ["\U0001f600"]),
    (values.label, "78060900", [78060900, 78060900.0, " 78060900"]),
    (values.type_slug, "unidade-colegiada", ["https://x/id/tipo-unidade/Unidade-Colegiada", "uc"]),
    (values.type_slug, "orgao", ["orgao", "https://x/id/tipo-unidade/OR"]),
    (values.type_slug, "entidade", ["EM", "EN"]),
    (values.type_slug, "something-new", ["https://x/id/tipo-unidade/something-new"]),
    (values.type_letters, "UA", ["https://x/id/tipo-unidade/UA", "UA"]),
    (values.numeric_code, 12, ["https://x/id/categoria-unidade/12", 12]),
    (values.numeric_code, None, ["https://x/id/categoria-unidade/orgao-singular"]),  # its number is not known
    (values.area, "CORE", ["FIM"]),
    (values.area, "SUPPORT", ["meio"]),
    (values.operation, "INCLUSAO", ["INCLUSAO"]),
    (values.operation, "ALTERACAO", ["alteração"]),
    (values.operation, "EXCLUSAO", ["EXCLUSAO", "EXCLUSÃO", "EXTINCAO"]),
    (values.active, True, [*BLANK, "SIM", "s", "1", 1, True]),
    (values.active, False, ["NAO", "não", "N", "0", 0, False]),
    (values.version, "107.2.0", [" 107.02.0 "]),
    (values.website, "http://www.ufmt.br", [{"tipo": "Site", "site": "http://http://www.ufmt.br.", "outroTipoSite": None}]),
    (values.website, "https://ufmt.br/ab", ["https://ufmt.br/a b", "https://ufmt.br/a\u202e\xa0b"]),
    (values.website, "https://ufmt.br/ã", ["https://ufmt.br/a \u0303"]),
    # Contact data keep order and lose doubles; only an empty list inside a contact is a statement.
    (PHONES, None, [[], [None], {}, [{}], [{"telefone": None}], [{"telefone": [""]}]]),
    (PHONES, (), [[{"telefone": []}]]),
    (PHONES, ("36158267",), [[{"telefone": "36158267"}], [{"Telefone": 36158267}]]),
    (PHONES, ("1", "2"), [{"telefone": ["1", " 1 ", None, "2"]}]),
]  # fmt: skip

REFUSED: list[tuple[Reader, str, list[Any]]] = [
    (values.code, "allowed: a URI that ends in a code", [
        0, -1, 2147483648, 10**30, 1.5, True, False, [], {}, ["244"], "x", "24 4", "٣", "²", "-1", "0", "1e3", "2147483648",
        "https://x/id/unidade-organizacional/", "ftp://x/id/244", "https://x/id/244?a=1", "1" * 400, "24\ud8004"]),
    (values.text, "a whole number of 1 digits", [5]),
    (values.text, "a whole number of 2 digits below zero", [-15]),
    (values.text, "true", [True]),
    (values.text, "a list of 1", [["a"]]),
    (values.text, "an object of 1 keys", [{"a": 1}]),
    (values.text, "text of 1001 characters", ["x" * 1001, "  " + "x" * 1001]),  # the length that counts
    (values.text, "lone surrogate", ["\ud800"]),
    (values.label, "true", [True]),
    (values.label, "a decimal number", [1.5]),
    (values.type_slug, "a whole number", [7]),
    (values.type_slug, "text of", ["https://x/id/tipo-unidade/Ünidade", "../../etc", "x" * 101]),
    (values.type_letters, "letters such as UA", [7, "U A"]),
    (values.numeric_code, "a decimal number", [1.5]),
    (values.area, "MEIO, FIM or null", ["OUTRA"]),
    (values.area, "a whole number", [1]),
    (values.version, "of the form major.minor.build", ["107.0", "1.2.-3", "1.2.٣"]),
    (values.version, "a whole number", [107]),
    (values.operation, "INCLUSAO, ALTERACAO, EXCLUSAO or null", ["FUSAO"]),
    (values.operation, "false", [False]),
    (values.active, "SIM or NAO", ["TALVEZ"]),
    (PHONES, "text of 1", ["x"]),
    (PHONES, "a whole number", [5]),
    (PHONES, "here[0] is a whole number", [[5]]),
    (PHONES, "here[0].telefone is true", [[{"telefone": [True]}]]),
    (PHONES, "an object", [[{"telefone": {"a": 1}}]]),
    (MAILS, "a whole number", [[{"email": [5]}]]),
    (MAILS, "text of 1001", [[{"email": ["x" * 1001]}]]),
    (MAILS, "a list of 201", [[{"email": [str(number) for number in range(201)]}]]),
]  # fmt: skip

ADDRESSES: list[tuple[dict[str, Any], str | None, str | None, str | None]] = [
    ({}, None, None, None),
    ({"uf": "MT", "cep": "78060-900"}, None, "78060900", "MT"),
    ({"uf": 51, "logradouro": "Rua A"}, "Rua A, MT", None, "MT"),
    ({"municipio": 5103403, "numero": 9}, None, None, "MT"),
    ({"municipio": "Cuiabá", "uf": "mt"}, "Cuiabá/MT", None, "MT"),
    ({"logradouro": "Rua A", "numero": "s/n", "complemento": "Bloco B", "bairro": "Centro", "cep": 78060900.0},
     "Rua A, s/n, Bloco B - Centro, CEP 78060-900", "78060900", None),
    ({"logradouro": "Rua A", "cep": 7061908}, "Rua A, CEP 07061-908", "07061908", None),
    ({"logradouro": "Rua A", "cep": "00000000", "uf": "??"}, "Rua A", None, None),
    ({"logradouro": "Rua A", "cep": "123", "uf": "Mato Grosso"}, "Rua A", None, None),
    ({"logradouro": "Rua A", "cep": -78060900}, "Rua A, CEP 78060-900", "78060900", None),
    ({"bairro": "Centro"}, "Centro", None, None),
]  # fmt: skip


def test_every_spelling_is_read() -> None:
    wrong = [(value, got, want) for read, want, given in READ for value in given if (got := read(value, "here")) != want]
    assert wrong == []


def test_what_cannot_be_used_is_named_with_its_shape_and_what_is_allowed() -> None:
    for read, said, value in ((read, said, value) for read, said, given in REFUSED for value in given):
        with pytest.raises(InvalidData) as caught:
            pytest.fail(f"{value!r} was read as {read(value, 'here')!r}")
        error = caught.value
        assert str(error).startswith("here"), value
        assert str(error.details["field"]).startswith("here"), value
        assert "allowed: " in str(error), value
        assert said in str(error), value
        assert error.details["shape"], value
        assert len(str(error)) < 300, value
        json.dumps(dict(error.details), allow_nan=False).encode()


def test_addresses_become_one_line_without_what_is_lacking() -> None:
    for address, line, zip_code, state in ADDRESSES:
        read = (values.address_line(address, "e"), values.zip_code(address, "e"), values.state(address, "e"))
        assert read == (line, zip_code, state), address
    for address in ({"logradouro": {}}, {"logradouro": "x", "numero": True}, {"cep": [1]}):
        with pytest.raises(InvalidData, match=r"^e\.\w+ is "):
            values.address_line(address, "e")


def test_versions_compare_as_numbers() -> None:
    assert values.version_key("99.0.0") < values.version_key("107.0.0") < values.version_key("107.0.10")
    for wrong in ("", "1.2", "1.2.3.4", "a.b.c", "1.2.٣", "-1.0.0", "1.2.3\n"):
        with pytest.raises(ValueError, match=r"major\.minor\.build"):
            values.version_key(wrong)


# Signs of Arabic, Syriac, Kaithi and hieroglyphs, which stand before or around others and are seen.
_SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}


def test_no_control_and_no_format_character_is_left() -> None:
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in {"Cc", "Cf"} and code not in _SEEN:
            assert values.normalise(f"a{chr(code)}b") == ("a b" if chr(code).isspace() else "ab"), hex(code)


@whatever(st.text())
def test_normalising_again_changes_nothing(text: str) -> None:
    once = values.normalise(text)
    assert values.normalise(once) == once
    assert once == values.normalise(f"\xa0\u202e{unicodedata.normalize('NFD', text)}\x00\t")
