"""Queues that are drained of items for which there is nothing to do: ours in three ways, and those beside it.

`python -m parts.contenders NAME URL BATCH` drains one, alone in its process, and prints what that took as JSON. The others are
used as their documentation shows, with their own defaults but for how much is taken at once.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Protocol

from parts.structures import ROOT, flat
from siorg_job.siorg.model import RemoteUnit
from siorg_job.siorg.rows import read_structure
from siorg_job.sync.apply import apply
from siorg_job.sync.model import Fetched
from siorg_queue import (
    Connection,
    EntityType,
    Item,
    NewItem,
    Operation,
    Outcome,
    QueueStore,
    Verdict,
    clock,
    connect,
    transaction,
)

INSTALL = ".venv/bin/python -m pip install --constraint constraints.txt --editable '.[bench]'"
"""What brings the others, and matplotlib."""

_FIRST_CODE = 100_000
_LEASE = timedelta(seconds=60)


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Seconds, and seconds of this process's CPU, of what is done within; filled in at its end."""
    taken: dict[str, float] = {}
    started, cpu = time.monotonic(), _cpu()
    yield taken
    taken |= {"seconds": time.monotonic() - started, "cpu": _cpu() - cpu}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Contender(Protocol):
    """One queue."""

    name: str
    needs: Sequence[str]
    """Modules that may be missing."""
    part: int
    """Of so many items one: who takes them one by one is measured on fewer."""
    is_ours: bool

    def prepare(self, url: str, items: int) -> None:
        """Put items on the queue; of another's also make its tables."""

    def drain(self, url: str, batch: int) -> dict[str, float]:
        """Until it is empty: what that took, connecting left out."""


class Ours:
    """Our queue, in this process on one connection."""

    needs: Sequence[str] = ()
    part = 1
    is_ours = True
    name: str

    def prepare(self, url: str, items: int) -> None:
        with connect(url, application_name="bench") as connection:
            codes = range(_FIRST_CODE, _FIRST_CODE + items)
            QueueStore(connection).enqueue([NewItem(EntityType.UNIT, code, Operation.UPDATE) for code in codes])

    def drain(self, url: str, batch: int) -> dict[str, float]:
        with connect(url, application_name="bench", plans_once=True) as connection:
            store = QueueStore(connection)
            with stopwatch() as taken:
                while items := store.claim(batch, lease=_LEASE, worker="bench").items:
                    self.end(connection, store, items)
        return taken

    def end(self, connection: Connection, store: QueueStore, items: Sequence[Item]) -> None:
        """What follows a claim."""
        raise NotImplementedError


class Finish(Ours):
    """Claimed and finished: the least that a queue does."""

    name = "claim + finish"

    def end(self, connection: Connection, store: QueueStore, items: Sequence[Item]) -> None:
        del connection
        store.finish([Verdict(item, Outcome.COMPLETED) for item in items])


class NoChange(Ours):
    """As the drain ends items that change nothing: fence, finish and end older conflicts, in one transaction."""

    name = "claim + fence, finish, older conflicts"

    def end(self, connection: Connection, store: QueueStore, items: Sequence[Item]) -> None:
        asked_at = items[0].needed_at
        with transaction(connection, by_index=True):
            ours = store.fence(items, lock_seconds=2.0)
            verdicts = [Verdict(item, Outcome.COMPLETED) for item in items if item.id in ours]
            store.finish_all(verdicts, lambda: store.end_older_conflicts([(verdict, asked_at) for verdict in verdicts]))


