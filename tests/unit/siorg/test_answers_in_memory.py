"""What hostile answers cost: no more than their size allows, whatever they are made of, and "too large" is said of them."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from siorg_job.siorg.errors import AnswerTooLarge, MalformedResponse, SiorgError
from siorg_job.siorg.rows import parse_unit, parse_version, read_structure
from support.scripted_server import unit_row

MIB = 1024 * 1024
SIZE = 12 * MIB  # of a body
ALLOWED = 2 * SIZE
HEAD = b'{"servico":{"codigoErro":0},"unidades":'
EMPTY_LISTS = b"[" + b",".join([b"[]"] * (SIZE // 3)) + b"]"


def listed(row: bytes | Callable[[int], bytes], size: int = SIZE) -> bytes:
    """An answer of that size, of rows that are alike, or that are made by their number."""
    if isinstance(row, bytes):
        return HEAD + b"[" + b",".join([row] * (size // (len(row) + 1))) + b"]}"
    rows, length, number = [], 0, 0
    while length < size:
        number += 1
        rows.append(row(number))
        length += len(rows[-1]) + 1
    return HEAD + b"[" + b",".join(rows) + b"]}"


def unit(number: int, **fields: object) -> bytes:
    return json.dumps(unit_row(number, **fields), ensure_ascii=False).encode()


ANSWERS: dict[str, tuple[Callable[[], bytes], type[SiorgError] | None]] = {
    "rows of next to nothing": (lambda: listed(lambda number: b'{"codigoUnidade":%d}' % number), AnswerTooLarge),
    "rows that cannot be used": (lambda: listed(lambda number: b'{"codigoUnidade":%d,"nome":5}' % number), AnswerTooLarge),
    "rows without a code": (lambda: listed(b"[]"), AnswerTooLarge),
    "one row of empty lists": (lambda: HEAD + b'[{"x":' + EMPTY_LISTS + b"}]}", AnswerTooLarge),
    "empty lists in a value that nobody asked for": (lambda: b'{"x":{"y":' + EMPTY_LISTS + b"}}", AnswerTooLarge),
    "a list of empty lists that nobody asked for": (lambda: b'{"x":' + EMPTY_LISTS + b"}", AnswerTooLarge),
    "one long text with an emoji": (lambda: HEAD + b'[{"x":"' + "😀".encode() + b"x" * SIZE + b'"}]}', AnswerTooLarge),
    "a text without an end": (lambda: HEAD + b'[{"x":"' + b"x" * SIZE, AnswerTooLarge),
    "an emoji in each row": (lambda: listed(lambda number: unit(number, nota="😀" + "x" * 4000)), AnswerTooLarge),
    "many short telephones": (
        lambda: listed(lambda number: unit(number, contato=[{"telefone": [str(n) for n in range(100, 290)]}])),
        AnswerTooLarge,
    ),
    "lists in lists": (lambda: HEAD + b"[" * SIZE, MalformedResponse),
    "objects in objects": (lambda: HEAD + b'[{"a":' * 2_000_000, MalformedResponse),
    "white space": (lambda: HEAD + b" " * SIZE + b"[]}", None),
    "wrong bytes": (lambda: HEAD + b'[{"x":"' + b"\xff" * SIZE + b'"}]}', AnswerTooLarge),
    "a number without an end": (lambda: HEAD + b"[" + b"1" * SIZE, AnswerTooLarge),
    "long rows that are units": (lambda: listed(lambda number: unit(number, nota="x" * 100_000)), None),
    "rows as they are": (lambda: listed(lambda number: unit(number, nota="–" + "x" * 1500), SIZE // 2), None),
}  # fmt: skip


def peak_bytes() -> int:
    """The most memory that this process had since the mark was taken back."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def cost_of(read: Callable[[], object]) -> tuple[int, type[SiorgError] | None]:
    """The most memory that reading took, and what it brought that was no answer."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    told: type[SiorgError] | None = None
    try:
        _kept = read()
    except SiorgError as error:
        told = type(error)
    return peak_bytes() - before, told


@pytest.mark.parametrize("name", ANSWERS)
def test_no_structure_costs_more_than_its_size_allows(name: str) -> None:
    make, expected = ANSWERS[name]
    body = make()
    cost, told = cost_of(lambda: read_structure(body, 471, ALLOWED))
    assert told is expected
    assert cost < ALLOWED + 8 * MIB, f"{cost / MIB:.0f} MiB"


def test_rows_where_one_is_asked_for_are_not_kept() -> None:
    body = listed(b'{"codigoUnidade":9,"x":[' + b",".join([b"[]"] * 20_000) + b"]}", 2 * MIB)  # 2 MB of text, 40 as lists
    for read in (parse_unit, parse_version):
        cost, told = cost_of(lambda read=read: read(body, 9))  # type: ignore[misc]
        assert told is not None
        assert cost < 10 * MIB, f"{cost / MIB:.0f} MiB"
