"""Many units, each asked for by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import InvalidData, NotFound, SiorgError
from siorg_job.siorg.model import RemoteUnit

_AT_A_TIME = 8


async def each_unit(codes: Iterable[int], siorg: SiorgClient) -> dict[int, RemoteUnit | InvalidData | None]:
    """What SIORG says of each of these units: its row, why that cannot be used, or None where it has no such unit.

    Raises:
        SiorgError: one of them could not be asked for.
    """

    async def ask(code: int) -> RemoteUnit | SiorgError:
        try:
            return await siorg.unit(code)
        except SiorgError as error:
            return error

    found: dict[int, RemoteUnit | InvalidData | None] = {}
    wanted = sorted(codes)
    for start in range(0, len(wanted), _AT_A_TIME):
        some = wanted[start : start + _AT_A_TIME]
        for code, answer in zip(some, await asyncio.gather(*map(ask, some)), strict=True):
            if isinstance(answer, SiorgError) and not isinstance(answer, NotFound | InvalidData):
                raise answer
            found[code] = None if isinstance(answer, NotFound) else answer
    return found
