"""What the running simulator is: everything that may change while it runs, in one place."""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from siorg_simulator.answers import Reply
from siorg_simulator.endpoints import Site
from siorg_simulator.faults import Fault, Faults, Latency
from siorg_simulator.quirks import Quirk
from siorg_simulator.request_log import RequestCounts
from siorg_simulator.structure import History

CacheKey = tuple[str, str, str | None, bool]
"""Path with query, date, caller, whether compressed."""


class ReplyCache:
    """Answers as bytes, the least lately used thrown out first. A changed site begins with an empty one."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._replies: OrderedDict[CacheKey, Reply] = OrderedDict()

    def get(self, key: CacheKey) -> Reply | None:
        """The answer kept under a key."""
        reply = self._replies.get(key)
        if reply is not None:
            self._replies.move_to_end(key)
        return reply

    def put(self, key: CacheKey, reply: Reply) -> None:
        """Keep an answer, unless it alone would take more than half of the room."""
        if len(reply.body) * 2 > self._limit or key in self._replies:
            return
        self._replies[key] = reply
        self._size += len(reply.body)
        while self._size > self._limit:
            _, oldest = self._replies.popitem(last=False)
            self._size -= len(oldest.body)


@dataclass(slots=True)
class Simulation:
    """The state that handlers read and the control changes. All on the event loop, so without locks.

    Attributes:
        site: What is served.
        faults: The weather.
        latency: How long answers take.
        token: Required in ``Authorization: Bearer``; None when nothing is.
        retry_after: Seconds that 429 and 503 tell to wait; None to tell nothing.
        timeout_hold: Seconds that a timeout holds a request.
        seed: Of the weather.
        down: Every answer is 503 while it is set.
        cache_bytes: Room for answers kept as bytes.
    """

    site: Site
    faults: Faults = field(default_factory=Faults)
    latency: Latency = field(default_factory=Latency)
    token: str | None = field(default=None, repr=False)
    retry_after: int | None = None
    timeout_hold: float = 120.0
    seed: int = 0
    down: bool = False
    cache_bytes: int = 128 * 1024 * 1024
    counts: RequestCounts = field(default_factory=RequestCounts)
    cache: ReplyCache = field(init=False)
    _fault_draws: random.Random = field(init=False)
    _latency_draws: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.cache = ReplyCache(self.cache_bytes)
        # Apart, so that a changed latency does not change which request meets which fault.
        self._fault_draws = random.Random(self.seed)  # noqa: S311  weather, not secrets
        self._latency_draws = random.Random(self.seed + 1)  # noqa: S311

    @property
    def history(self) -> History:
        """The editions that are served."""
        return self.site.history

    def serve(self, history: History) -> None:
        """Serve another history from now on."""
        self._change(replace(self.site, history=history))

    def wobble(self, quirks: frozenset[Quirk]) -> None:
        """Answer with other quirks from now on."""
        self._change(replace(self.site, quirks=quirks))

    def _change(self, site: Site) -> None:
        self.site = site
        self.cache = ReplyCache(self.cache_bytes)

    def next_fault(self) -> Fault | None:
        """The fault that the next request meets."""
        return self.faults.choose(self._fault_draws.random()) if self.faults.chances else None

    def next_latency(self) -> float:
        """How long the next answer takes, in seconds."""
        return self.latency.seconds(self._latency_draws.random()) if self.latency.mean else 0.0