class Apply(Ours):
    """As the drain applies units that are new: rows, mapping, history and queue row; what SIORG says was read before."""

    name = "claim + apply (new units)"

    def prepare(self, url: str, items: int) -> None:
        super().prepare(url, items)
        with connect(url, application_name="bench") as connection:
            store = QueueStore(connection)
            store.enqueue([NewItem(EntityType.UNIT, ROOT, Operation.UPDATE, priority=1)])
            root = store.claim(1, lease=_LEASE, worker="bench").items
            self._units = _units(0)
            self.end(connection, store, root)

    def drain(self, url: str, batch: int) -> dict[str, float]:
        with connect(url, application_name="bench", plans_once=True) as connection:
            row = connection.execute("SELECT count(*) AS items FROM siorg_sync_queue WHERE processed_at IS NULL").fetchone()
        self._units = _units(0 if row is None else int(row["items"]))
        return super().drain(url, batch)

    def end(self, connection: Connection, store: QueueStore, items: Sequence[Item]) -> None:
        asked_at = clock(connection)
        applied = apply(connection, store, [(item, Fetched(asked_at, self._units[item.siorg_code])) for item in items])
        assert all(verdict.outcome is Outcome.COMPLETED for verdict in applied.verdicts.values()), applied
        assert len(applied.verdicts) == len(items), applied


def _units(count: int) -> dict[int, RemoteUnit]:
    body = json.dumps({"servico": {"codigoErro": 0, "mensagem": ""}, "unidades": list(flat(count))})
    return dict(read_structure(bytearray(body.encode()), ROOT).units)


class Pgqueuer:
    """pgqueuer with asyncpg, one connection."""

    name = "pgqueuer (asyncpg)"
    needs: Sequence[str] = ("pgqueuer", "asyncpg")
    part = 1
    is_ours = False

    def prepare(self, url: str, items: int) -> None:
        import asyncpg
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.queries import Queries

        async def prepare() -> None:
            connection = await asyncpg.connect(url)
            queries = Queries(AsyncpgDriver(connection))
            await queries.install()
            await queries.enqueue(["nothing"] * items, [None] * items, [0] * items)
            await connection.close()

        asyncio.run(prepare())

    def drain(self, url: str, batch: int) -> dict[str, float]:
        import asyncpg
        from pgqueuer import PgQueuer
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.types import QueueExecutionMode

        async def nothing(job: Any) -> None:
            del job

        async def drain() -> dict[str, float]:
            connection = await asyncpg.connect(url)
            queue = PgQueuer(AsyncpgDriver(connection))
            queue.entrypoint("nothing")(nothing)
            with stopwatch() as taken:
                await queue.qm.run(batch_size=batch, mode=QueueExecutionMode.drain)
            return taken

        return asyncio.run(drain())


class Procrastinate:
    """procrastinate with psycopg: it takes one item a claim, so a batch is how many it has in work at once."""

    name = "procrastinate (psycopg)"
    needs: Sequence[str] = ("procrastinate",)
    part = 10
    is_ours = False

    def _app(self, url: str) -> Any:
        import procrastinate

        return procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    def prepare(self, url: str, items: int) -> None:
        async def prepare() -> None:
            app = self._app(url)
            async with app.open_async():
                await app.schema_manager.apply_schema_async()
                await app.task(name="nothing")(_nothing).batch_defer_async(*[{} for _ in range(items)])

        asyncio.run(prepare())

    def drain(self, url: str, batch: int) -> dict[str, float]:
        async def drain() -> dict[str, float]:
            app = self._app(url)
            app.task(name="nothing")(_nothing)
            async with app.open_async():
                with stopwatch() as taken:
                    await app.run_worker_async(concurrency=batch, wait=False, install_signal_handlers=False)
            return taken

        return asyncio.run(drain())


async def _nothing() -> None:
    """What procrastinate's worker does with an item."""


CONTENDERS: dict[str, Contender] = {
    "finish": Finish(),
    "no-change": NoChange(),
    "apply": Apply(),
    "pgqueuer": Pgqueuer(),
    "procrastinate": Procrastinate(),
}


def missing(contender: Contender) -> list[str]:
    """What it needs and is not installed."""
    return [module for module in contender.needs if find_spec(module) is None]


if __name__ == "__main__":
    name, url, batch = sys.argv[1:]
    print(json.dumps(CONTENDERS[name].drain(url, int(batch))))
