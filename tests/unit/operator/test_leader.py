"""Who leads: one at a time, whatever happens to a leader, to a standby or to the API server. Real processes, real HTTP.

``tests/cluster/test_leader.py`` has what a real API server can be asked too.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord

from siorg_operator.cluster import leader
from siorg_operator.cluster.leader import Leadership
from siorg_operator.settings import OperatorSettings
from support.fleet import eventually
from support.lease_replicas import Replica, Replicas
from support.lease_server import LeaseServer, Mood

LEASE, RENEW, RETRY = 4, 3, 1  # seconds
SHORT = (f"lease_secs={LEASE}", f"lease_renew_secs={RENEW}", f"lease_retry_secs={RETRY}")
SLACK = 1.5  # seconds that a busy machine may add


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with LeaseServer() as served:
        yield served


@pytest.fixture
def replicas(server: LeaseServer, tmp_path: Path) -> Iterator[Replicas]:
    started = Replicas(server.url, tmp_path, SHORT)
    yield started
    started.end()


def a_pair(server: LeaseServer, replicas: Replicas, times: tuple[str, ...] = SHORT) -> tuple[Replica, Replica]:
    """A leader, and a standby that has seen it."""
    first = replicas.start("first", times)
    first.leads()
    second = replicas.start("second", times)
    second.stands_by()
    seen = len(server.requests)
    eventually(lambda: len(server.requests) > seen + 3)
    return first, second


# -- processes --------------------------------------------------------------------------------------------------------


def test_the_first_leads_and_the_lease_says_so(server: LeaseServer, replicas: Replicas) -> None:
    replicas.start("first").leads()
    spec = server.lease()
    assert re.fullmatch(r"first_[0-9a-f]{6}", spec["holderIdentity"])
    assert spec["leaseDurationSeconds"] == LEASE
    assert spec["leaseTransitions"] == 0
    eventually(lambda: server.lease()["renewTime"] > spec["renewTime"])
    assert server.lease()["acquireTime"] == spec["acquireTime"]


def test_of_three_that_start_at_once_one_leads_and_the_next_follows_when_it_is_killed(
    server: LeaseServer, replicas: Replicas
) -> None:
    waiting = {replicas.start(name) for name in ("a", "b", "c")}
    while waiting:
        leading = eventually(lambda: [one for one in waiting if one.acts], seconds=15)
        assert len(leading) == 1
        time_to_overlap = leading[0].acts[0] + RETRY + 0.5
        eventually(lambda: time.monotonic() > time_to_overlap)  # noqa: B023 - read at once
        leading[0].send(signal.SIGKILL)
        waiting.discard(leading[0])
    for one in replicas.all:
        one.process.wait(5)
    assert replicas.never_acted_together()
    assert server.lease()["leaseTransitions"] == 2


def test_with_the_default_times_a_standby_takes_over_within_20_seconds(server: LeaseServer, replicas: Replicas) -> None:
    first, second = a_pair(server, replicas, ())
    killed = first.send(signal.SIGKILL)
    assert second.leads(within=25) - killed < 20
    assert replicas.never_acted_together()
    assert server.holder.startswith("second_")


def test_after_the_last_replica_the_lease_is_nobodys(server: LeaseServer, replicas: Replicas) -> None:
    first = replicas.start("first")
    first.leads()
    first.send(signal.SIGTERM)
    assert first.ends(within=5) == 0
    assert server.lease()["holderIdentity"] == ""


def test_a_standby_that_is_told_to_stop_leaves_the_lease_alone(server: LeaseServer, replicas: Replicas) -> None:
    first, second = a_pair(server, replicas)
    second.send(signal.SIGTERM)
    assert second.ends(within=5) == 0
    assert server.holder.startswith("first_")
    assert first.running


def test_a_leader_that_was_stopped_and_whose_lease_nobody_took_ends_too(server: LeaseServer, replicas: Replicas) -> None:
    first = replicas.start("first")
    first.leads()
    stopped = first.send(signal.SIGSTOP)
    eventually(lambda: time.monotonic() > stopped + RENEW + 0.2)
    continued = first.send(signal.SIGCONT)
    assert first.ends(within=5) == 1
    assert [act for act in first.acts if act > continued] == []


TROUBLES: list[tuple[Mood, str]] = [
    ("hangs", "no answer in time"),
    ("fails", "HTTP 500"),
    ("answers html", "HTTP 502"),
]


@pytest.mark.parametrize(("mood", "said"), TROUBLES)
def test_a_leader_that_cannot_renew_ends_within_the_deadline_and_a_standby_goes_on_trying(
    server: LeaseServer, replicas: Replicas, mood: Mood, said: str
) -> None:
    first, second = a_pair(server, replicas)
    server.mood = mood
    began = time.monotonic()
    assert first.ends(within=RENEW + SLACK) == 1
    assert time.monotonic() - began > RENEW - RETRY - 0.5
    assert re.search(r"was last renewed 3\.\d s ago \(limit 3 s\)", first.last_words)
    assert said in first.last_words
    seen = len(server.requests)
    eventually(lambda: len(server.requests) >= seen + 2)
    assert second.running
    assert second.acts == []
    server.mood = "well"
    second.leads()
    assert replicas.never_acted_together()


def test_an_api_server_that_refuses_connections_is_no_different(server: LeaseServer, replicas: Replicas) -> None:
    first, second = a_pair(server, replicas)
    server.away()
    assert first.ends(within=RENEW + SLACK) == 1
    assert "Connection refused" in first.last_words
    eventually(lambda: any(entry["level"] == "WARN" for entry in second.said))
    assert second.running
    server.back()
    second.leads()
    assert replicas.never_acted_together()


def test_a_short_trouble_ends_nobody_and_is_told_once(server: LeaseServer, replicas: Replicas) -> None:
    first, second = a_pair(server, replicas, ("lease_secs=8", "lease_renew_secs=7", "lease_retry_secs=1"))
    server.mood = "fails"
    seen = len(server.requests)
    eventually(lambda: len(server.requests) > seen + 3)
    server.mood = "well"
    eventually(lambda: first.said[-1]["message"] == "The lease can be asked for again")
    assert first.running
    assert second.running
    assert second.acts == []
    assert sum(entry["level"] == "WARN" for entry in first.said) == 1


def test_a_leader_that_reads_anothers_name_ends_at_once(server: LeaseServer, replicas: Replicas) -> None:
    first = replicas.start("first", ("lease_secs=60", "lease_renew_secs=40", "lease_retry_secs=1"))
    first.leads()
    server.write(holderIdentity="a-person")
    assert first.ends(within=RETRY + SLACK) == 1
    assert first.last_words == "Lost the lead, ending at once: a-person holds the lease siorg/siorg-operator"
    assert server.holder == "a-person"


def test_a_lease_that_somebody_removes_goes_back_to_who_led(server: LeaseServer, replicas: Replicas) -> None:
    first, second = a_pair(server, replicas)
    server.remove()
    eventually(lambda: server.holder, every=0.01)
    assert server.holder.startswith("first_")
    assert first.running
    assert second.acts == []


def test_last_words_that_nobody_reads_do_not_keep_a_process_alive() -> None:
    program = """
