"""Stands for ``siorg-job run`` where what a Job does with an item does not matter: claims and finishes, asks nobody."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from siorg_queue import Outcome, QueueStore, Verdict, connect


def main(_arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    with connect(environ["DATABASE_URL"], application_name="siorg-job quick") as connection:
        store = QueueStore(connection)
        while items := store.claim(5, lease=timedelta(seconds=5), worker=str(os.getpid())).items:
            time.sleep(0.05)
            store.finish([Verdict(item, Outcome.COMPLETED) for item in items])
