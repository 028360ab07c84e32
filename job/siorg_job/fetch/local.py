"""What is here of what SIORG's answers name: one look-up for all that ask at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from siorg_job.database.thread import DatabaseThread
from siorg_queue.statements import load


@dataclass(frozen=True, slots=True)
class Named:
    """Codes that answers name."""

    parents: frozenset[int] = frozenset()
    """Of units below which others hang."""
    organizations: frozenset[int] = frozenset()
    categories: frozenset[int] = frozenset()

    def __or__(self, other: Named) -> Named:
        return Named(self.parents | other.parents, self.organizations | other.organizations, self.categories | other.categories)


@dataclass(frozen=True, slots=True)
class LocalParent:
    """A parent that is here."""

    organization_code: int | None
    """None: it is inactive, and so may be anywhere in SIORG."""
    line: frozenset[int]
    """Codes of itself and of the units that it hangs below here."""
    touched: bool
    """Whether it has an item that is open, in dispute or FAILED, or is here where SIORG did not have it: it may be elsewhere."""


@dataclass(frozen=True, slots=True)
class Here:
    """What is here of what was named."""

    parents: Mapping[int, LocalParent] = field(default_factory=dict)
    organizations: frozenset[int] = frozenset()
    """Registered, and active."""
    categories: frozenset[int] = frozenset()


class Local:
    """Looks up what is here; for one event loop.

    While one look-up is under way, whoever asks is answered by the next one together; who asks alone waits for nobody.
    """

    def __init__(self, database: DatabaseThread) -> None:
        self._database = database
        self._turn = asyncio.Lock()
        self._wanted = Named()
        self._next: asyncio.Future[Here] | None = None

    async def look_up(self, named: Named) -> Here:
        """What is here of ``named`` (and maybe of what others named), read after this was called.

        Raises:
            DatabaseUnavailable: see ``DatabaseThread.call``.
        """
        if named == Named():
            return Here()
        self._wanted |= named
        if self._next is None:
            self._next = asyncio.ensure_future(self._look_up_wanted())
            self._next.add_done_callback(_note_error)
        return await asyncio.shield(self._next)

    async def _look_up_wanted(self) -> Here:
        async with self._turn:
            wanted, self._wanted, self._next = self._wanted, Named(), None
            rows = await self._database.rows(
                load("siorg_job.fetch", "fetch.sql")["here"],
                parents=sorted(wanted.parents),
                organizations=sorted(wanted.organizations),
                categories=sorted(wanted.categories),
            )
        parents = [row for row in rows if row["kind"] == "PARENT"]
        return Here(
            {row["code"]: LocalParent(row["organization_code"], frozenset(row["line"]), row["touched"]) for row in parents},
            frozenset(row["code"] for row in rows if row["kind"] == "ORGANIZATION"),
            frozenset(row["code"] for row in rows if row["kind"] == "CATEGORY"),
        )


def _note_error(look_up: asyncio.Future[Here]) -> None:
    if not look_up.cancelled():
        look_up.exception()  # seen: whoever waited has it; nobody may be waiting any more
