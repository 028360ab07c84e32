"""Burn test: a fault that is no item's comes and goes, and it is as if nothing had been. `make soak` runs it in long."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from support.fleet import Job, eventually
from support.loopback_http import Gateway
from support.pages import Page
from support.poison import PoisonedSiorg
from support.siorg_server import REPOSITORY, SiorgServer

from .conftest import LONG, NO_TRIGGER, PAUSES_ARE_OVER, UFMT, Scene, forgotten, somebodys_trigger, stranger

ITEMS, SECONDS = (500, 60.0) if LONG else (24, 0.0)
"""How many items, and for how long runs are begun while the fault is there (at least one)."""
_NOWHERE = "http://127.0.0.1:9"
_ROLE = "siorg_worker_of_burns"
_HELD = "SELECT count(*) FROM siorg_sync_queue WHERE status = 'PROCESSING' AND lease_expires_at > now()"

On: TypeAlias = Callable[[Scene], AbstractContextManager[Mapping[str, str]]]
"""The fault is there while the context lasts; gives what a run's environment has of it."""


def ends(scene: Scene, env: Mapping[str, str]) -> Job:
    job = scene.start(**env)
    job.ends(within=180 if LONG else 60)
    return job


@dataclass(frozen=True, slots=True)
class Fault:
    on: On
    exits: int
    reason: str | None = None
    """The summary's word for the end; None: there is no summary."""
    says: str = ""
    """What the run's log says of it."""
    run: Callable[[Scene, Mapping[str, str]], Job] = ends
    """Goes through one run, to its end."""
    or_dies: tuple[int, ...] = ()
    """Exit codes that it may end with instead."""


# -- the database's -----------------------------------------------------------------------------------------------------------


def sql(on: str, off: str) -> On:
    @contextmanager
    def fault(scene: Scene) -> Iterator[Mapping[str, str]]:
        scene.connection.execute(on.encode())
        try:
            yield {"WORKER_LEASE_SECS": "30"}
        finally:
            scene.connection.execute(off.encode())

    return fault


def revoked(right: str, table: str) -> On:
    return sql(f"REVOKE {right} ON {table} FROM {_ROLE}", f"GRANT {right} ON {table} TO {_ROLE}")


def trigger(when: str = "true", code: str = "P0001") -> On:
    return sql(somebodys_trigger(when, code), NO_TRIGGER)


def held(statement: str, before: str = "") -> On:
    """Somebody's open transaction, which has done this."""

    @contextmanager
    def fault(scene: Scene) -> Iterator[Mapping[str, str]]:
        scene.connection.execute(before.encode())
        with forgotten(scene.url, statement):
            yield {"SIORG_MAX_REQUESTS_PER_SECOND": "500"}

    return fault


@contextmanager
def a_strangers_locks(scene: Scene) -> Iterator[Mapping[str, str]]:
    with stranger(scene.connection, scene.url):
        yield {}