import logging, os, sys, threading
from siorg_operator.cluster.leader import end_process
from siorg_runtime.logs import configure
configure("json", "info")
threading.Thread(target=lambda: [logging.getLogger("siorg_operator").error("x" * 1000) for _ in range(1000)], daemon=True).start()
print("ready", flush=True)
threading.Event().wait(0.3)
end_process("test")
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.wait(15) == 1  # its standard error is a pipe that is full
    finally:
        process.kill()
        process.communicate()


# -- in this process --------------------------------------------------------------------------------------------------


def settings(**changes: Any) -> OperatorSettings:
    times = {"lease_secs": LEASE, "lease_renew_secs": RENEW, "lease_retry_secs": RETRY}
    return OperatorSettings(namespace="siorg", identity="me", **{**times, **changes})


def api(server: LeaseServer) -> client.ApiClient:
    return client.ApiClient(client.Configuration(host=server.url))


def test_two_with_one_name_are_two(server: LeaseServer) -> None:
    names = {Leadership(api(server), settings()).identity for _ in range(5)}
    assert len(names) == 5


def test_a_renewing_thread_that_hangs_is_noticed(server: LeaseServer) -> None:
    lost: list[str] = []
    hanging = threading.Event()
    tries: list[bool] = []

    def hang_at_the_second(reached: bool) -> None:
        tries.append(reached)
        if len(tries) > 1:
            hanging.wait()

    leadership = Leadership(api(server), settings(), on_lost=lost.append, on_try=hang_at_the_second)
    assert leadership.wait_until_leading(threading.Event())
    assert leadership.is_leader
    began = time.monotonic()
    (reason,) = eventually(lambda: lost, seconds=RENEW + SLACK)
    assert time.monotonic() - began < RENEW + SLACK
    assert "was last renewed 3" in reason
    assert not leadership.is_leader
    hanging.set()
    leadership.release()
    assert lost == [reason]


