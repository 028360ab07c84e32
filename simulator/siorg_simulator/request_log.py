"""One JSON line for each request, and counts of what was asked. The token is never among them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass(slots=True)
class Entry:
    """What is told of one request."""

    time: str
    method: str
    path: str
    query: dict[str, str]
    endpoint: str
    """The template of the path, see endpoints.endpoint_of."""
    status: int | None = None
    """HTTP status that was sent; None when none was."""
    fault: str | None = None
    bytes: int = 0
    """Bytes of the body that were sent, after compression."""
    duration_ms: float = 0.0
    authorized: bool = False
    """Whether the request bore the token; always true when none is asked for."""

    def line(self) -> str:
        """The entry as one line of JSON."""
        return json.dumps(
            {
                "time": self.time,
                "method": self.method,
                "path": self.path,
                "query": self.query,
                "status": self.status,
                "fault": self.fault,
                "bytes": self.bytes,
                "duration_ms": round(self.duration_ms, 3),
                "authorized": self.authorized,
            },
            ensure_ascii=False,
        )


@dataclass(slots=True)
class RequestCounts:
    """How many requests there were, by what they asked and what became of them."""

    by_endpoint: Counter[str] = field(default_factory=Counter)
    by_status: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)

    def add(self, entry: Entry) -> None:
        """Count one request."""
        self.by_endpoint[entry.endpoint] += 1
        self.by_status["none" if entry.status is None else str(entry.status)] += 1
        if entry.fault is not None:
            self.by_fault[entry.fault] += 1

    def as_json(self) -> dict[str, object]:
        """For the control endpoint."""
        return {
            "total": self.by_endpoint.total(),
            "by_endpoint": dict(sorted(self.by_endpoint.items())),
            "by_status": dict(sorted(self.by_status.items())),
            "by_fault": dict(sorted(self.by_fault.items())),
        }


class RequestLog:
    """Appends entries to a file, each at once, so that it can be read while the simulator runs."""

    def __init__(self, path: Path | None) -> None:
        """Open the file.

        Raises:
            OSError: It cannot be written.
        """
        self._file: TextIO | None = path.open("a", encoding="utf-8", buffering=1) if path else None

    def write(self, entry: Entry) -> None:
        """Append one line; nothing when there is no file."""
        if self._file:
            self._file.write(entry.line() + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
