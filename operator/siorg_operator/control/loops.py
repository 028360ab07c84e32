"""Who attends to which resource: one attendant each, begun when the resource is first seen, ended when it goes.

Not kopf's daemons: those put a finalizer on every resource, and with it nothing can be deleted while no operator runs.
There is nothing to finalize: owner references remove what a resource owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from siorg_operator.control.loop import Attendant
from siorg_runtime.logs import logger

_BEGIN_AGAIN_SECONDS = 1.0
_PASS_ENDS_SECONDS = 5.0  # a pass that is under way may come to its end for so long; then it is cancelled

log = logger(__name__)


class Attended(Protocol):
    """What an attendant looks at; is shown each new state of the resource."""

    def show(self, body: Mapping[str, Any]) -> None:
        """The resource's object as it is now."""
        ...

    def close(self) -> None:
        """Nobody looks any more."""
        ...


class Attendants:
    """All attendants of this process."""

    def __init__(self, attend: Callable[[Any], Attendant], gone: Callable[[str, str, str], None]) -> None:
        """Begin with none.

        Args:
            attend: makes the attendant for a world.
            gone: is told the uid, namespace and name of a resource that nobody attends to any more.
        """
        self._attend = attend
        self._gone = gone
        self._all: dict[str, tuple[Attendant, Attended, asyncio.Task[None], asyncio.Event]] = {}
        self._names: dict[str, tuple[str, str]] = {}
        self._may_begin = asyncio.Event()

    def begin(self) -> None:
        """Attend from now on: what there is has been seen. Before, a resource would seem to have no Jobs."""
        self._may_begin.set()

    def get(self, uid: str) -> Attendant | None:
        """Who attends to a resource; None: nobody."""
        found = self._all.get(uid)
        return None if found is None else found[0]

    def see(self, uid: str, body: Mapping[str, Any], make_world: Callable[[], Attended]) -> None:
        """A resource is there, or has changed."""
        found = self._all.get(uid)
        if found is not None:
            attendant, world, _, _ = found
            world.show(body)
            attendant.changed()
            return
        world = make_world()
        world.show(body)
        attendant, stop = self._attend(world), asyncio.Event()
        self._names[uid] = (body["metadata"].get("namespace") or "", body["metadata"]["name"])
        name = "/".join(self._names[uid])
        self._all[uid] = (attendant, world, asyncio.create_task(self._begin(attendant, stop, name)), stop)

    async def _begin(self, attendant: Attendant, stop: asyncio.Event, name: str) -> None:
        await self._may_begin.wait()
        await _attend(attendant, stop, name)

    def uids(self) -> set[str]:
        """Of the resources that are attended to."""
        return set(self._all)

    def wake(self) -> None:
        """Let everyone look again."""
        for attendant, *_ in self._all.values():
            attendant.wake()

    async def leave(self, uid: str) -> None:
        """A resource is gone, or on its way: nothing more is done for it."""
        found = self._all.pop(uid, None)
        if found is None:
            return
        await _end(*found)
        self._gone(uid, *self._names.pop(uid))

    async def close(self) -> None:
        """Leave all, because the process ends. Their Jobs go on."""
        everyone = list(self._all.values())
        for *_, stop in everyone:
            stop.set()  # first: who waits to begin would begin
        self._may_begin.set()
        self._all.clear()
        await asyncio.gather(*(_end(*one) for one in everyone))


async def _attend(attendant: Attendant, stop: asyncio.Event, name: str) -> None:
    """Attend, whatever happens: a bug of ours must not leave a resource alone."""
    while not stop.is_set():
        try:
            await attendant.attend(stop.is_set)
        except Exception as error:
            log.error("An attendant failed and begins again", exc_info=error, worker=name)
            await asyncio.sleep(_BEGIN_AGAIN_SECONDS)


async def _end(attendant: Attendant, world: Attended, task: asyncio.Task[None], stop: asyncio.Event) -> None:
    stop.set()
    attendant.hurry()
    try:
        async with asyncio.timeout(_PASS_ENDS_SECONDS):
            await task
    except TimeoutError:
        pass
    finally:
        world.close()
