from siorg_job.drain.in_flight import Batch


def test_the_batch_line_is_the_first_workers() -> None:
    batch = Batch(started=0.0, left=0, succeeded=8, failed=1, conflicts=1)
    assert batch.line() == "Batch complete: 10 processed, 8 succeeded, 1 failed, 1 conflicts, 0 skipped"
