"""Times as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Now, in whole seconds, as metav1.Time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str) -> datetime:
    """A metav1.Time or MicroTime."""
    return datetime.fromisoformat(text)


def written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
