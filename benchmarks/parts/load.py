"""The whole government: loaded for the first time, and asked about when nothing has changed."""

from __future__ import annotations

from collections import defaultdict
from statistics import median as middle

from parts.figure import Figure, median
from parts.server import Counts
from parts.surroundings import AT_ONCE, NO_RATE_LIMIT, Bench, Done
from siorg_queue import QueueStore, connect

_SETTINGS: dict[str, dict[str, str]] = {"defaults": {}, "batch 200, concurrency 256": AT_ONCE}
_PROCESSES = (1, 4)
_LATENCY_MS = 50


def first_load(bench: Bench) -> list[Figure]:
    """All units of all organizations are new, at 50 ms and no rate limit: default settings and others, 1 process and 4."""
    whole, rounds = bench.government, defaultdict[tuple[str, int], list[tuple[Done, Counts]]](list)
    start = whole.discovered
    with whole.siorg(_LATENCY_MS) as siorg:
        for _ in range(bench.sizes.rounds):
            for name, settings in _SETTINGS.items():
                for processes in _PROCESSES:
                    with bench.server.database(start) as url:
                        before = bench.server.counts(url)
                        done = bench.job(url, siorg.url, "run", processes=processes, settings=NO_RATE_LIMIT | settings)
                        rounds[name, processes].append((done, bench.server.counts(url) - before))
                        _nothing_is_left(url)
    figures = [figure for (name, processes), took in rounds.items() for figure in _figures(f"{name}, {processes}", took)]
    rates = {key: middle(done.items / done.seconds for done, _ in took) for key, took in rounds.items()}
    cpu = {key: middle(_cpu(done, counts) for done, counts in took) for key, took in rounds.items()}
    for processes in _PROCESSES:
        best = max(rate for (_, running), rate in rates.items() if running == processes)
        figures.append(
            Figure(f"defaults to the best, {processes}", rates["defaults", processes] / best, "of the rate", least=0.8)
        )
    figures.append(
        Figure("CPU an item, 4 processes to 1", cpu["defaults", _PROCESSES[-1]] / cpu["defaults", 1], "of the CPU", most=1.15)
    )
    return figures


def _nothing_is_left(url: str) -> None:
    with connect(url, application_name="bench") as connection:
        counts = QueueStore(connection).counts()
    if counts.waiting or counts.processing or counts.failed:
        raise SystemExit(f"the load is not whole: {counts}")


def _figures(name: str, took: list[tuple[Done, Counts]]) -> list[Figure]:
    figures = [
        median(name, [done.items / done.seconds for done, _ in took], "items/s"),
        median(name, [1e3 * done.cpu / done.items for done, _ in took], "ms of the job's CPU an item"),
        median(name, [1e3 * (counts.cpu or 0.0) / done.items for done, counts in took], "ms of PostgreSQL's CPU an item"),
        median(name, [1e3 * _cpu(done, counts) / done.items for done, counts in took], "ms of CPU an item, both", most=0.5),
        median(name, [counts.transactions for _, counts in took], "transactions"),
        median(name, [done.requests for done, _ in took], "requests"),
        median(name, [done.peak_mib for done, _ in took], "MiB at most in one process", most=120),
    ]
    if all(counts.statements is not None for _, counts in took):
        figures.append(median(name, [counts.statements or 0 for _, counts in took], "statements"))
    return figures


def _cpu(done: Done, counts: Counts) -> float:
    return done.cpu + (counts.cpu or 0.0)


def nothing_changed(bench: Bench) -> list[Figure]:
    """A discovery of all organizations in which nothing has changed, at 50 ms and no rate limit."""
    whole, took = bench.government, list[tuple[Done, Counts]]()
    start = whole.loaded
    with whole.siorg(_LATENCY_MS) as siorg:
        for _ in range(bench.sizes.rounds):
            with bench.server.database(start) as url:
                before = bench.server.counts(url)
                done = bench.job(url, siorg.url, "discover", settings=NO_RATE_LIMIT)
                took.append((done, bench.server.counts(url) - before))
                _nothing_is_left(url)
    figures = [
        median("duration", [done.seconds for done, _ in took], "s", most=15),
        median("the job's CPU", [1e6 * done.cpu / whole.units for done, _ in took], "µs a unit"),
        median("PostgreSQL's CPU", [1e6 * (counts.cpu or 0.0) / whole.units for _, counts in took], "µs a unit"),
        median("both", [1e6 * _cpu(done, counts) / whole.units for done, counts in took], "µs a unit", most=150),
        median("transactions", [counts.transactions for _, counts in took], ""),
        median("peak", [done.peak_mib for done, _ in took], "MiB"),
    ]
    if all(counts.statements is not None for _, counts in took):
        figures.append(median("statements", [counts.statements or 0 for _, counts in took], ""))
    return figures


def verification(bench: Bench) -> list[Figure]:
    """`siorg-job verify --stored` of all organizations at 50 ms, one unit of 248 missing in SIORG: every row is compared."""
    whole = bench.government
    with bench.server.database(whole.loaded) as url:
        with connect(url, application_name="bench") as connection:
            connection.execute("UPDATE organizational_units SET siorg_code = siorg_code + 10000000 WHERE siorg_code % 248 = 0")
            connection.execute("VACUUM ANALYZE")
        with whole.siorg(_LATENCY_MS) as siorg:
            done = bench.job(url, siorg.url, "verify", "--stored")
        with connect(url, application_name="bench") as connection:
            (stored,) = connection.execute("SELECT * FROM siorg_verifications").fetchall()
    return [
        Figure("rows", stored["compared"], "rows"),
        Figure("drift", stored["drift"], "fields"),
        Figure("duration", done.seconds, "s", most=300),
        Figure("CPU", done.cpu, "s"),
        Figure("peak", done.peak_mib, "MiB", most=200),
    ]
