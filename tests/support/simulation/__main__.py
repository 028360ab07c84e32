"""``make soak-operator``: many worlds around the real operator, each by its seed, in simulated time."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from support.simulation.broken import all_found
from support.simulation.world import Outcome, run


def _quietly(seed: int, hours: float) -> Outcome:
    logging.disable(logging.WARNING)
    return run(seed, hours)


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak-operator", description=__doc__)
    parser.add_argument("--seeds", default="1-500", metavar="FIRST-LAST", help="or one seed (default 1-500)")
    parser.add_argument("--hours", type=float, default=5.0, help="simulated, of each world (default 5; the last one is calm)")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 2))
    parser.add_argument("--story", action="store_true", help="tell what happens in each world, line by line")
    parser.add_argument(
        "--broken", nargs="?", const="", metavar="WORDS", help="break the operator on purpose, one way after the other"
    )
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if arguments.broken is not None:
        return _broken(arguments.broken, arguments.workers)
    if arguments.story:
        logging.disable(logging.WARNING)
        told = [run(seed, arguments.hours, tell=print) for seed in seeds]
        print(*told, sep="\n")  # noqa: T201 - a program for people
        return 1 if any(outcome.violations for outcome in told) else 0
    return _all(seeds, arguments.hours, arguments.workers)


def _broken(words: str, workers: int) -> int:
    missed = 0
    for is_found, line in all_found(words, workers):
        print(line, flush=True)  # noqa: T201
        missed += not is_found
    return 1 if missed else 0


def _all(seeds: range, hours: float, workers: int) -> int:
    began, failed, jobs, items = time.monotonic(), 0, 0, 0
    with ProcessPoolExecutor(workers) as pool:
        for number, outcome in enumerate(pool.map(partial(_quietly, hours=hours), seeds), 1):
            jobs, items, failed = jobs + outcome.jobs, items + outcome.done, failed + bool(outcome.violations)
            print(f"{number}/{len(seeds)}  {outcome}", flush=True)  # noqa: T201
    seconds = time.monotonic() - began
    worlds = f"{len(seeds)} worlds of {hours:g} h, {jobs} Jobs, {items} items, in {seconds:.0f} s with {workers} processes"
    print(f"{worlds}: {failed} with violations")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
