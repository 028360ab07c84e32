"""Items for which there is nothing to do, and new units, beside other queues in the same run on the same server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from parts.contenders import CONTENDERS, INSTALL, missing
from parts.figure import Figure, median, ratios
from parts.server import Counts
from parts.surroundings import Bench
from siorg_queue import connect

BATCHES = (10, 100, 500)
_BENCHMARKS = str(Path(__file__).parents[1])
_TIMES_PGQUEUER = 1.2


class _Rounds:
    """What the rounds of one contender at one batch gave."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.client_cpu: list[float] = []
        self.server_cpu: list[float] = []
        self.transactions: list[float] = []
        self.statements: list[float] = []

    def add(self, items: int, taken: dict[str, float], counts: Counts) -> None:
        self.rates.append(items / taken["seconds"])
        per_thousand = 1000 / items
        self.client_cpu.append(taken["cpu"] * 1000 * per_thousand)
        self.transactions.append(counts.transactions * per_thousand)
        if counts.cpu is not None:
            self.server_cpu.append(counts.cpu * 1000 * per_thousand)
        if counts.statements is not None:
            self.statements.append(counts.statements * per_thousand)


def beside_others(bench: Bench) -> list[Figure]:
    """Claim and finish, and claim and apply, at batches of 10, 100 and 500, beside pgqueuer and procrastinate."""
    here = {name: contender for name, contender in CONTENDERS.items() if not missing(contender)}
    for name in CONTENDERS.keys() - here.keys():
        print(f"  {name} is left out, for it is not installed: {INSTALL}", flush=True)
    found: dict[tuple[str, int], _Rounds] = defaultdict(_Rounds)
    for number in range(bench.sizes.rounds):
        for batch in BATCHES:
            for name in list(here)[:: 1 if number % 2 == 0 else -1]:  # who comes after whom is not always the same
                _drain(bench, name, batch, found[name, batch])
    figures = [figure for batch in BATCHES for name in here for figure in _figures(here[name].name, batch, found[name, batch])]
    for batch in BATCHES:
        for name in ("finish", "no-change"):
            if "pgqueuer" in here:
                ours, others = found[name, batch].rates, found["pgqueuer", batch].rates
                title = f"{here[name].name} to pgqueuer, batches of {batch}"
                figures.append(ratios(title, ours, others, least=_TIMES_PGQUEUER if name == "no-change" else None))
    return figures


def _drain(bench: Bench, name: str, batch: int, rounds: _Rounds) -> None:
    contender = CONTENDERS[name]
    items = max(bench.sizes.items // contender.part, batch)
    with bench.server.database() if contender.is_ours else bench.server.bare() as url:
        contender.prepare(url, items)
        with connect(url, application_name="bench") as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        path = os.pathsep.join(filter(None, [_BENCHMARKS, os.environ.get("PYTHONPATH")]))
        before = bench.server.counts(url)
        command = [sys.executable, "-m", "parts.contenders", name, url, str(batch)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True, stdout=subprocess.PIPE, text=True)
        rounds.add(items, json.loads(done.stdout.splitlines()[-1]), bench.server.counts(url) - before)


def _figures(name: str, batch: int, rounds: _Rounds) -> list[Figure]:
    told = (
        (rounds.rates, "items/s"),
        (rounds.client_cpu, "ms of the client's CPU for 1,000"),
        (rounds.server_cpu, "ms of PostgreSQL's CPU for 1,000"),
        (rounds.statements, "statements for 1,000"),
        (rounds.transactions, "transactions for 1,000"),
    )
    return [median(f"{name}, {batch}", values, unit) for values, unit in told if values]