@contextmanager
def full_disk(scene: Scene) -> Iterator[Mapping[str, str]]:
    """A small file system of its own, full, has the units."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="siorg-full-")))
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("a file system of its own cannot be mounted here (that needs root)")
        stack.callback(subprocess.check_call, ["umount", str(folder)])
        (data,) = scene.connection.execute("SELECT current_setting('data_directory') AS folder").fetchall()
        space = folder / "space"
        space.mkdir(mode=0o700)
        shutil.chown(space, Path(data["folder"]).owner(), Path(data["folder"]).group())
        folder.chmod(0o755)
        scene.connection.execute(f"CREATE TABLESPACE full_disk LOCATION '{space}'".encode())
        stack.callback(scene.connection.execute, "DROP TABLESPACE full_disk")
        scene.connection.execute("ALTER TABLE organizational_units SET TABLESPACE full_disk")
        stack.callback(scene.connection.execute, "ALTER TABLE organizational_units SET TABLESPACE pg_default")
        filler = folder / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free)
        stack.callback(filler.unlink)
        yield {}


_READ_ONLY = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {} default_transaction_read_only', current_database()); END $$"
_READ_ONLY_ON = _READ_ONLY.replace("{} default_transaction_read_only", "SET default_transaction_read_only = on")


# -- ours ---------------------------------------------------------------------------------------------------------------------


def environment(**env: str) -> On:
    @contextmanager
    def fault(_: Scene) -> Iterator[Mapping[str, str]]:
        yield env

    return fault


def starts_and_holds_several(scene: Scene, env: Mapping[str, str]) -> Job:
    """A run that takes its time; it may also come to its end, where nearly all is done."""
    scene.latency("1000")
    job = scene.start(**env)
    eventually(lambda: not job.running or scene.number(_HELD) > 1)
    return job


def is_killed(scene: Scene, env: Mapping[str, str]) -> Job:
    """With all that it holds; whoever comes after waits for its leases."""
    job = starts_and_holds_several(scene, env)
    job.process.kill()
    job.ends()
    scene.latency("0")
    eventually(lambda: scene.number(_HELD) == 0)
    return job


def has_no_memory_left(scene: Scene, env: Mapping[str, str]) -> Job:
    """What it has it keeps; more it does not get. An interpreter that needs some for itself dies of it, or stands still."""
    job = starts_and_holds_several(scene, env)
    resource.prlimit(job.process.pid, resource.RLIMIT_AS, (1, 1))
    try:
        job.process.wait(20)
    except subprocess.TimeoutExpired:
        job.process.kill()
    job.ends()
    scene.latency("0")
    eventually(lambda: scene.number(_HELD) == 0)
    return job


# -- SIORG's ------------------------------------------------------------------------------------------------------------------


@contextmanager
def endpoint_down(scene: Scene) -> Iterator[Mapping[str, str]]:
    with PoisonedSiorg(scene.siorg.url, endpoint="/unidade-organizacional/") as siorg:
        yield {"SIORG_API_URL": siorg.url}


@contextmanager
def large_answers(_: Scene) -> Iterator[Mapping[str, str]]:
    with Gateway(200, body=b" " * (4 * 1024 * 1024 + 1)) as siorg:
        yield {"SIORG_API_URL": siorg.url}


@contextmanager
def asked_to_leave_it_alone(_: Scene) -> Iterator[Mapping[str, str]]:
    with SiorgServer("--synthetic", "5", "--faults", "status=503:1", "--retry-after", "3600") as siorg:
        yield {"SIORG_API_URL": siorg.url}


def siorg(faults: str) -> On:
    @contextmanager
    def fault(scene: Scene) -> Iterator[Mapping[str, str]]:
        scene.faults(faults)
        yield {"SIORG_TIMEOUT_SECS": "0.7"}
        scene.faults("")

    return fault


_REFUSES, _AWAY, _SIORG = "database_refuses", "database_unavailable", "siorg_unavailable"
_AT_UNITS = "at table organizational_units"
_NO_MEMORY = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGKILL)
FAULTS = {
    "a grant for history is revoked": Fault(
        revoked("INSERT", "siorg_history"), 1, _REFUSES, f"GRANT INSERT ON siorg_history TO {_ROLE}"
    ),
    "a grant for reading is revoked": Fault(
        revoked("SELECT", "organizations"), 1, _REFUSES, f"GRANT SELECT ON organizations TO {_ROLE}"
    ),
    "the grant for the queue is revoked": Fault(
        revoked("UPDATE", "siorg_sync_queue"), 1, _REFUSES, f"GRANT UPDATE ON siorg_sync_queue TO {_ROLE}"
    ),
    "a column is renamed": Fault(
        sql(
            "ALTER TABLE organizational_units RENAME contact_info TO contacts",
            "ALTER TABLE organizational_units RENAME contacts TO contact_info",
        ),
        1, _REFUSES, "contact_info",
    ),
    "a column is new and wanted": Fault(
        sql(
            "ALTER TABLE organizational_units ADD theirs integer, ADD CHECK (theirs IS NOT NULL) NOT VALID",
            "ALTER TABLE organizational_units DROP theirs",
        ),
        1, _REFUSES, _AT_UNITS,
    ),
    "a foreign trigger": Fault(trigger(), 1, _REFUSES, _AT_UNITS),
    "a foreign trigger speaks of constraints": Fault(trigger(code="23514"), 1, _REFUSES, _AT_UNITS),
    "a foreign trigger has a bug": Fault(trigger(when="1 / 0 = 1"), 1, _REFUSES, _AT_UNITS),
    "a row lock": Fault(held(f"SELECT FROM organizations WHERE siorg_code = {UFMT} FOR UPDATE"), 0, "exhausted"),
    "a table lock": Fault(
        held("LOCK TABLE organizational_units IN SHARE MODE"), 75, _AWAY, "organizational_units"
    ),
    "a table lock for reading too": Fault(
        held("LOCK TABLE organizational_units IN ACCESS EXCLUSIVE MODE"), 75, _AWAY, "organizational_units"
    ),
    "the lock of all requests": Fault(
        held("UPDATE siorg_request_pace SET next_at = next_at WHERE name = 'siorg'"), 75, _AWAY, "others hold a lock"
    ),
    "a foreign trigger waits for an advisory lock": Fault(
        held(
            "SELECT pg_advisory_xact_lock(900)",
            "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_advisory_xact_lock(900); RETURN NULL; END $$;"
            "CREATE TRIGGER theirs AFTER INSERT ON organizational_units FOR EACH ROW EXECUTE FUNCTION theirs()",
        ),
        75, _AWAY,
    ),
    "a stranger's advisory locks": Fault(a_strangers_locks, 0, "exhausted"),
    "the database's disk is full": Fault(full_disk, 75, _AWAY, "No space left"),
    "the database is read-only": Fault(
        sql(_READ_ONLY_ON, _READ_ONLY.format("RESET")), 75, _AWAY, "read-only"
    ),
    "the certificates are not there": Fault(environment(SSL_CERT_FILE="/not/mounted"), 2, says="SSL_CERT_FILE: must be"),
    "the certificates' folder is not there": Fault(environment(SSL_CERT_DIR="/not/mounted"), 2, says="SSL_CERT_DIR: must be"),
    "the own certificates are not there": Fault(
        environment(SIORG_CA_BUNDLE="/not/mounted"), 2, says="SIORG_CA_BUNDLE: must be"
    ),
    "the proxy is dead": Fault(environment(HTTP_PROXY=_NOWHERE, http_proxy=_NOWHERE), 75, _SIORG, "proxy"),
    "batches are killed": Fault(environment(), -signal.SIGKILL, run=is_killed),
    "the memory limit": Fault(environment(), 1, says="a fault of ours", run=has_no_memory_left, or_dies=_NO_MEMORY),
    "an endpoint is down": Fault(endpoint_down, 75, _SIORG),
    "SIORG is down": Fault(siorg("status=503:1"), 75, _SIORG),
    "SIORG hangs": Fault(siorg("timeout=1"), 75, _SIORG),
    "SIORG talks nonsense": Fault(siorg("garbage=1"), 75, _SIORG),
    "SIORG's answers are all too large": Fault(large_answers, 75, _SIORG, "has over"),
    "SIORG wants another token": Fault(siorg("status=401:1"), 75, _SIORG),
    "SIORG wants to be left alone": Fault(asked_to_leave_it_alone, 75, _SIORG),
    "nobody listens": Fault(environment(SIORG_API_URL=f"{_NOWHERE}/doc"), 75, _SIORG),
}  # fmt: skip


@pytest.fixture
def role(scene: Scene) -> Iterator[str]:
    """The address of the database for a role with the grants that docs/install.md prints."""
    (grants,) = [block for language, block in Page.of(REPOSITORY / "docs" / "install.md").blocks if language == "sql"]
    scene.connection.execute(f"DROP ROLE IF EXISTS {_ROLE}; CREATE ROLE {_ROLE} LOGIN".encode())
    scene.connection.execute(grants.replace("siorg_worker", _ROLE).encode())
    scene.connection.execute(f"GRANT ALL ON test_ledger, test_ledger_n_seq TO {_ROLE}".encode())
    yield scene.url.replace("//postgres@", f"//{_ROLE}@")
    scene.connection.execute(f"DROP OWNED BY {_ROLE}; DROP ROLE {_ROLE}".encode())


@pytest.mark.timeout(600 if LONG else 180)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_is_no_items_comes_and_goes_and_nothing_has_been(scene: Scene, role: str, name: str) -> None:
    fault = FAULTS[name]
    scene.waiting(ITEMS)
    with fault.on(scene) as env:
        over = time.monotonic() + SECONDS
        while True:
            job = fault.run(scene, {"DATABASE_URL": role, **env})
            assert job.process.returncode in {fault.exits, max(fault.exits, 0), *fault.or_dies}, job.stderr
            if fault.reason is not None:
                assert job.summary["reason"] == fault.reason, job.stderr
                assert "Traceback" not in job.stderr
            assert fault.says in job.stderr or job.process.returncode != fault.exits
            unburnt = {("PENDING", 0), ("COMPLETED", 1)} | ({("PROCESSING", 1)} if fault.run is not ends else set())
            assert scene.states().keys() <= unburnt, job.stderr
            if time.monotonic() >= over:
                break
    scene.connection.execute(PAUSES_ARE_OVER)
    scene.run(0, DATABASE_URL=role, within=120)
    assert scene.states() == {("COMPLETED", 1): ITEMS}
    scene.audit()
