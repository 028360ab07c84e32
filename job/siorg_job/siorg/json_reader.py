"""JSON, value by value, out of a body that is never there as text or as values all at once.

A body of 16 MB takes some 100 MB as dictionaries, and an empty list of two bytes takes 56: what a server sends says little about
what it costs. So the body stays bytes, a window of it is text at a time (which takes four bytes a character where one of them
is an emoji), and no value may be longer than ``LONGEST_VALUE``.

The standard library's parser reads each value. Of the 0.56 s of CPU that an answer of 6,600 units takes (16 MB; 2026-11), reading
JSON is 0.08 s; msgspec's ``Raw`` needs 0.04, ijson 0.11, orjson as a whole 0.09 and 55 MB. msgspec and orjson build before
anybody can count, and none of the three reads the rows beside one with wrong bytes or a number of 5,000 digits. Pure.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from siorg_job.siorg.errors import AnswerTooLarge, MalformedResponse
from siorg_job.siorg.values import Unusable

LONGEST_VALUE: Final = 256 * 1024
"""Characters of one row, or of anything else in the envelope; the longest row that was seen has 5,000."""

_WINDOW = 256 * 1024  # bytes that become text at a time
_LONGEST_NUMBER = 300  # characters: Python refuses to read integers beyond 4,300 digits, also when they come back from jsonb
_LONGEST_TOKEN = 12  # characters of a JSON token that is no text: "-Infinity", an escaped character

Body = bytes | bytearray

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


class JsonReader:
    """A place in a body of JSON, so that only one element of a list has to be there at a time."""

    def __init__(self, body: Body) -> None:
        self._body = body
        # Wrong bytes spoil the row that they are in, not the whole list.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._taken = 0  # bytes
        self._text, self._position = "", 0
        self._take(_WINDOW)
        if self._text.startswith("\ufeff"):
            self._position = 1

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            found = self._text[self._position : self._position + 1]
            if found.isspace() and (space := _SPACE.match(self._text, self._position)):  # seldom: SIORG writes compactly
                self._position = space.end()
                found = self._text[self._position : self._position + 1]
            if found or not self._take(_WINDOW):
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
        """The value that begins here.

        Raises:
            MalformedResponse: there is none, or not to its end.
            AnswerTooLarge: it is longer than ``LONGEST_VALUE``.
        """
        self.peek()
        while True:
            end = None
            try:
                value, end = DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                # What is cut off is found wrong at the end, or where the text begins that has none.
                is_cut = error.pos >= len(self._text) - _LONGEST_TOKEN or error.msg.startswith("Unterminated string")
                failure = self._malformed("breaks off or goes wrong", error.pos)
            except RecursionError:
                is_cut = False
                length = len(self._body)
                failure = MalformedResponse("SIORG's answer is nested too deeply to be one of its answers", length=length)
            else:
                is_cut = end == len(self._text)  # a number may go on
            length = (len(self._text) if end is None else end) - self._position
            if is_cut and length <= LONGEST_VALUE and self._take(max(_WINDOW, length)):
                continue
            if length > LONGEST_VALUE and (is_cut or end is not None):
                break
            if end is None:
                # Raised here, so that it is not chained to the decoder's error, which holds the text.
                raise failure
            self._position = end
            return value
        message = f"one value of SIORG's answer is longer than {LONGEST_VALUE} characters"
        raise AnswerTooLarge(message, max_characters=LONGEST_VALUE)

    def entries(self, opening: str, closing: str) -> Iterator[None]:
        """Step through a list or an object: stop at the beginning of each of its entries, which is to be read then."""
        self.skip(opening)
        separator = "," if self.peek() != closing else self.skip(closing)
        while separator == ",":
            yield
            separator = self.skip("," + closing)

    def object_keys(self) -> Iterator[str]:
        """The keys of the one object that the body has to be; at each, the value has to be read."""
        length = len(self._body)
        if not length:
            raise MalformedResponse("SIORG answered with an empty body", length=0)
        if (found := self.peek()) != "{":
            kind = "HTML or XML" if found == "<" else "another kind of text"
            raise MalformedResponse(f"SIORG's answer is no JSON object but {kind} ({length} bytes)", length=length)
        for _ in self.entries("{", "}"):
            self.expect('"')
            key = self.value()
            self.skip(":")
            yield key
        if self.peek():
            raise MalformedResponse("SIORG's answer goes on after its end", position=self._place(self._position), length=length)

    def _take(self, size: int) -> bool:
        """Put so many further bytes behind the text that is left; False where there are none."""
        piece = self._body[self._taken : self._taken + size]
        if not piece:
            return False
        self._taken += len(piece)
        self._text = self._text[self._position :] + self._decoder.decode(piece, self._taken == len(self._body))
        self._position = 0
        return True

    def _place(self, position: int) -> int:
        """The byte of the body that a character of the text begins at."""
        waiting, _ = self._decoder.getstate()
        return self._taken - len(waiting) - len(self._text[position:].encode("utf-8", "surrogateescape"))

    def _malformed(self, what: str, position: int) -> MalformedResponse:
        place, length = self._place(position), len(self._body)
        message = f"SIORG's answer is no whole JSON: it {what} at byte {place} of {length}"
        return MalformedResponse(message, position=place, length=length)