def test_an_election_that_breaks_ends_the_process(server: LeaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []

    def broken(_reached: bool) -> None:
        raise RuntimeError("a bug")

    leadership = Leadership(api(server), settings(), on_lost=lost.append, on_try=broken)
    stop = threading.Event()
    waiting = threading.Thread(target=leadership.wait_until_leading, args=(stop,))
    waiting.start()
    assert eventually(lambda: lost) == ["the election failed: RuntimeError: a bug"]
    stop.set()
    waiting.join(5)


def test_waiting_ends_when_it_is_told_to(server: LeaseServer) -> None:
    server.write(holderIdentity="other", leaseDurationSeconds=60, acquireTime=_NOW, renewTime=_NOW)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    leadership = Leadership(api(server), settings())
    assert leadership.wait_until_leading(stop) is False
    leadership.release()
    assert server.holder == "other"
    assert not leadership.is_leader


def test_each_try_is_told(server: LeaseServer) -> None:
    reached: list[bool] = []
    server.write(holderIdentity="other", leaseDurationSeconds=60, acquireTime=_NOW, renewTime=_NOW)
    server.mood = "fails"
    leadership = Leadership(api(server), settings(), on_try=reached.append)
    stop = threading.Event()
    waiting = threading.Thread(target=leadership.wait_until_leading, args=(stop,))
    waiting.start()
    eventually(lambda: reached)
    server.mood = "well"
    eventually(lambda: reached[-1])
    stop.set()
    waiting.join(5)
    leadership.release()
    assert reached[0] is False


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("forbids", 'HTTP 403 Forbidden: leases.coordination.k8s.io is forbidden: cannot get resource "leases"'),
        ("answers nothing", "the answer is no Lease"),
    ],
)
def test_why_the_lease_cannot_be_had_is_said(
    server: LeaseServer, caplog: pytest.LogCaptureFixture, mood: Mood, said: str
) -> None:
    server.mood = mood
    reached: list[bool] = []
    leadership = Leadership(api(server), settings(), on_try=reached.append)
    stop = threading.Event()
    waiting = threading.Thread(target=leadership.wait_until_leading, args=(stop,))
    waiting.start()
    eventually(lambda: len(reached) >= 2)
    stop.set()
    waiting.join(5)
    leadership.release()
    assert not any(reached)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert vars(warning)["siorg_fields"]["reason"] == said


def test_a_lease_that_cannot_be_given_back_is_no_error(server: LeaseServer, caplog: pytest.LogCaptureFixture) -> None:
    leadership = Leadership(api(server), settings())
    assert leadership.wait_until_leading(threading.Event())
    server.away()
    leadership.release()
    assert not leadership.is_leader
    assert "could not be given back" in caplog.text
    server.back()
    assert server.holder == leadership.identity


