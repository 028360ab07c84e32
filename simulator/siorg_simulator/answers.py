"""SIORG's envelope, its return codes, and bodies as bytes. Pure."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from siorg_simulator.quirks import Quirk

SERVICE_VERSION = "4.0.2"
"""versaoServico of 2026-09."""

JSON_TYPE = "application/json"
HTML_TYPE = "text/html;charset=UTF-8"
TEXT_TYPE = "text/plain;charset=UTF-8"

SUCCESS = "Processamento sem erros"
"""The message of success; the documents print a full stop that production does not send."""

_T = TypeVar("_T")


class ReturnCode(IntEnum):
    """servico.codigoErro (SIORG-NovoSiorg-v1.2-WebServices, §2.5)."""

    GENERAL = 1
    REQUIRED = 100
    NONE_MATCH = 101
    NOT_FOUND = 102
    INVALID = 103
    NOT_ORGANIZATION = 104
    LINKED_NEEDS_UNIT = 105


_MESSAGES = {
    ReturnCode.GENERAL: "Erro geral de processamento",
    ReturnCode.REQUIRED: "O(s) campo(s) {} deve(m) ser preenchido(s)",
    ReturnCode.NONE_MATCH: "Não existem {} com os critérios informados",
    ReturnCode.NOT_FOUND: "{} não encontrado",
    ReturnCode.INVALID: "Campo(s) {} inválido(s)",
    ReturnCode.NOT_ORGANIZATION: "Unidade organizacional deve ser um órgão ou entidade",
    ReturnCode.LINKED_NEEDS_UNIT: (
        "Quando o campo RetornarOrgaoEntidadeVinculados está preenchido, é obrigatório o preenchimento do campo CodigoUnidade"
    ),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, before compression and weather."""

    status: int
    content_type: str
    body: bytes
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """What surrounds the data: ``{"servico":{…},"<key>":…}``.

    Attributes:
        date: The day of the request, ``YYYY-MM-DD``.
        caller: The caller's address.
        quirks: The wobbles that are on.
    """

    date: str
    caller: str | None
    quirks: frozenset[Quirk] = frozenset()

    def wrap(self, data: Iterable[tuple[str, str]], *, code: int = 0, message: str = SUCCESS, ticket: str | None = None) -> bytes:
        """A body with the given keys, whose values are JSON text already."""
        parts = [self._head(code, message, ticket), *(f'"{self.key(name)}":{text}' for name, text in data)]
        return encode(",".join(parts) + "}")

    def _head(self, code: int = 0, message: str = SUCCESS, ticket: str | None = None) -> str:
        service = {
            "codigoErro": code,
            "mensagem": message + ("." if Quirk.MESSAGE_DOT in self.quirks else ""),
            "data": self.date,
            "versaoServico": SERVICE_VERSION,
            "ipRequisitante": self.caller,
            "ticket": ticket,
        }
        return f'{{"{self.key("servico")}":{self.dump(service)}'

    def dump(self, value: object) -> str:
        """A value as compact JSON text, with keys as the quirks want them."""
        return dump(_pascal(value) if Quirk.PASCAL_CASE in self.quirks else value)

    def key(self, name: str) -> str:
        """The name of a key as the quirks want it."""
        return _capitalised(name) if Quirk.PASCAL_CASE in self.quirks else name

    def unit(self, name: str, row: object) -> Reply:
        """The answer of a single-unit endpoint."""
        text = self.dump([row] if Quirk.UNIT_AS_ARRAY in self.quirks else row)
        return Reply(200, JSON_TYPE, self.wrap([(self._unit_key(name), text)]))

    def units(self, items: Sequence[_T], row: Callable[[_T], object]) -> Reply:
        """The answer of a list endpoint."""
        if not items:
            return Reply(200, JSON_TYPE, self.wrap(self._nothing(self._list_key, "[]")))
        as_object = len(items) == 1 and Quirk.LIST_AS_OBJECT_WHEN_ONE in self.quirks
        # Row by row into one buffer: the whole of SIORG is some 250 MB, which should not be held twice.
        body = io.BytesIO()
        body.write(encode(f'{self._head()},"{self.key(self._list_key)}":' + ("" if as_object else "[")))
        for number, item in enumerate(items):
            body.write(encode(("," if number else "") + self.dump(row(item))))
        body.write(b"}" if as_object else b"]}")
        return Reply(200, JSON_TYPE, body.getvalue())

    @property
    def _list_key(self) -> str:
        return "unidade" if Quirk.LIST_KEY_SINGULAR in self.quirks else "unidades"

    def _unit_key(self, name: str) -> str:
        return "unidades" if name == "unidade" and Quirk.UNIT_KEY_PLURAL in self.quirks else name

    def _nothing(self, name: str, otherwise: str) -> list[tuple[str, str]]:
        if Quirk.EMPTY_ABSENT in self.quirks:
            return []
        return [(name, "null" if Quirk.EMPTY_NULL in self.quirks else otherwise)]

    def error(self, code: ReturnCode, *, name: str = "unidades", about: str = "", ticket: str | None = None) -> Reply:
        """A business error: HTTP 200 with codigoErro, and the data key empty.

        Args:
            code: Which.
            name: The data key of the endpoint; that of a list is ``unidades``.
            about: What the message's ``{}`` stands for.
            ticket: Number to quote to support, of a system error.
        """
        if code is ReturnCode.NOT_FOUND and Quirk.NOT_FOUND_404 in self.quirks:
            return page(404, "Not Found")
        is_list = name == "unidades"
        data = self._nothing(self._list_key, "[]") if is_list else self._nothing(self._unit_key(name), "null")
        message = _MESSAGES[code].format(about)
        return Reply(200, JSON_TYPE, self.wrap(data, code=code, message=message, ticket=ticket))


def page(status: int, title: str) -> Reply:
    """An HTML page, as a gateway or the application server gives it."""
    text = (
        f"<!DOCTYPE html>\n<html><head><title>{status} {title}</title></head>"
        f"<body><h1>{status} {title}</h1><hr>SIORG simulator</body></html>\n"
    )
    return Reply(status, HTML_TYPE, text.encode())


def dump(value: object) -> str:
    """Compact JSON text as the Java service writes it: no spaces, no escapes where none are needed."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encode(text: str) -> bytes:
    """UTF-8. Lone surrogates, which only a test can have put there, are written as escapes."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return b"".join(
            f"\\u{ord(character):04x}".encode() if "\ud800" <= character <= "\udfff" else character.encode() for character in text
        )


def _capitalised(name: str) -> str:
    return name[:1].upper() + name[1:]


def _pascal(value: object) -> object:
    if isinstance(value, dict):
        return {_capitalised(key): _pascal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_pascal(item) for item in value]
    return value
