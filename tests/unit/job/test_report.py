import json
import os
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_job.run_summary import LONGEST_SUMMARY, BatchTally, RunReport, one_line, write_termination_log


def test_the_batch_line_is_the_first_workers() -> None:
    tally = BatchTally(succeeded=8, failed=1, conflicts=1)
    assert tally.line() == "Batch complete: 10 processed, 8 succeeded, 1 failed, 1 conflicts, 0 skipped"


def test_the_summary_has_every_counter_and_how_the_run_ended() -> None:
    report = RunReport(claimed=12, completed=7, conflict=1, skipped=1, failed=1, retried=2, siorg_seconds=1.23456)
    summary = report.summary("exhausted", 0)
    assert {name: summary[name] for name in ("reason", "exit_code", "claimed", "completed", "retried")} == {
        "reason": "exhausted",
        "exit_code": 0,
        "claimed": 12,
        "completed": 7,
        "retried": 2,
    }
    assert summary["siorg_seconds"] == 1.235
    assert {one.name for one in fields(RunReport)} - {"started_monotonic"} <= summary.keys()
    assert {"version", "duration_seconds", "items_per_second", "finished_at"} <= summary.keys()


def test_items_a_second_count_what_came_to_an_end() -> None:
    report = RunReport(completed=30, failed=10, retried=1000)
    report.started_monotonic -= 10
    rate = report.summary("stopped", 0)["items_per_second"]
    assert isinstance(rate, float)
    assert 3.5 < rate <= 4.0


@given(reason=st.text(st.characters(codec=None), max_size=5000), counter=st.integers(0, 10**30))
def test_the_summary_is_one_line_and_fits_a_termination_message(reason: str, counter: int) -> None:
    report = RunReport()
    for one in fields(RunReport):
        if one.type == "int":
            setattr(report, one.name, counter)
    line = one_line(report.summary(reason * 3, 75))
    assert "\n" not in line
    assert len(line.encode()) <= LONGEST_SUMMARY
    assert json.loads(line)["exit_code"] == 75


def test_a_short_reason_is_kept_as_it_is() -> None:
    assert RunReport().summary("a razão é esta", 0)["reason"] == "a razão é esta"


def test_the_termination_log_is_written_anew_where_it_exists(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("something longer that stood here before")
    write_termination_log(path, '{"a":1}')
    assert path.read_text() == '{"a":1}'


def test_the_termination_log_is_not_created(tmp_path: Path) -> None:
    write_termination_log(tmp_path / "absent", "x")
    write_termination_log(tmp_path / "no" / "folder", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_termination_log_that_refuses_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_termination_log(tmp_path, "x")
    assert "termination message could not be written" in caplog.text


def test_a_termination_log_that_is_a_device_is_written(caplog: pytest.LogCaptureFixture) -> None:
    write_termination_log(Path(os.devnull), "x")
    assert caplog.text == ""


@pytest.mark.parametrize("field", ["claimed", "released", "stale", "requests", "request_retries"])
def test_counters_start_at_nothing(field: str) -> None:
    assert RunReport().summary("exhausted", 0)[field] == 0
