"""Troubles for the log: each is told once, when it begins, and once when it is over, however often it is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siorg_operator.decide.reasons import ConditionType, Reason
from siorg_operator.decide.status import BAD, Event, by_type, transitions


class Troubles:
    """Those of one resource, as this process has told them; one that was there before it began is news to it."""

    def __init__(self) -> None:
        self._seen: dict[str, Mapping[str, Any]] = {}
        """The conditions as they were last known, by their type."""
        self._told: set[tuple[str, str]] = set()
        """Type and reason of what is not over: what fails now in one way and then in another is told once a way."""

    def news(self, status: Mapping[str, Any]) -> list[Event]:
        """What has begun, and what is over, in a status that was composed just now."""
        before = self._seen
        self._seen = before | {
            kind: condition
            for kind, condition in by_type(status).items()
            if condition["status"] != "Unknown" and not _is_anothers(kind, condition)
        }
        events = transitions({"conditions": [*before.values()]}, {"conditions": [*self._seen.values()]})
        bad = {kind: condition["reason"] for kind, condition in self._seen.items() if condition["status"] == BAD.get(kind)}
        self._told = {(kind, reason) for kind, reason in self._told if kind in bad}
        known = {reason for _, reason in self._told}
        self._told |= bad.items()
        return [event for event in events if event.type == "Normal" or event.reason not in known]


def _is_anothers(kind: str, condition: Mapping[str, Any]) -> bool:
    """Whether it only says what comes of a trouble that another condition tells."""
    comes_of = kind == ConditionType.SCALING_ACTIVE and condition["status"] == BAD[kind]
    return comes_of and Reason(condition["reason"]).condition != kind
