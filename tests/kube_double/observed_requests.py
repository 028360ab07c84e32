"""What was asked of the server, and what shall go wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Moment = Literal["before", "after"]
"""Before or after the answer goes out; the request was carried out already."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as Kubernetes' audit log would name its parts."""

    time: float
    """When it came, by ``time.monotonic``."""
    path: str
    verb: str
    """get, list, watch, create, update, patch or delete; the method in lower case for other paths."""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    status: int = 0
    """HTTP status of the answer; 0 while there is none."""
    user_agent: str = ""
    user: str = ""

    @property
    def writes(self) -> bool:
        return self.verb in ("create", "update", "patch", "delete")


@dataclass(slots=True, kw_only=True)
class Trouble:
    """One thing that goes wrong, for the requests that fit all that is given."""

    verb: str | None = None
    resource: str | None = None
    subresource: str | None = None
    namespace: str | None = None
    name: str | None = None
    user_agent: str | None = None
    """A part of it."""
    status: int | None = None
    """The answer; 410 for a watch is the answer itself, not an event in it."""
    message: str = ""
    text: str | None = None
    """The whole answer, with that status, instead of what Kubernetes would say."""
    retry_after: str = "1"
    """With 429."""
    delay: float = 0.0
    """Seconds to wait first."""
    hang: bool = False
    """Do not answer until the fault is over."""
    drop: bool = False
    """Close the connection instead of answering."""
    carried_out: bool = False
    """The request is carried out, and only its answer is lost."""
    count: int | None = None
    """How many requests it is for; None for all."""
    hits: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def fits(self, request: Request) -> bool:
        if self.count is not None and self.hits >= self.count:
            return False
        asked = (
            (getattr(self, each), getattr(request, each)) for each in ("verb", "resource", "subresource", "namespace", "name")
        )
        return all(wanted in (None, found) for wanted, found in asked) and (self.user_agent or "") in request.user_agent


@dataclass(slots=True)
class Hooks:
    """Callbacks and troubles, changed by tests while requests come in."""

    callbacks: list[tuple[Moment, Callable[[Request], None]]] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)

    def at(self, moment: Moment) -> list[Callable[[Request], None]]:
        return [call for when, call in self.callbacks if when == moment]

    def trouble_for(self, request: Request) -> Trouble | None:
        """The first that fits; counts it."""
        trouble = next((each for each in list(self.troubles) if each.fits(request)), None)
        if trouble is not None:
            trouble.hits += 1
        return trouble
