"""``make soak``: many programs of the convergence machine, each by its seed; a failing one is made small and printed."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TypeAlias

from support.convergence.broken import all_found
from support.convergence.machine import Machine
from support.convergence.programs import STEPS, run_seed, shrunk
from support.postgres import embedded_postgres

Result: TypeAlias = tuple[int, int]
"""Steps done, programs that failed."""


def _run(seeds: range) -> Result:
    logging.disable(logging.WARNING)
    failures = 0
    with embedded_postgres() as postgres, Machine(postgres.database(), postgres.database()) as machine:
        done = 0
        for seed in seeds:
            before = machine.done
            failure = run_seed(machine, seed)
            done += machine.done - before
            if failure is not None:
                failures += 1
                print(shrunk(machine, failure), flush=True)  # noqa: T201 - a program for people
    return done, failures


def _run_broken(words: str, workers: int) -> int:
    missed = 0
    for line in all_found(words, workers):
        print(line, flush=True)  # noqa: T201 - a program for people
        missed += "found after" not in line
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seeds", default="1-400", metavar="FIRST-LAST", help="or one seed (default 1-400)")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 2))
    parser.add_argument(
        "--broken", nargs="?", const="", metavar="WORDS", help="break the product on purpose, one way after the other"
    )
    arguments = parser.parse_args()
    if arguments.broken is not None:
        return _run_broken(arguments.broken, arguments.workers)
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    started = time.monotonic()
    parts = [seeds[number :: arguments.workers] for number in range(arguments.workers)]
    with ProcessPoolExecutor(arguments.workers) as pool:
        results = list(pool.map(_run, parts))
    seconds, steps = time.monotonic() - started, sum(done for done, _ in results)
    failures = sum(failed for _, failed in results)
    speed = f"{steps} steps in {seconds:.0f} s, {steps / seconds:.0f} a second in {arguments.workers} processes"
    failed = f"{failures} of {len(seeds)} programs failed"
    print(f"seeds {seeds.start}–{seeds.stop - 1} of {STEPS} steps: {speed}; {failed}")  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
