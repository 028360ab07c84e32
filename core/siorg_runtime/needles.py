"""Texts that are looked for in others, all at once: the cost of a look does not grow with how many they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import AnyStr, Final, Generic

SHORTEST: Final = 4  # characters or bytes
_FEW = 100  # up to so many, one plain search for each is faster


class Needles(Generic[AnyStr]):
    """Each is there as often as it was added. Other threads may look while one adds and discards."""

    __slots__ = ("_count", "_lengths")

    def __init__(self) -> None:
        self._count: dict[AnyStr, int] = {}
        self._lengths: dict[AnyStr, dict[int, int]] = {}
        """By their beginnings, how many there are of each length."""

    def add(self, *needles: AnyStr) -> None:
        """Look for them from now on; each has ``SHORTEST`` characters at least."""
        for needle in needles:
            self._count[needle] = self._count.get(needle, 0) + 1
            if self._count[needle] == 1:
                lengths = self._lengths.get(needle[:SHORTEST], {})
                self._lengths[needle[:SHORTEST]] = {**lengths, len(needle): lengths.get(len(needle), 0) + 1}

    def discard(self, *needles: AnyStr) -> None:
        """Undo one ``add`` of each."""
        for needle in needles:
            self._count[needle] -= 1
            if self._count[needle] == 0:
                del self._count[needle]
                lengths = dict(self._lengths[needle[:SHORTEST]])
                lengths[len(needle)] -= 1
                self._lengths[needle[:SHORTEST]] = {length: count for length, count in lengths.items() if count}
                if not self._lengths[needle[:SHORTEST]]:
                    del self._lengths[needle[:SHORTEST]]

    def __len__(self) -> int:
        return len(self._count)

    def spans(self, text: AnyStr) -> Iterator[tuple[int, int]]:
        """Where they begin and end in ``text``, in no order; they may overlap."""
        if len(self._count) <= _FEW:
            for needle in list(self._count):
                if needle not in text:  # the usual case
                    continue
                at = text.find(needle)
                while at >= 0:
                    yield at, at + len(needle)
                    at = text.find(needle, at + 1)
            return
        beginnings, needles = self._lengths, self._count
        for at in [at for at in range(len(text) - SHORTEST + 1) if text[at : at + SHORTEST] in beginnings]:
            for length in beginnings.get(text[at : at + SHORTEST], ()):
                if at + length <= len(text) and text[at : at + length] in needles:
                    yield at, at + length

    def occur_in(self, text: AnyStr) -> bool:
        """Whether any of them is in ``text``."""
        if len(self._count) > _FEW:
            return next(self.spans(text), None) is not None
        return any(needle in text for needle in list(self._count))
