from collections import Counter

from siorg_job.drain.in_flight import Batch
from siorg_queue import Status


def test_the_batch_line_is_the_first_workers() -> None:
    batch = Batch(0.0, 0, Counter({Status.COMPLETED: 8, Status.FAILED: 1, Status.CONFLICT: 1}))
    assert batch.line() == "Batch complete: 10 processed, 8 succeeded, 1 failed, 1 conflicts, 0 skipped"
