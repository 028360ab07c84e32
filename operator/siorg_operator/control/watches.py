"""kopf's watches, begun anew whenever they fail: nothing that the API server answers ends the process.

kopf ends for whatever it does not expect of a list or a watch: an ERROR event other than 410 Gone, a status that it knows no
remedy for, an answer that is no JSON. Begun anew it logs in with the token of that time and lists everything; what went meanwhile
the resync finds. The control loops do not notice: they go on with what was seen last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import suppress
from typing import Any, cast

import kopf

from siorg_operator.cluster.pace import Pace
from siorg_operator.control import handlers
from siorg_operator.serving.health import EVERYTHING, Health
from siorg_operator.settings import OperatorSettings
from siorg_runtime.logs import logger
from siorg_runtime.redaction import redactor

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_CALM_SECONDS = 60.0

log = logger(__name__)


class _EveryTask(Collection[Any]):
    """In kopf's eyes every task of the event loop that is not gone by its end hangs, and is cancelled. The others are ours."""

    def __contains__(self, _task: object) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0


async def watch(
    registry: kopf.OperatorRegistry,
    settings: OperatorSettings,
    health: Health,
    stopped: asyncio.Event,
    *,
    ready: Callable[[], Coroutine[Any, Any, bool]],
    listen: Callable[[], None],
) -> None:
    """Watch until ``stopped``.

    Args:
        registry: what kopf calls.
        settings: namespace and identity.
        health: hears of watches that fail again and again.
        stopped: is set when the process ends.
        ready: waits until everything that is watched can be listed; False: the process ends.
        listen: hears signals again: kopf takes them.
    """
    pace = Pace(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _CALM_SECONDS)
    while await _unless(stopped, ready()) and not await _is_set(stopped, pace.pause()):
        calm = asyncio.get_running_loop().call_later(_CALM_SECONDS, health.answered, EVERYTHING)
        try:
            tasks = await kopf.spawn_tasks(
                registry=registry,
                settings=handlers.settings(),
                namespaces=[settings.namespace],
                standalone=True,
                # Only for peering, but kopf would ask who runs it, and a container's user has no name.
                identity=cast("Any", settings.identity),
                stop_flag=stopped,
            )
            listen()
            await kopf.run_tasks(tasks, ignored=_EveryTask())
        except Exception as error:  # noqa: BLE001 - whatever it is: without watches this process would see nothing more
            log.warning("Watches failed; they are begun anew", reason=redactor.text(f"{type(error).__name__}: {error}"))
            health.asked(EVERYTHING)
        finally:
            calm.cancel()


async def _unless(stopped: asyncio.Event, ready: Coroutine[Any, Any, bool]) -> bool:
    """What ``ready`` says, or False as soon as ``stopped``: it may be waiting for an answer that never comes."""
    asking, stopping = asyncio.create_task(ready), asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return not stopped.is_set() and asking.result()
    finally:
        asking.cancel()
        stopping.cancel()


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
