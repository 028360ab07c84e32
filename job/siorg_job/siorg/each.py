"""Many units, each asked for by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import BreakerOpen, NotFound, PermanentError, SiorgError, TransientError
from siorg_job.siorg.model import Answer, RemoteUnit

_ROUNDS = 3  # of a hundred requests one may fail by chance, and that must not cost the other answers


async def each_unit(codes: Iterable[int], siorg: SiorgClient, *, at_once: int = 8) -> dict[int, Answer]:
    """What SIORG says of each of these units. What fails for the moment is asked for again after the others.

    Args:
        codes: the units.
        siorg: whom to ask.
        at_once: requests at a time, at most; how many a second is the client's business.

    Raises:
        SiorgError: one of them could not be asked for.
    """

    async def ask(code: int) -> RemoteUnit | SiorgError:
        try:
            return await siorg.unit(code)
        except SiorgError as error:
            return error

    found: dict[int, Answer] = {}
    wanted = sorted(codes)
    for last in (*[False] * (_ROUNDS - 1), True):
        again: list[int] = []
        for start in range(0, len(wanted), at_once):
            some = wanted[start : start + at_once]
            for code, answer in zip(some, await asyncio.gather(*map(ask, some)), strict=True):
                if isinstance(answer, TransientError) and not isinstance(answer, BreakerOpen) and not last:
                    again.append(code)
                elif isinstance(answer, SiorgError) and not isinstance(answer, PermanentError):
                    raise answer
                else:
                    found[code] = None if isinstance(answer, NotFound) else answer
        wanted = again
    return {code: found[code] for code in sorted(found)}
