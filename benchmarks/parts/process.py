"""A job process: what it costs to start one, and how much memory it takes."""

from __future__ import annotations

import resource
import subprocess
import sys

from parts.figure import Figure, median, ratios
from parts.surroundings import Bench
from siorg_queue import connect
from support.siorg_server import SiorgServer

_STARTS = 7


def empty_queue(bench: Bench) -> list[Figure]:
    """`siorg-job run` with nothing to do, against importing psycopg and httpx2."""
    with bench.server.database() as url:
        env = bench.environment(url)
        imports, runs = list[float](), list[float]()
        for _ in range(_STARTS):
            imports.append(_cpu([sys.executable, "-c", "import psycopg, httpx2"], env))
            runs.append(_cpu([sys.executable, "-m", "siorg_job", "run"], env))
    ratio = ratios("ratio", runs, imports)
    return [
        median("bare imports", imports, "s CPU"),
        median("run, empty queue", runs, "s CPU"),
        Figure(ratio.name, ratio.value, ratio.unit, most=1.25, rounds=ratio.rounds),
    ]


def _cpu(command: list[str], env: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def memory(bench: Bench) -> list[Figure]:
    """The largest organization there is, and 20,000 items in one process."""
    with SiorgServer("--synthetic", "6600") as siorg:
        with bench.server.database() as url:
            bench.job(url, siorg.url, "discover")
            first = bench.job(url, siorg.url, "run")
        with bench.server.database() as url:
            bench.job(url, siorg.url, "discover")
            with connect(url, application_name="bench") as connection:
                for _ in range(2):  # the same units again and again, as an API server's inserts: nothing deduplicates those
                    connection.execute(
                        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
                        " SELECT 'UNIT', siorg_code, 'UPDATE', payload FROM siorg_sync_queue WHERE operation = 'CREATION'"
                    )
            third = bench.job(url, siorg.url, "run")
    return [
        Figure("peak, 6,600 units", first.peak_mib, "MiB", most=200),
        Figure("speed, 6,600 units", first.items / first.seconds, "items/s"),
        Figure("items of the long run", third.items, "items"),
        Figure("peak, the long run", third.peak_mib, "MiB", most=200),
        Figure("growth", third.peak_mib - first.peak_mib, "MiB", most=20),
    ]