def test_giving_back_twice_and_without_a_lease_is_fine(server: LeaseServer) -> None:
    leadership = Leadership(api(server), settings())
    leadership.release()
    leadership = Leadership(api(server), settings())
    assert leadership.wait_until_leading(threading.Event())
    leadership.release()
    server.write(holderIdentity="other")
    leadership.release()
    assert server.holder == "other"


_NOW = "2026-11-24T00:00:00.000000Z"


# -- the election alone, with clocks that a test sets ----------------------------------------------------------------


class FakeLock:
    """A Lease in memory."""

    name, namespace, identity = "siorg-operator", "siorg", "me"
    may_create = True

    def __init__(self, holder: str, seconds: int) -> None:
        self.record = LeaderElectionRecord(holder, str(seconds), "then", "then")  # type: ignore[no-untyped-call]

    def get(self, _name: str, _namespace: str) -> tuple[bool, LeaderElectionRecord]:
        return True, self.record

    def update(self, _name: str, _namespace: str, record: LeaderElectionRecord) -> bool:
        self.record = record
        return True


class Clocks:
    """The wall clock, which anybody may set, and the one that nobody sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = 1_800_000_000.0, 1000.0
        monkeypatch.setattr("time.time", lambda: self.wall)
        monkeypatch.setattr(leader, "_now", lambda: self.steady)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def election(lock: FakeLock, **changes: Any) -> leader._Election:
    return leader._Election(lock, settings(lease_secs=15, lease_renew_secs=10, lease_retry_secs=2, **changes))  # type: ignore[arg-type]


def test_a_wall_clock_that_is_set_forward_takes_no_lease(clocks: Clocks) -> None:
    standing_by = election(FakeLock("other", 15))
    assert not standing_by.try_acquire_or_renew()
    clocks.pass_by(10)
    clocks.wall += 3600
    assert not standing_by.try_acquire_or_renew()
    clocks.pass_by(4.9)
    assert not standing_by.try_acquire_or_renew()
    clocks.pass_by(0.2)
    assert standing_by.try_acquire_or_renew()


def test_a_wall_clock_that_is_set_back_keeps_nobody_waiting(clocks: Clocks) -> None:
    standing_by = election(FakeLock("other", 15))
    assert not standing_by.try_acquire_or_renew()
    clocks.wall -= 3600
    clocks.pass_by(15.1)
    assert standing_by.try_acquire_or_renew()


def test_a_lease_runs_from_when_it_was_seen_to_change(clocks: Clocks) -> None:
    lock = FakeLock("other", 15)
    standing_by = election(lock)
    for _ in range(20):
        assert not standing_by.try_acquire_or_renew()
        clocks.pass_by(10)
        lock.record = LeaderElectionRecord("other", "15", "then", f"renewed {clocks.steady}")  # type: ignore[no-untyped-call]
    assert not standing_by.try_acquire_or_renew()
    assert standing_by.others_remaining() == 15


def test_a_holder_that_promised_itself_longer_is_respected(clocks: Clocks) -> None:
    standing_by = election(FakeLock("other", 60))
    assert not standing_by.try_acquire_or_renew()
    clocks.pass_by(59)
    assert not standing_by.try_acquire_or_renew()
    assert standing_by.others_remaining() == 1
    clocks.pass_by(1.1)
    assert standing_by.try_acquire_or_renew()
    assert standing_by.others_remaining() == 0
    assert standing_by.other_holder() is None


def test_a_lease_that_was_given_back_is_taken_at_once(clocks: Clocks) -> None:
    lock = FakeLock("other", 15)
    standing_by = election(lock)
    assert not standing_by.try_acquire_or_renew()
    lock.record = LeaderElectionRecord(None, "1", "then", "then")  # type: ignore[no-untyped-call]
    assert standing_by.try_acquire_or_renew()
