"""Many units, each asked for by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import NotFound, PermanentError, SiorgError
from siorg_job.siorg.model import Answer, RemoteUnit


async def each_unit(codes: Iterable[int], siorg: SiorgClient, *, at_once: int = 8) -> dict[int, Answer]:
    """What SIORG says of each of these units.

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
    for start in range(0, len(wanted), at_once):
        some = wanted[start : start + at_once]
        for code, answer in zip(some, await asyncio.gather(*map(ask, some)), strict=True):
            if isinstance(answer, SiorgError) and not isinstance(answer, PermanentError):
                raise answer
            found[code] = None if isinstance(answer, NotFound) else answer
    return found
