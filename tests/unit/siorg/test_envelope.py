"""What is an answer of SIORG at all, and which error it reports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from siorg_job.siorg.envelope import read_envelope
from siorg_job.siorg.errors import (
    InvalidData,
    MalformedResponse,
    NotAnOrganization,
    NotFound,
    RequestRefused,
    SiorgError,
    SiorgUnavailable,
    UnusableAnswer,
)
from siorg_job.siorg.json_reader import Body
from support.scripted_server import envelope

KEYS = ("unidades", "unidade")

OPEN = b'{"servico":{"codigoErro":0}'
SERVICES = [
    b"null", b"[]", b"{}", b'{"codigoErro":null}', b'{"codigoErro":false}', b'{"codigoErro":0.0}', b'{"codigoErro":"none"}',
]  # fmt: skip
MALFORMED = [
    b"", b" ", b"\x00", b"<html><body>502 Bad Gateway</body></html>", b"null", b"[]", b'"text"', b"471", b"{", b"{}",
    b'{"servico"', b'{"servico":}', b'{servico:{"codigoErro":0}}', b'{"servico" {"codigoErro":0}}',
    OPEN, OPEN + b",}", OPEN + b",5:1}", OPEN + b',"unidade":{}}x', OPEN + b"}" + OPEN + b"}", OPEN + b' "unidade":null}',
    OPEN + b',"unidades":[', OPEN + b',"unidades":[{"codigoUnidade":9}', OPEN + b',"unidades":[{"codigoUnidade":9},]}',
    OPEN + b',"unidades":[{"codigoUnidade":9} {}]}',
    OPEN + b',"unidade":5}', OPEN + b',"unidade":"x"}', OPEN + b',"unidade":true}',
    OPEN + b',"unidade":{"codigoUnidade":9},"x":"\n"}',
    OPEN + b',"x":' + b"[" * 100_000, OPEN + b',"unidades":[' + b'{"a":' * 100_000,
    b'{"unidade":{"codigoUnidade":9}}', b'{"error":"not found","status":404}',
    *(b'{"servico":' + service + b',"unidade":{"codigoUnidade":9}}' for service in SERVICES),
    '{"servico":{"codigoErro":0}}'.encode("utf-16"), b"\x1f\x8b\x08\x00garbage",
]  # fmt: skip


def read(body: Body) -> list[Any]:
    return read_envelope(body, KEYS, lambda row: row)


def fussy(row: Any) -> Any:
    """A reader of rows that finds fault with each."""
    raise InvalidData(f"{row!r} is a row", field="row")


def test_what_is_no_whole_answer_of_siorg_is_malformed() -> None:
    for body in MALFORMED:
        with pytest.raises(MalformedResponse) as caught:
            pytest.fail(f"{body[:80]!r} was read as {read(body)}")
        assert caught.value.__context__ is None, body[:80]  # the decoder's error would hold the whole body


def test_rows_are_found_under_either_key_in_either_shape_and_spelling() -> None:
    row = {"codigoUnidade": 9}
    for key in ("unidade", "unidades", "Unidade", "Unidades"):
        for value in (row, [row]):
            assert read(envelope(key, value)) == [row], (key, value)
    empty: list[Any] = [None, "", []]
    assert [read(envelope("unidade", value)) for value in empty] == [[], [], []]
    both = {"servico": {"codigoErro": 0}, "unidades": [], "unidade": [row]}
    assert read(json.dumps(both).encode()) == [row]  # an empty preferred key does not hide the other


def test_white_space_byte_order_mark_and_unknown_keys_do_no_harm() -> None:
    text = '\ufeff \r\n{ "x" : [1, {}], "unidades" : [ {"a": 1} , 5 ] , "servico" : { "codigoErro" : "0" } } \n'
    assert read(text.encode()) == read(bytearray(text.encode())) == [{"a": 1}, 5]


def test_an_error_of_siorg_comes_before_any_look_at_the_rows() -> None:
    kinds: dict[Any, type[SiorgError]] = {
        1: SiorgUnavailable, 100: RequestRefused, 101: NotFound, 102: NotFound, "102": NotFound, 103: RequestRefused,
        104: NotAnOrganization, 105: RequestRefused, -7: RequestRefused, 10**40: RequestRefused,
    }  # fmt: skip
    for code, kind in kinds.items():
        for value in (None, [], {}, 5, "x", [5], {"codigoUnidade": True}):
            # The rows stand before the servico here, so that they are read first.
            body = json.dumps({"unidade": value, "servico": {"codigoErro": code, "mensagem": "Não encontrado", "ticket": "T-1"}})
            with pytest.raises(SiorgError) as caught:
                read_envelope(body.encode(), KEYS, fussy)
            assert type(caught.value) is kind, (code, value)
            assert "Não encontrado (ticket T-1)" in str(caught.value)
            assert caught.value.details["siorg_message"] == "Não encontrado"
            assert caught.value.details.get("siorg_error") == (None if code == 10**40 else int(code))
    with pytest.raises(InvalidData, match="1 is a row"):  # without one, the first row's error
        read_envelope(envelope("unidades", [1]), KEYS, fussy)
    with pytest.raises(UnusableAnswer, match=r"none of the 2 rows .* 1 is a row"):
        read_envelope(envelope("unidades", [1, 2]), KEYS, fussy)


def test_what_siorg_says_about_an_error_is_cleaned_and_cut() -> None:
    with pytest.raises(RequestRefused) as caught:
        read(envelope(code=100, message="a\x00b\x1b[31m\r\n\ud800" + "x" * 5000))
    assert "ab[31m x" in str(caught.value)
    assert len(str(caught.value)) < 300
    str(caught.value).encode()
    wordless: list[Any] = [None, 5, {}, "", []]
    for message in wordless:
        with pytest.raises(NotFound, match=r"SIORG reports error 102$"):
            read(envelope(code=102, message=message))
