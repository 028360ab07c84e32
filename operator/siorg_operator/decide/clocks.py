"""Times that other machines wrote, made fit to be compared with ours. Pure.

``now`` is the API server's (``cluster.clock``); ends are dated by the controller manager, what happens to containers by kubelets.
Any of them may be wrong by minutes or by years. What lies ahead happened when it was first seen, at the latest: a failure that
is dated in a year is no reason to wait for a year.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from siorg_operator.decide.jobs import JobRecord
from siorg_operator.decide.pods import PodRecord
from siorg_operator.decide.state import Stuck

_Record = TypeVar("_Record", JobRecord, PodRecord)

_MOMENTS = ("created_at", "started_at", "finished_at", "ending_since", "silent_since")
_STATES = ("stuck", "on_its_way")


def not_ahead(record: _Record, before: _Record | None, now: datetime) -> _Record:
    """A record without times ahead of ``now``.

    ``before``: what this returned when the object was looked at last, None: never. What was ahead then stays at that moment, also
    when its own time comes: nothing happens twice.
    """
    changes: dict[str, Any] = {}
    for name in _MOMENTS:
        moment: datetime | None = getattr(record, name, None)
        if moment is not None and moment > (latest := getattr(before, name, None) or now):
            changes[name] = latest
    for name in _STATES:
        state: Stuck | None = getattr(record, name, None)
        was: Stuck | None = getattr(before, name, None)
        if state is None or state.since is None:
            continue
        latest = was.since if was is not None and was.since is not None and was.reason == state.reason else now
        if state.since > latest:
            changes[name] = replace(state, since=latest)
    return replace(record, **changes) if changes else record
