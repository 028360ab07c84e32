"""What a statement reads, in buffers: the same on every machine."""

from __future__ import annotations

from typing import Any

import psycopg

from siorg_queue import Connection


def explained(connection: Connection, statement: str, *, first: bytes = b"", **parameters: object) -> dict[str, Any]:
    """The plan of a statement that runs warm. Rolled back. ``first``: what its transaction sets."""
    with psycopg.ClientCursor(connection) as cursor:
        text = cursor.mogrify(statement.encode(), parameters) if parameters else statement
    plan: dict[str, Any] = {}
    for _ in range(2):  # the second time: what the first one cleared of hints is not counted
        connection.execute("BEGIN")
        try:
            connection.execute(first)
            row = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}".encode()).fetchone()
        finally:
            connection.execute("ROLLBACK")
        assert row is not None
        plan = row["QUERY PLAN"][0]["Plan"]
    return plan


def buffers(plan: dict[str, Any]) -> int:
    """Shared buffers, of the whole plan or of a part of it."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def per_node(plan: dict[str, Any], depth: int = 0) -> str:
    """The buffers of each part of a plan, for a person to find what grew."""
    name = f"{plan['Node Type']} {plan.get('Index Name', plan.get('Relation Name', plan.get('CTE Name', '')))}"
    line = f"{'  ' * depth}{name}: {buffers(plan)} buffers, {plan['Actual Rows']} rows x {plan['Actual Loops']}"
    return "\n".join([line, *(per_node(below, depth + 1) for below in plan.get("Plans", []))])
