"""Bad weather: which fault, if any, a request meets, and how long an answer takes. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

ALLOWED = (
    "status=CODE:P (CODE 400 to 599, may come several times), timeout=P, torn=P, garbage=P, empty=P, reset=P, error=P, 429=P"
)


class FaultKind(StrEnum):
    """What a fault does to a request."""

    STATUS = "status"
    """Answered with an HTTP status and an HTML page."""
    TIMEOUT = "timeout"
    """Held without an answer, then closed."""
    TORN = "torn"
    """The connection closes in the middle of the body."""
    GARBAGE = "garbage"
    """HTTP 200 with something that is no SIORG answer."""
    EMPTY = "empty"
    """HTTP 200 with no body."""
    RESET = "reset"
    """The connection is reset instead of an answer."""
    ERROR = "error"
    """HTTP 200 with codigoErro 1 and a ticket."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of bad weather; with the HTTP status, of kind STATUS."""

    kind: FaultKind
    status: int = 0

    @property
    def name(self) -> str:
        """The name in logs and counters."""
        return f"status={self.status}" if self.kind is FaultKind.STATUS else self.kind.value


@dataclass(frozen=True, slots=True)
class Faults:
    """The chance of each fault; the rest of the requests are answered."""

    chances: tuple[tuple[Fault, float], ...] = ()
    text: str = ""

    def choose(self, draw: float) -> Fault | None:
        """The fault that a draw from [0, 1) meets."""
        for fault, chance in self.chances:
            if draw < chance:
                return fault
            draw -= chance
        return None


_ITEM = re.compile(r"(?:status=(?P<code>\d{3}):|(?P<kind>[a-z]+|429)=)(?P<chance>[0-9.eE+-]+)", re.ASCII)


def parse_faults(text: str) -> Faults:
    """Read ``status=503:0.05,timeout=0.01,…``; empty text is fair weather.

    Raises:
        ValueError: The message names what is allowed.
    """
    chances: dict[Fault, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        found = _ITEM.fullmatch(item)
        fault = _fault(found["code"], found["kind"]) if found else None
        chance = _chance(found["chance"]) if found else None
        if fault is None or chance is None:
            message = f"faults: {item!r} is not understood; allowed: {ALLOWED}; P is a probability from 0 to 1"
            raise ValueError(message)
        if fault in chances:
            message = f"faults: {fault.name} comes twice"
            raise ValueError(message)
        chances[fault] = chance
    if sum(chances.values()) > 1 + 1e-9:
        message = f"faults: the probabilities add up to {sum(chances.values()):g}, more than 1"
        raise ValueError(message)
    return Faults(tuple(chances.items()), text.strip())


def _fault(code: str | None, kind: str | None) -> Fault | None:
    if kind == "429":
        code = kind
    if code is not None:
        return Fault(FaultKind.STATUS, int(code)) if 400 <= int(code) <= 599 else None
    plain = {item.value: item for item in FaultKind if item is not FaultKind.STATUS}
    return Fault(plain[kind]) if kind in plain else None


def _chance(text: str) -> float | None:
    try:
        chance = float(text)
    except ValueError:
        return None
    return chance if math.isfinite(chance) and 0 <= chance <= 1 else None


@dataclass(frozen=True, slots=True)
class Latency:
    """How long an answer takes, in milliseconds: evenly spread over ``mean ± jitter``."""

    mean: float = 0.0
    jitter: float = 0.0

    def seconds(self, draw: float) -> float:
        """The latency that a draw from [0, 1) gives, in seconds."""
        return (self.mean + self.jitter * (2 * draw - 1)) / 1000


def parse_latency(text: str) -> Latency:
    """Read ``MEAN`` or ``MEAN:JITTER``, in milliseconds.

    Raises:
        ValueError: Not numbers from 0 to 600000, or a jitter above the mean.
    """
    mean_text, _, jitter_text = text.partition(":")
    try:
        mean, jitter = float(mean_text), float(jitter_text or "0")
    except ValueError:
        mean = jitter = math.nan
    if not (0 <= mean <= 600_000 and 0 <= jitter <= mean):
        message = f"latency: {text!r} is not MEAN[:JITTER] in milliseconds (0 to 600000, jitter at most the mean)"
        raise ValueError(message)
    return Latency(mean, jitter)
