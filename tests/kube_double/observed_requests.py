"""What was asked of the server, and what shall go wrong with it."""

from __future__ import annotations

import asyncio
import threading
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


@dataclass(slots=True)
class Trouble:
    """One thing that goes wrong, for the requests that it is meant for."""

    verb: str | None = None
    resource: str | None = None
    subresource: str | None = None
    namespace: str | None = None
    name: str | None = None
    user_agent: str | None = None
    status: int | None = None
    message: str = ""
    delay: float = 0.0
    hang: bool = False
    drop: bool = False
    carried_out: bool = False
    """The request is carried out, and only its answer is lost."""
    count: int | None = None
    """How many requests it is for; None for all."""
    hits: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the end of a hang."""

    def fits(self, request: Request) -> bool:
        if self.count is not None and self.hits >= self.count:
            return False
        for wanted, found in ((self.verb, request.verb), (self.resource, request.resource), (self.name, request.name),
                              (self.subresource, request.subresource), (self.namespace, request.namespace)):  # fmt: skip
            if wanted is not None and wanted != found:
                return False
        return self.user_agent is None or self.user_agent in request.user_agent


@dataclass(frozen=True, slots=True)
class Hook:
    """A test's callback."""

    moment: Moment
    call: Callable[[Request], None]


class Hooks:
    """Callbacks and troubles, changed by tests while requests come in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hooks: tuple[Hook, ...] = ()
        self._troubles: tuple[Trouble, ...] = ()

    def add(self, hook: Hook) -> None:
        with self._lock:
            self._hooks += (hook,)

    def remove(self, hook: Hook) -> None:
        with self._lock:
            self._hooks = tuple(each for each in self._hooks if each is not hook)

    def at(self, moment: Moment) -> list[Hook]:
        return [each for each in self._hooks if each.moment == moment]

    def begin(self, trouble: Trouble) -> None:
        with self._lock:
            self._troubles += (trouble,)

    def end(self, trouble: Trouble) -> None:
        with self._lock:
            self._troubles = tuple(each for each in self._troubles if each is not trouble)

    def trouble_for(self, request: Request) -> Trouble | None:
        """The first that fits; counts it."""
        with self._lock:
            for trouble in self._troubles:
                if trouble.fits(request):
                    trouble.hits += 1
                    return trouble
        return None
