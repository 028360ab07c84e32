"""Units that are asked for one by one, and a whole organization that is asked for at once."""

from __future__ import annotations

from parts import structures
from parts.figure import Figure, median, ratios
from parts.surroundings import NO_RATE_LIMIT, Bench, Done
from siorg_queue import EntityType, NewItem, Operation, QueueStore, connect
from support.siorg_server import SiorgServer

_UNITS = 4_000
_AT_ONCE = {1: 80, 64: 3_000}
"""How many items are measured with so many at once."""


def one_by_one(bench: Bench) -> list[Figure]:
    """Distinct units, each its own request, at 50 ms: 64 at once against one at a time."""
    snapshot = structures.write(bench.folder / "flat.json", structures.flat(_UNITS))
    rounds: dict[int, list[Done]] = {1: [], 64: []}
    with SiorgServer("--snapshot", str(snapshot), "--latency-ms", "50") as siorg:
        for _ in range(bench.sizes.rounds):
            for at_once, items in _AT_ONCE.items():
                with bench.server.database() as url:
                    with connect(url, application_name="bench") as connection:
                        codes = range(100_000, 100_000 + items)
                        QueueStore(connection).enqueue([NewItem(EntityType.UNIT, code, Operation.CREATION) for code in codes])
                    settings = {"WORKER_CONCURRENCY": str(at_once), "WORKER_BATCH_SIZE": str(at_once), **NO_RATE_LIMIT}
                    done = bench.job(url, siorg.url, "run", settings=settings)
                    assert done.items == items, done
                    rounds[at_once].append(done)
    rates = {at_once: [done.items / done.seconds for done in all_done] for at_once, all_done in rounds.items()}
    return [
        median("one at a time", rates[1], "items/s"),
        median("64 at once", rates[64], "items/s"),
        ratios("64 at once to one at a time", rates[64], rates[1], least=40),
        median("the job's CPU, 64 at once", [1000 * done.cpu / done.items for done in rounds[64]], "ms an item", most=1.4),
    ]


def whole_organization(bench: Bench) -> list[Figure]:
    """A whole organization is waiting: how many requests its items cost."""
    with bench.server.database() as url, SiorgServer("--synthetic", "2000", "--latency-ms", "50") as siorg:
        bench.job(url, siorg.url, "discover")
        done = bench.job(url, siorg.url, "run")
    return [
        Figure("items", done.items, "items"),
        Figure("speed", done.items / done.seconds, "items/s"),
        Figure("items a request", done.items / done.requests, "items", least=100),
    ]
