"""SIORG's envelope: what is an answer of SIORG at all, which error it reports, and the rows in it, one by one.

A gateway may answer in SIORG's place, and bodies break off. So an answer is one whole JSON object with a ``servico`` and
its ``codigoErro``; anything else is a ``MalformedResponse``, and what SIORG reports comes before any look at the rows.
Lists are read row by row, and rows are counted. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from siorg_job.siorg.errors import (
    AnswerTooLarge,
    InvalidData,
    MalformedResponse,
    NotAnOrganization,
    NotFound,
    RequestRefused,
    SiorgError,
    SiorgUnavailable,
    UnusableAnswer,
)
from siorg_job.siorg.json_reader import Body, JsonReader
from siorg_job.siorg.values import camel, excerpt, shape_of

MOST_ROWS: Final = 100_000
"""Rows of one answer, and of other lists in it; all of SIORG has 75,000 units."""

_T = TypeVar("_T")

# What a ``codigoErro`` means; any other is a ``RequestRefused``.
ERRORS: Final[Mapping[int, type[SiorgError]]] = {1: SiorgUnavailable, 101: NotFound, 102: NotFound, 104: NotAnOrganization}


def read_envelope(body: Body, keys: tuple[str, ...], read: Callable[[Any], _T]) -> list[_T]:
    """Read the rows of an answer.

    Args:
        body: the whole body.
        keys: the names that the rows may have, the preferred first. The first that holds any rows counts.
        read: what to make of a row. Its errors wait until the envelope has been judged.

    Raises:
        MalformedResponse: this is no whole answer of SIORG, or none of several rows could be read (``UnusableAnswer``).
        AnswerTooLarge: it has over ``MOST_ROWS`` rows, or one value in it is too long.
        InvalidData: that of the first row that could not be read.
        SiorgError: the error that SIORG reports; rows are not looked at then.
    """
    reader = JsonReader(body)
    found: dict[str, list[_T]] = {}
    service: Any = None
    error: MalformedResponse | None = None
    refused = 0
    first: InvalidData | None = None

    def take(name: str, row: Any) -> None:
        nonlocal refused, first
        if name not in keys:
            return
        try:
            found.setdefault(name, []).append(read(row))
        except InvalidData as failure:
            refused += 1
            first = first or failure

    for key in reader.object_keys():
        name = camel(key)
        if name != "servico" and reader.peek() == "[":
            found[name] = []
            for row in _elements(reader):
                take(name, row)
            continue
        value = reader.value()
        if name == "servico":
            service = value
        elif isinstance(value, dict):
            take(name, value)
        elif name in keys and value is not None and value != "":
            message = f"SIORG's envelope has {shape_of(value)} where {name} should be an object or a list"
            error = error or MalformedResponse(message)
    _raise_reported(service)
    if error is not None:
        raise error
    if first is not None:
        check_usable(any(found.values()), refused, first)
        raise first
    return next((found[key] for key in keys if found.get(key)), [])


def _elements(reader: JsonReader) -> Iterator[Any]:
    for count, _ in enumerate(reader.entries("[", "]"), 1):
        if count > MOST_ROWS:
            raise AnswerTooLarge(f"SIORG's answer has over {MOST_ROWS} rows", max_rows=MOST_ROWS)
        yield reader.value()


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
