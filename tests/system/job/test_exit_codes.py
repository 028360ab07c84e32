"""Exit codes 0, 1, 2 and 75, and what a person is told with them."""

from __future__ import annotations

import pytest

from siorg_job.__main__ import main
from support.job import job_environment, run_job

DATABASE = "postgresql://u:p@127.0.0.1:9/d"


pytestmark = pytest.mark.usefixtures("handlers")


def test_all_wrong_settings_are_told_at_once_by_the_real_process() -> None:
    env = job_environment("mysql://h/d", WORKER_BATCH_SIZE="0", LOG_LEVEL="loud", SIORG_TIMEOUT="3")
    done = run_job("run", env=env, code=2)
    assert done.stdout == ""
    told = {line.partition(":")[0] for line in done.stderr.strip().splitlines()}
    assert told == {"DATABASE_URL", "WORKER_BATCH_SIZE", "LOG_LEVEL", "SIORG_TIMEOUT"}


USAGE = [
    "", "fly", "run --twice", "enqueue", "enqueue 0", "enqueue 2147483648", "enqueue x", "enqueue 1 --priority 11",
    "cleanup --retention-days 0", "discover --organization x", "discover --organization -1", "retry no-uuid", "retry --limit 0",
    "conflicts --limit -1", "conflicts resolve", "verify --stored --organization 471",
]  # fmt: skip


@pytest.mark.parametrize("words", USAGE)
def test_wrong_usage_is_2(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words.split(), {"DATABASE_URL": DATABASE})
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "usage: siorg-job" in printed.err


@pytest.mark.parametrize("command", ["run", "status", "discover", "verify", "verify --stored", "cleanup", "held", "retry"])
def test_missing_tables_are_1_and_name_the_command_that_makes_them(
    empty_database_url: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split(), {"DATABASE_URL": empty_database_url}) == 1
    told = capsys.readouterr().err
    assert "siorg-job migrate" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("command", ["run", "status", "cleanup", "conflicts", "held", "retry", "migrate"])
def test_a_database_that_is_away_is_75(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command], {"DATABASE_URL": DATABASE, "WORKER_UNAVAILABLE_SECS": "0"}) == 75
    told = capsys.readouterr().err
    assert "database is unavailable" in told
    assert "Traceback" not in told
