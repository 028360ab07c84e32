"""SIORG wants to be left alone (429): nothing is claimed meanwhile, no item pays, and the run ends in bounded time."""

from __future__ import annotations

import re
import signal
import time

import pytest

from support.fleet import eventually
from support.siorg_server import SiorgServer

from .conftest import Scene


def pause(scene: Scene, seconds: float) -> None:
    """What another process leaves behind that met a 429."""
    scene.connection.execute(
        "UPDATE siorg_request_pace SET paused_until = clock_timestamp() + make_interval(secs => %s) WHERE name = 'siorg'",
        [seconds],
    )


@pytest.mark.parametrize("items", [100, 3])  # where the last ones are postponed, that is no end of the work
def test_a_long_pause_postpones_only_what_met_it_and_ends_the_run(scene: Scene, items: int) -> None:
    scene.waiting(items)
    with SiorgServer("--synthetic", "5", "--faults", "429=1", "--retry-after", "120") as strict:
        reason, summary = scene.drain(SIORG_API_URL=strict.url)
        requests = strict.control("GET", "state")["requests"]
    assert reason == "siorg_rate_limited"
    assert scene.states() == {("PENDING", 0): items}
    delays = scene.connection.execute(
        "SELECT extract(epoch FROM scheduled_for - now())::float8 AS seconds FROM siorg_sync_queue WHERE scheduled_for > now()"
    ).fetchall()
    assert 1 <= len(delays) <= 16
    assert all(100 < row["seconds"] < 140 for row in delays)
    assert 100 < scene.number("SELECT extract(epoch FROM max(paused_until) - now()) FROM siorg_request_pace") <= 120
    assert summary.claimed == summary.released <= 16
    assert requests["total"] <= 16  # those that were on their way; then nobody asked
    assert set(scene.audit()) == {"claim", "release"}


@pytest.mark.parametrize("retry_after", [None, "0", "1"])
def test_429_that_never_ends_ends_the_run(scene: Scene, monkeypatch: pytest.MonkeyPatch, retry_after: str | None) -> None:
    monkeypatch.setattr("siorg_job.siorg.client._PAUSE_SECONDS", 1.0)  # where SIORG does not say for how long
    monkeypatch.setattr("siorg_job.drain.siorg_health._RATE_LIMIT_SECONDS", 1.0)
    scene.waiting(150)
    more = [] if retry_after is None else ["--retry-after", retry_after]
    with SiorgServer("--synthetic", "5", "--faults", "429=1", *more) as strict:
        reason, _ = scene.drain(SIORG_API_URL=strict.url, WORKER_UNAVAILABLE_SECS="2.5")
        requests = strict.control("GET", "state")["requests"]
    assert reason == "siorg_rate_limited"
    assert scene.states() == {("PENDING", 0): 150}
    assert requests["total"] <= 16 * 4  # a claim's worth after each pause of a second or more
    assert set(scene.audit()) == {"claim", "release"}


def test_a_long_pause_of_another_process_counts_for_run_and_discover(scene: Scene) -> None:
    scene.waiting(20)
    pause(scene, 600)
    before = scene.requests()
    job = scene.run(75, within=10)
    assert (job.summary["reason"], job.summary["claimed"]) == ("siorg_rate_limited", 0)
    assert re.search(r"no requests for another (600|59\d) s", job.stderr)
    assert scene.states() == {("PENDING", 0): 20}
    told = scene.run(75, "discover", within=10).stderr
    assert re.search(r"another (600|59\d)\.\d s", told)
    assert scene.requests() == before


def test_a_short_pause_of_another_process_is_waited_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siorg_job.database.shared_rate._LONGEST_PAUSE_SECONDS", 1.0)
    scene.waiting(20)
    started = time.monotonic()
    pause(scene, 2)  # longer than what is slept through with work in hand
    reason, summary = scene.drain(WORKER_UNAVAILABLE_SECS="20")
    assert time.monotonic() - started > 1.9
    assert reason == "exhausted"
    assert scene.states() == {("COMPLETED", 1): 20}
    assert summary.released == 0


def test_each_pause_has_the_whole_patience_of_a_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siorg_job.database.shared_rate._LONGEST_PAUSE_SECONDS", 0.2)
    scene.waiting(20)
    scene.latency("100")
    pause(scene, 2)
    scene.connection.execute(_PAUSE_AFTER_TEN)  # a second later, at the earliest
    reason, _ = scene.drain(WORKER_UNAVAILABLE_SECS="3", WORKER_BATCH_SIZE="1", WORKER_CONCURRENCY="1")
    assert reason == "exhausted"
    assert scene.states() == {("COMPLETED", 1): 20}


_PAUSE_AFTER_TEN = """
CREATE FUNCTION pause_after_ten() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE siorg_request_pace SET paused_until = clock_timestamp() + interval '2 seconds'
    WHERE name = 'siorg' AND (SELECT count(*) FROM siorg_sync_queue WHERE status = 'COMPLETED') = 10;
    RETURN NULL;
END $$;
CREATE TRIGGER pause_after_ten AFTER UPDATE ON siorg_sync_queue FOR EACH ROW WHEN (NEW.status = 'COMPLETED')
EXECUTE FUNCTION pause_after_ten()
"""


def test_a_pause_with_nothing_to_claim_is_no_trouble(scene: Scene) -> None:
    scene.waiting(1)
    scene.connection.execute("UPDATE siorg_sync_queue SET scheduled_for = now() + interval '1 hour'")
    pause(scene, 600)
    assert scene.drain()[0] == "exhausted"
    assert scene.states() == {("PENDING", 0): 1}


def test_the_wait_for_the_end_of_a_pause_ends_when_asked(scene: Scene) -> None:
    scene.waiting(20)
    pause(scene, 60)
    job = scene.start("run", "--forever")
    eventually(lambda: "SIORG wants no requests" in job.stderr)
    job.send(signal.SIGTERM)
    assert job.ends(within=5) == 0, job.stderr
    assert job.summary["reason"] == "stopped"
    assert scene.states() == {("PENDING", 0): 20}
