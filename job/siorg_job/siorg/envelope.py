"""SIORG's envelope: what is an answer of SIORG at all, which error it reports, and the rows in it, one by one.

A gateway may answer in SIORG's place, and bodies break off. So an answer is one whole JSON object with a ``servico`` and
its ``codigoErro``; anything else is a ``MalformedResponse``, and what SIORG reports comes before any look at the rows.
Lists are read row by row: a ``completa`` body of 16 MB would otherwise stand in memory as some 100 MB of dictionaries.
Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

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
from siorg_job.siorg.values import Unusable, camel, excerpt, shape_of

_LONGEST_NUMBER = 300  # characters: Python refuses to read integers beyond 4,300 digits, also when they come back from jsonb

Body = bytes | bytearray
_T = TypeVar("_T")

# What a ``codigoErro`` means; any other is a ``RequestRefused``.
ERRORS: Final[Mapping[int, type[SiorgError]]] = {1: SiorgUnavailable, 101: NotFound, 102: NotFound, 104: NotAnOrganization}

_SPACE = re.compile(r"[ \t\n\r]*")


def _whole_number(text: str) -> int | Unusable:
    return int(text) if len(text) <= _LONGEST_NUMBER else Unusable(f"a number of {len(text)} characters")


def _decimal_number(text: str) -> float | Unusable:
    number = float(text) if len(text) <= _LONGEST_NUMBER else float("inf")
    return number if math.isfinite(number) else Unusable("a number too large")


DECODER: Final = json.JSONDecoder(
    parse_int=_whole_number,
    parse_float=_decimal_number,
    parse_constant=lambda name: Unusable(f"{name}, which is no JSON number"),
)
"""Reads JSON; ``Unusable`` stands for numbers that cannot be stored."""


class _Cursor:
    """A place in a JSON text, so that only one element of a list has to be there at a time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 1 if text.startswith("\ufeff") else 0

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        found = self._text[self._position : self._position + 1]
        if found.isspace() and (space := _SPACE.match(self._text, self._position)):  # seldom: SIORG writes compactly
            self._position = space.end()
            found = self._text[self._position : self._position + 1]
        return found

    def expect(self, allowed: str) -> str:
        """The next character, which has to be one of the allowed."""
        found = self.peek()
        if not found or found not in allowed:
            raise self._malformed("goes wrong" if found else "breaks off", self._position)
        return found

    def skip(self, allowed: str) -> str:
        found = self.expect(allowed)
        self._position += 1
        return found

    def value(self) -> Any:
        self.peek()
        try:
            value, self._position = DECODER.raw_decode(self._text, self._position)
        except json.JSONDecodeError as error:
            failure = self._malformed("breaks off or goes wrong", error.pos)
        except RecursionError:
            failure = MalformedResponse("SIORG's answer is nested too deeply to be one of its answers", length=len(self._text))
        else:
            return value
        # Raised here, so that it is not chained to the decoder's error, which holds the whole body.
        raise failure

    def entries(self, opening: str, closing: str) -> Iterator[None]:
        """Step through a list or an object: stop at the beginning of each of its entries, which is to be read then."""
        self.skip(opening)
        separator = "," if self.peek() != closing else self.skip(closing)
        while separator == ",":
            yield
            separator = self.skip("," + closing)

    def object_keys(self) -> Iterator[str]:
        """The keys of the one object that the text has to be; at each, the value has to be read."""
        length = len(self._text)
        if (found := self.peek()) != "{":
            kind = "HTML or XML" if found == "<" else "another kind of text"
            raise MalformedResponse(f"SIORG's answer is no JSON object but {kind} ({length} characters)", length=length)
        for _ in self.entries("{", "}"):
            self.expect('"')
            key = self.value()
            self.skip(":")
            yield key
        if self.peek():
            raise MalformedResponse("SIORG's answer goes on after its end", position=self._position, length=length)

    def _malformed(self, what: str, position: int) -> MalformedResponse:
        length = len(self._text)
        message = f"SIORG's answer is no whole JSON: it {what} at character {position} of {length}"
        return MalformedResponse(message, position=position, length=length)


