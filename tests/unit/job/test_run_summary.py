import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

from siorg_job.run_summary import LONGEST_SUMMARY, RunSummary, write_termination_log
from siorg_runtime.buckets import ITEM_SECONDS


def test_the_summary_has_every_counter_and_how_the_run_ended() -> None:
    run = RunSummary(claimed=12, completed=30, failed=10, retried=1000, siorg_seconds=1.23456)
    run.started_monotonic -= 10
    summary = json.loads(run.line("stopped", 75))
    expected = {
        "reason": "stopped", "exit_code": 75, "claimed": 12, "completed": 30, "retried": 1000, "siorg_seconds": 1.235,
        "released": 0, "stale": 0, "requests": 0, "request_retries": 0,
    }  # fmt: skip
    assert {name: summary[name] for name in expected} == expected
    assert {one.name for one in fields(RunSummary)} - {"started_monotonic"} <= summary.keys()
    assert {"version", "duration_seconds", "finished_at"} <= summary.keys()
    assert 3.5 < summary["items_per_second"] <= 4.0  # what came to an end


def test_the_summary_is_one_line_and_fits_a_termination_message_however_much_was_done() -> None:
    run = RunSummary()
    for one in fields(RunSummary):
        if one.type == "int":
            setattr(run, one.name, 10**30)
    for bound in (*ITEM_SECONDS, 1000.0):
        run.item_seconds_le[bound] = 10**30
    line = run.line("siorg_rate_limited", 75)
    assert "\n" not in line
    assert len(line.encode()) <= LONGEST_SUMMARY


def test_the_termination_log_is_written_anew_where_it_exists_and_is_never_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "termination-log"
    path.write_text("something longer that stood here before")
    write_termination_log(path, '{"a":1}')
    assert path.read_text() == '{"a":1}'
    write_termination_log(tmp_path / "absent", "x")
    write_termination_log(tmp_path / "no" / "folder", "x")
    assert list(tmp_path.iterdir()) == [path]
    write_termination_log(Path(os.devnull), "x")
    assert caplog.text == ""
    write_termination_log(tmp_path, "x")  # a failure is no failure of the run
    assert "termination message could not be written" in caplog.text
