"""``siorg-job status``: how much is on the queue."""

from __future__ import annotations

import argparse
import json
from typing import Any

from siorg_job.commands.context import Context, Exit, pause_seconds
from siorg_queue import COUNTED, Counts, QueueStore

_MEANING = {  # the keys of ``status --json``, in this order
    "claimable": "can be taken right now (due, or abandoned by a worker that died)",
    "at_least": f"whether claimable and due may be more: no more than {COUNTED + 1} are counted",
    "due": "waiting, and due",
    "scheduled": f"waiting for a later time (retries); no more than {COUNTED + 1} are counted",
    "processing": "in work",
    "completed": "done",
    "failed": "ended without success: siorg-job retry",
    "conflict": "wait for a person: siorg-job conflicts",
    "held": "ends or overwrites beyond a limit, wait for a person: siorg-job held",
    "skipped": "nothing to do, or ended by a person",
    "estimated": f"whether completed or skipped is an estimate: one is where it is more than {COUNTED}",
    "expired": "past their expiry: cleanup removes them",
    "oldest_due_seconds": "seconds that the oldest due item has been waiting",
}


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser("status", help="how much is on the queue")
    parser.add_argument("--json", action="store_true", help=f"one JSON object with the keys {', '.join(_MEANING)}")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    with context.database() as connection:
        counts = QueueStore(connection).counts()
        pause = pause_seconds(connection)
    values = {key: getattr(counts, key) for key in _MEANING}
    if arguments.json:
        print(json.dumps(values))
        return Exit.DONE
    for key, value in values.items():
        if not isinstance(value, bool):
            print(f"{key:>18}  {_shown(key, value, counts):>14}  {_MEANING[key].partition(';')[0]}")
    for count, text in ((counts.spent, "wait with no attempts left"), (counts.abandoned, "are held by workers that died")):
        if count:
            print(f"{count} items {text}: the next run or cleanup ends them")
    if pause:
        print(f"SIORG asked to be left alone: nothing is fetched for another {pause:.0f} s")
    return Exit.DONE


def _shown(key: str, value: float | None, counts: Counts) -> str:
    if value is None:
        return "-"
    is_least = (key in ("claimable", "due") and counts.at_least) or (key == "scheduled" and value > COUNTED)
    is_estimate = key in ("completed", "skipped") and value > COUNTED
    return f"{'at least ' if is_least else 'about ' if is_estimate else ''}{value:.0f}"
