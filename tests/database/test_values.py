"""What PostgreSQL can hold and Python cannot is no error: times come in UTC, JSON that it cannot hold as unreadable."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from siorg_queue import Connection, Unreadable
from siorg_queue.loaders import EARLIEST, LATEST

_ZONES = ("UTC", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Kiritimati", "America/Adak")
_TIMES = {
    "infinity": LATEST,
    "-infinity": EARLIEST,
    "10001-01-01 00:00:00Z": LATEST,
    "294276-12-31 23:59:59Z": LATEST,
    "0044-03-15 00:00:00Z BC": EARLIEST,
    "4714-11-24 00:00:00Z BC": EARLIEST,
    "0001-01-01 00:00:00Z": EARLIEST,
    "9999-12-31 23:59:59.999999Z": LATEST,
    "1890-01-01 00:00:00.5Z": datetime(1890, 1, 1, 0, 0, 0, 500_000, UTC),
    "2026-11-28 04:22:43.123456Z": datetime(2026, 11, 28, 4, 22, 43, 123_456, UTC),
    # In São Paulo half past eleven in the evening came twice.
    "2018-02-18 01:30:00Z": datetime(2018, 2, 18, 1, 30, tzinfo=UTC),
    "2018-02-18 02:30:00Z": datetime(2018, 2, 18, 2, 30, tzinfo=UTC),
}


def _value(connection: Connection, sql: str, *parameters: object) -> Any:
    row = connection.execute(f"SELECT {sql} AS value".encode(), parameters).fetchone()
    assert row is not None
    return row["value"]


@pytest.mark.parametrize("zone", _ZONES)
def test_a_time_is_in_utc_whatever_the_session_s_zone_and_keeps_its_order(connection: Connection, zone: str) -> None:
    connection.execute(f"SET TIME ZONE '{zone}'".encode())
    read = {text: _value(connection, "%s::timestamptz", text) for text in _TIMES}
    assert read == _TIMES
    assert {moment.tzinfo for moment in read.values()} == {UTC}
    in_order = [row["value"] for row in connection.execute(
        "SELECT value FROM unnest(%s::timestamptz[]) AS t (value) ORDER BY value", [list(_TIMES)])]  # fmt: skip
    assert in_order == sorted(in_order)
    assert [_value(connection, "%s::timestamptz", moment) for moment in in_order] == in_order  # and there and back


@pytest.mark.parametrize(
    "sql",
    [
        "repeat('9', 5000)::jsonb",
        "'1e5000'::jsonb",
        "('{\"a\": ' || repeat('9', 400) || '.5}')::jsonb",
        "(repeat('[', 1500) || repeat(']', 1500))::jsonb",
        "(repeat('{\"a\":', 101) || 'null' || repeat('}', 101))::jsonb",
        "(repeat('[', 5000) || repeat(']', 5000))::json",
    ],
)
def test_json_that_cannot_be_held_is_unreadable_and_not_null(connection: Connection, sql: str) -> None:
    found = _value(connection, sql)
    assert isinstance(found, Unreadable)
    assert not found
    assert _value(connection, "NULL::jsonb") is None


def test_json_that_can_be_held_is(connection: Connection) -> None:
    brackets = {"[" * 2000 + '"\\' + "{" * 2000: ["[", {"{": ["]"]}] * 300, "n": int("9" * 4000), "f": 1.5}
    assert _value(connection, "%s::text::jsonb", json.dumps(brackets)) == brackets
    deep = "[" * 100 + "]" * 100
    assert json.dumps(_value(connection, "%s::text::jsonb", deep)) == deep