def read_envelope(body: Body, keys: tuple[str, ...], read: Callable[[Any], _T]) -> list[_T]:
    """Read the rows of an answer.

    Args:
        body: the whole body.
        keys: the names that the rows may have, the preferred first. The first that holds any rows counts.
        read: what to make of a row. Its errors wait until the envelope has been judged.

    Raises:
        MalformedResponse: this is no whole answer of SIORG, or none of several rows could be read (``UnusableAnswer``).
        InvalidData: that of the first row that could not be read.
        SiorgError: the error that SIORG reports; rows are not looked at then.
    """
    if not body:
        raise MalformedResponse("SIORG answered with an empty body", length=0)
    cursor = _Cursor(body.decode("utf-8", "surrogateescape"))  # wrong bytes spoil the row that they are in, not the whole list
    found: dict[str, list[_T]] = {}
    service: Any = None
    error: MalformedResponse | None = None
    refused: list[InvalidData] = []

    def take(rows: list[_T], row: Any) -> None:
        try:
            rows.append(read(row))
        except InvalidData as failure:
            refused.append(failure)

    for key in cursor.object_keys():
        name = camel(key)
        if name in keys and cursor.peek() == "[":
            rows = found[name] = []
            for _ in cursor.entries("[", "]"):
                take(rows, cursor.value())
            continue
        value = cursor.value()
        if name == "servico":
            service = value
        elif name in keys and isinstance(value, dict):
            take(found.setdefault(name, []), value)
        elif name in keys and value is not None and value != "":
            message = f"SIORG's envelope has {shape_of(value)} where {name} should be an object or a list"
            error = error or MalformedResponse(message)
    _raise_reported(service)
    if error is not None:
        raise error
    if refused:
        check_usable(any(found.values()), len(refused), refused[0])
        raise refused[0]
    return next((found[key] for key in keys if found.get(key)), [])


def check_usable(usable: object, refused: int, first: InvalidData | None) -> None:
    """Judge an answer with rows that cannot be used: where that are all of several, it says nothing about any of them.

    Args:
        usable: the rows that can be used; nothing where there are none.
        refused: how many cannot.
        first: what is wrong with the first of those that have a code, if one has.

    Raises:
        UnusableAnswer: it is broken.
    """
    if not usable and refused > 1:
        reason = first or "its code cannot be read"
        message = f"none of the {refused} rows of SIORG's answer can be used, the first because {reason}"
        raise UnusableAnswer(message, rows=refused)


def check_envelope(body: Body) -> None:
    """Check, as ``read_envelope`` does, that a body is SIORG's envelope, and that it reports no error."""
    read_envelope(body, (), lambda _row: None)


def _raise_reported(service: Any) -> None:
    fields = {camel(key): value for key, value in service.items()} if isinstance(service, dict) else {}
    code = fields.get("codigoErro")
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) <= 9:
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int):
        what = f"servico.codigoErro is {shape_of(code)}, not a number"
        if not isinstance(service, dict):
            what = f"the answer has no servico object but {shape_of(service)} in its place"
        raise MalformedResponse(f"{what}: not SIORG's envelope; is SIORG_API_URL right?")
    if code == 0:
        return
    number = code if abs(code) < 10**9 else None
    details = {"siorg_error": number, "siorg_message": excerpt(fields.get("mensagem")), "ticket": excerpt(fields.get("ticket"))}
    message = f"SIORG reports error {'of an unknown number' if number is None else number}"
    if details["siorg_message"]:
        message += f": {details['siorg_message']}"
    if details["ticket"]:
        message += f" (ticket {details['ticket']})"
    kind = ERRORS.get(code, RequestRefused)
    raise kind(message, **{key: value for key, value in details.items() if value})
