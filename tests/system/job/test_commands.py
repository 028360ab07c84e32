"""The commands that people and CronJobs use, run as they run them, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from siorg_job.__main__ import main
from siorg_queue import Connection, connect
from support.queue import insert, rows

Job = Callable[..., int]


@pytest.fixture
def job(database_url: str) -> Job:
    """Run siorg-job with these words."""

    def run(*words: str) -> int:
        return main(words, {"DATABASE_URL": database_url, "SIORG_API_URL": "https://siorg.example.org/doc"})

    return run


def test_status_as_json_has_the_agreed_keys(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    insert(connection, siorg_code=1)
    insert(connection, siorg_code=2, scheduled_for="now() + interval '1 h'")
    insert(connection, siorg_code=3, status="'FAILED'")
    insert(connection, siorg_code=4, expires_at="now()")
    insert(connection, siorg_code=5, status="'CONFLICT'", held_at="now()")
    assert job("status", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert status.pop("oldest_due_seconds") >= 0
    assert list(status.items()) == [
        ("claimable", 1), ("at_least", False), ("due", 1), ("scheduled", 1), ("processing", 0), ("completed", 0), ("failed", 1),
        ("conflict", 0), ("held", 1), ("skipped", 0), ("estimated", False), ("expired", 1),
    ]  # fmt: skip


def test_status_for_people_says_what_to_do(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    insert(connection, siorg_code=1, attempts="3")
    assert job("status") == 0
    printed = capsys.readouterr().out
    assert "siorg-job conflicts" in printed
    assert "1 items wait with no attempts left" in printed


def test_enqueue_adds_once(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    assert job("enqueue", "16466", "16490", "--priority", "1") == 0
    assert job("enqueue", "16466", "--operation", "creation") == 0
    assert capsys.readouterr().out.splitlines() == ["2 added", "0 added, 1 waiting already"]
    assert [(row["siorg_code"], row["priority"], row["entity_type"]) for row in rows(connection)] == [
        (16466, 1, "UNIT"),
        (16490, 1, "UNIT"),
    ]


def test_every_command_explains_itself(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [
        "run",
        "discover",
        "verify",
        "cleanup",
        "status",
        "conflicts",
        "held",
        "retry",
        "enqueue",
        "organizations",
        "migrate",
        "doctor",
    ]
    for words in (["--version"], ["--help"], *([command, "--help"] for command in commands)):
        with pytest.raises(SystemExit) as ended:
            job(*words)
        assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("siorg-job ")
    assert all(command in printed for command in commands)
    assert "75" in printed


def test_settings_are_listed_without_any_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"], {}) == 0
    assert "WORKER_BATCH_SIZE" in capsys.readouterr().out


def test_a_conflict_is_listed_shown_and_resolved(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    changes = """'{"name": {"base": "A", "local": "B", "remote": "C"}}'"""
    ids = [insert(connection, siorg_code=n, status="'CONFLICT'", detected_changes=changes, attempts="3") for n in range(1, 5)]
    assert job("conflicts") == 0
    assert job("conflicts", "show", str(ids[0])) == 0
    printed = capsys.readouterr().out
    assert str(ids[0]) in printed
    assert 'remote: "C"' in printed
    assert job("conflicts", "resolve", str(ids[0]), "--accept-siorg", "--notes", "theirs") == 0
    assert job("conflicts", "resolve", str(ids[1]), "--keep-local") == 0
    assert job("conflicts", "resolve", str(ids[2]), "--skip") == 0
    assert job("conflicts", "resolve", str(ids[3]), "--set", "name=Novo nome", "--set", "acronym=LOCAL") == 0
    assert job("conflicts", "resolve", str(ids[3]), "--skip") == 1  # no conflict any more
    accepted, kept, skipped, merged = rows(connection)
    assert (accepted["status"], accepted["error_details"], accepted["resolution_notes"]) == (
        "PENDING",
        {"resolution": "ACCEPT_SIORG"},
        "theirs",
    )
    assert (kept["status"], kept["error_details"], skipped["status"]) == (
        "PENDING",
        {"resolution": "MERGE", "field_resolutions": {"name": "LOCAL"}},
        "SKIPPED",
    )
    assert merged["error_details"] == {
        "resolution": "MERGE",
        "merged_payload": {"name": "Novo nome"},
        "field_resolutions": {"acronym": "LOCAL"},
    }


def test_a_decision_that_cannot_be_carried_out_is_refused_by_field(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    conflict = insert(connection, siorg_code=1, status="'CONFLICT'")
    for wrong, named in (("colour=blue", "colour"), ("parent=abc", "parent"), ("is_active=7", "is_active"), ("x", "FIELD=VALUE")):
        assert job("conflicts", "resolve", str(conflict), "--set", wrong) == 1
        assert named in capsys.readouterr().err
    assert rows(connection)[0]["status"] == "CONFLICT"


def test_failed_items_are_listed_with_their_reason_and_opened_again(
    job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = insert(connection, siorg_code=1, status="'FAILED'", attempts="3", last_error="'SIORG has no unit 1'")
    insert(connection, siorg_code=2, status="'FAILED'")
    assert job("retry") == 0
    assert "SIORG has no unit 1" in capsys.readouterr().out
    assert job("retry", str(failed)) == 0
    assert job("retry", "--code", "99") == 1
    assert [row["status"] for row in rows(connection)] == ["PENDING", "FAILED"]
    assert job("retry", "--all") == 0
    assert [row["status"] for row in rows(connection)] == ["PENDING", "PENDING"]


def test_cleanup_ends_and_deletes(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    insert(connection, siorg_code=1, expires_at="now() - interval '1 day'")
    insert(connection, siorg_code=2, status="'COMPLETED'", processed_at="now() - interval '31 days'")
    insert(connection, siorg_code=3, attempts="3")
    insert(connection, siorg_code=4, status="'CONFLICT'", created_at="now() - interval '1 year'")
    assert job("cleanup") == 0
    assert [(row["siorg_code"], row["status"]) for row in rows(connection)] == [(3, "FAILED"), (4, "CONFLICT")]
    assert "Cleanup complete" in capsys.readouterr().err


def test_migrate_check_tells_what_is_pending(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"DATABASE_URL": empty_database_url}
    assert main(["migrate", "--check"], environ) == 1
    assert "pending: 0001" in capsys.readouterr().out
    assert main(["status"], environ) == 1
    assert "siorg-job migrate" in capsys.readouterr().err
    assert main(["migrate"], environ) == 0
    capsys.readouterr()
    assert main(["migrate", "--check"], environ) == 0
    assert "up to date" in capsys.readouterr().out
    for gone, said in (
        ("DROP INDEX siorg_sync_queue_claim_idx", "siorg_sync_queue_claim_idx of siorg_sync_queue is missing: siorg-job migrate"),
        ("ALTER TABLE siorg_history RENAME COLUMN new_data TO newer", "columns are missing: siorg_history.new_data"),
    ):
        with connect(empty_database_url, application_name="test") as connection:
            connection.execute(gone.encode())
        assert main(["migrate", "--check"], environ) == 1
        assert said in capsys.readouterr().out


def test_an_empty_queue_ends_at_once_with_a_summary(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job("run") == 0
    printed = capsys.readouterr()
    assert "No pending items in sync queue" in printed.err
    summary = json.loads(printed.out.splitlines()[-1])
    assert (summary["reason"], summary["exit_code"], summary["claimed"]) == ("exhausted", 0, 0)


def test_a_disabled_sync_does_nothing_and_says_so(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    insert(connection, siorg_code=1)
    connection.execute("UPDATE system_settings SET value = 'false' WHERE key = 'siorg.sync_enabled'")
    assert job("run") == 0
    assert job("discover") == 0
    captured = capsys.readouterr()
    assert captured.err.count("siorg.sync_enabled is false") == 2
    assert json.loads(captured.out.splitlines()[-1])["reason"] == "disabled"
    assert rows(connection)[0]["status"] == "PENDING"


def test_a_pause_that_siorg_asked_for_is_shown(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    connection.execute("UPDATE siorg_request_pace SET paused_until = now() + interval '90 s'")
    assert job("status") == 0
    assert "nothing is fetched for another" in capsys.readouterr().out


def test_a_listing_that_is_cut_says_so(job: Job, connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    for code in (1, 2, 3):
        insert(connection, siorg_code=code, status="'FAILED'")
        insert(connection, siorg_code=code, status="'CONFLICT'")
    assert job("retry", "--limit", "2") == 0
    printed = capsys.readouterr().out
    assert "the newest 2 of 3" in printed
    assert "None" not in printed
    assert job("conflicts", "--limit", "2") == 0
    assert "--limit shows more" in capsys.readouterr().out
