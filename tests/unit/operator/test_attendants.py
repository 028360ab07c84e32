"""Each resource has one attendant, from when everything has been seen until it goes or the process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from siorg_operator.control.loop import Attendant
from siorg_operator.control.loops import Attendants

BODY = {"metadata": {"namespace": "sync", "name": "siorg", "uid": "1", "generation": 1}}


class Attending:
    """Stands for an attendant: remembers what it was asked."""

    def __init__(self) -> None:
        self.passes = 0
        self.ended = False
        self._woken = asyncio.Event()

    async def attend(self, stopped: Callable[[], bool]) -> None:
        while not stopped():
            self._woken.clear()
            self.passes += 1
            await self._woken.wait()
        self.ended = True

    def wake(self) -> None:
        self._woken.set()

    hurry = wake

    def changed(self, *_: object) -> None:
        self.wake()


class World:
    """Stands for what an attendant looks at."""

    def __init__(self) -> None:
        self.closed = False

    def show(self, body: Mapping[str, Any]) -> None:
        """A state of the resource."""

    def close(self) -> None:
        self.closed = True


class Scene:
    """One resource that is seen."""

    def __init__(self) -> None:
        self.attending, self.world = Attending(), World()
        self.gone: list[tuple[str, str, str]] = []
        self.attendants = Attendants(lambda _: cast("Attendant", self.attending), lambda *names: self.gone.append(names))
        self.attendants.see("1", BODY, lambda: self.world)


async def a_moment() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_nobody_attends_before_everything_was_seen() -> None:
    async def main() -> None:
        scene = Scene()
        await a_moment()
        assert scene.attending.passes == 0
        scene.attendants.begin()
        await a_moment()
        assert scene.attending.passes == 1
        await scene.attendants.close()

    asyncio.run(main())


def test_who_never_began_does_not_begin_at_the_end() -> None:
    async def main() -> None:
        scene = Scene()
        await a_moment()
        await scene.attendants.close()
        assert scene.attending.passes == 0
        assert scene.world.closed

    asyncio.run(main())


def test_a_resource_that_goes_is_left_and_told_of() -> None:
    async def main() -> None:
        scene = Scene()
        scene.attendants.begin()
        await a_moment()
        assert scene.attendants.uids() == {"1"}
        await scene.attendants.leave("1")
        await scene.attendants.leave("1")
        assert scene.attending.ended
        assert scene.world.closed
        assert scene.gone == [("1", "sync", "siorg")]
        assert scene.attendants.uids() == set()
        assert scene.attendants.get("1") is None

    asyncio.run(main())
