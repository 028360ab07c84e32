"""`make demo`: the main job, whole, on this machine, from nothing.

An embedded PostgreSQL (or the database of DATABASE_URL), the SIORG simulator with a few faults, one organization of some
2,000 generated units, and several `siorg-job run` processes that drain the queue and exit: once for the first discovery, and
once more after SIORG has changed. Ends with a table and with the comparison of the local structure with SIORG's. Exit 0 only
when nothing differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from siorg_job.siorg.model import Structure
from siorg_job.siorg.parsing import read_structure
from siorg_queue import Connection, Counts, DatabaseUnavailable, QueueStore, connect
from support.postgres import embedded_postgres
from support.siorg_server import SiorgServer

ORGANIZATION = 471
FAULTS = "status=503:0.1,torn=0.08,garbage=0.05,429=0.05"  # few requests are needed, so that few faults need a high rate
LONGEST_SECONDS = 150

console = Console()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=2000, help="units of the generated organization (default 2000)")
    parser.add_argument("--jobs", type=int, default=4, help="siorg-job processes (default 4)")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="siorg-demo-")))
        url = os.environ.get("DATABASE_URL") or stack.enter_context(_embedded())
        log = folder / "requests.jsonl"
        siorg = stack.enter_context(
            SiorgServer(
                "--synthetic",
                str(arguments.units),
                "--synthetic-changes",
                str(arguments.units // 10),
                "--latency-ms",
                "40:20",
                "--faults",
                FAULTS,
                "--retry-after",
                "1",
                request_log=log,
            )
        )
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "SIORG_API_URL": siorg.url,
            "SIORG_ALLOW_INSECURE": "true",
            "LOG_FORMAT": "json",
            "SIORG_TIMEOUT_SECS": "2",
            "WORKER_RETRY_MAX_DELAY_MS": "4000",
        }
        codes = set(_structure(siorg.url).units)
        siorg.control("PUT", "snapshot", {"index": 0})
        codes |= set(_structure(siorg.url).units)
        try:
            connection = stack.enter_context(connect(url, application_name="siorg-demo"))
        except DatabaseUnavailable as error:
            console.print(f"[red]The database of DATABASE_URL does not answer: {error}[/red]")
            return 75
        if foreign := _foreign_units(connection, codes):
            console.print(
                f"[red]The database of DATABASE_URL keeps {foreign} units that are not this demo's: it writes generated units,"
                " so give it a database of its own.[/red]"
            )
            return 2
        _job(["migrate"], environment)
        jobs: list[dict[str, Any]] = []
        seconds = 0.0
        for index, what in enumerate(("The first discovery", "SIORG has changed")):
            console.print(f"\n[bold]{what}[/bold]")
            siorg.control("PUT", "snapshot", {"index": index})
            _job(["discover", "--organization", str(ORGANIZATION)], environment)
            started = time.monotonic()
            jobs += _drain(arguments.jobs, environment, connection, folder)
            seconds += time.monotonic() - started
        return _show_result(jobs, seconds, connection, log, _structure(siorg.url))


@contextlib.contextmanager
def _embedded() -> Iterator[str]:
    with embedded_postgres(durable=True) as postgres:
        yield postgres.database(migrated=False)


def _job(command: list[str], environment: dict[str, str]) -> None:
    console.print(f"[bold]$ siorg-job {' '.join(command)}[/bold]")
    for _ in range(5):  # SIORG has faults here: discover may have to be asked again, as a CronJob would
        done = subprocess.run([sys.executable, "-m", "siorg_job", *command], env=environment, check=False)
        if done.returncode != 75:
            break
    if done.returncode:
        raise SystemExit(done.returncode)


def _drain(count: int, environment: dict[str, str], connection: Connection, folder: Path) -> list[dict[str, Any]]:
    """Run ``count`` processes until all have ended, and again while items wait for a retry; their summaries."""
    console.print(f"[bold]$ siorg-job run[/bold]   ({count} processes)")
    store = QueueStore(connection)
    summaries: list[dict[str, Any]] = []
    deadline = time.monotonic() + LONGEST_SECONDS
    began, before = time.monotonic(), store.counts()
    tell_at = began + 0.5
    with Live(console=console, refresh_per_second=8, transient=not console.is_terminal) as live:
        while store.next_due_seconds() is not None and time.monotonic() < deadline:
            running: list[tuple[subprocess.Popen[str], Path]] = []
            for _ in range(count):
                log = folder / f"job-{len(list(folder.glob('job-*')))}.log"
                with log.open("w") as stderr:
                    command = [sys.executable, "-m", "siorg_job", "run"]
                    running.append(
                        (
                            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True),
                            log,
                        )
                    )
            while any(process.poll() is None for process, _ in running):
                if time.monotonic() > deadline:
                    for process, _ in running:
                        process.terminate()
                progress = _progress(store, running, before, time.monotonic() - began)
                live.update(progress)
                if not console.is_terminal and time.monotonic() > tell_at:
                    console.print(f"{progress.title}, {progress.caption}")
                    tell_at = time.monotonic() + 1
                time.sleep(0.1)
            for process, log in running:
                output, _ = process.communicate()
                if process.returncode:
                    console.print(log.read_text()[-2000:])
                if output:
                    summaries.append(json.loads(output.splitlines()[-1]))
            live.update(_progress(store, running, before, time.monotonic() - began))
    return summaries


def _progress(store: QueueStore, running: list[tuple[subprocess.Popen[str], Path]], before: Counts, seconds: float) -> Table:
    counts = store.counts()
    ended = _ended(counts) - _ended(before)
    alive = sum(process.poll() is None for process, _ in running)
    table = Table(
        title=f"{ended} of {before.waiting} items, {seconds:.1f} s, {ended / max(seconds, 0.001):.0f} items/s", min_width=60
    )
    table.caption = f"{alive} jobs running"
    values = {
        "waiting": counts.waiting,
        "in work": counts.processing,
        "completed": counts.completed,
        "failed": counts.failed,
        "conflict": counts.conflict,
        "skipped": counts.skipped,
    }
    for name in values:
        table.add_column(name, justify="right")
    table.add_row(*(str(value) for value in values.values()))
    return table


def _ended(counts: Counts) -> int:
    return counts.completed + counts.failed + counts.conflict + counts.skipped


def _structure(url: str) -> Structure:
    """SIORG's structure, asked for until an answer is whole: the simulator has faults."""
    address = f"{url}/estrutura-organizacional/completa?codigoPoder=1&codigoEsfera=1&codigoUnidade={ORGANIZATION}"
    for _ in range(20):
        try:
            with urllib.request.urlopen(address, timeout=20) as answer:
                return read_structure(bytearray(answer.read()), ORGANIZATION)
        except Exception:  # noqa: BLE001 - whatever it was, ask again
            time.sleep(0.1)
    raise SystemExit("the simulator gave no whole structure in 20 requests")


def _foreign_units(connection: Connection, codes: set[int]) -> int:
    there = connection.execute("SELECT to_regclass('organizational_units') IS NOT NULL AS there").fetchone()
    if there is None or not there["there"]:
        return 0
    row = connection.execute(
        "SELECT count(*) AS n FROM organizational_units WHERE siorg_code IS NULL OR siorg_code <> ALL (%s)",
        [list(codes)],
    ).fetchone()
    return 0 if row is None else int(row["n"])


def _differences(connection: Connection, structure: Structure) -> list[str]:
    """Every way in which the local structure differs from SIORG's."""
    rows = connection.execute(
        "SELECT u.siorg_code, u.name, u.acronym, u.siorg_last_version, u.is_active, o.siorg_code AS organization, u.level,"
        " coalesce(p.siorg_code, o.siorg_code) AS parent, p.level AS parent_level"
        " FROM organizational_units u JOIN organizations o ON o.id = u.organization_id"
        " LEFT JOIN organizational_units p ON p.id = u.parent_id"
    ).fetchall()
    local = {row["siorg_code"]: row for row in rows}
    wanted = {code: unit for code, unit in structure.units.items() if code != ORGANIZATION}
    found = [f"{code}: missing here" for code in wanted.keys() - local.keys()]
    for code, row in local.items():
        unit = wanted.get(code)
        if unit is None:
            if row["is_active"]:
                found.append(f"{code}: active here, unknown to SIORG")
            continue
        expected = {
            "name": unit.name,
            "acronym": unit.acronym,
            "siorg_last_version": unit.version,
            "is_active": True,
            "organization": unit.organization_code,
            "parent": unit.parent_code,
            "level": (row["parent_level"] or 0) + 1,
        }
        found += [f"{code}: {key} is {row[key]!r}, SIORG has {value!r}" for key, value in expected.items() if row[key] != value]
    return found


def _show_result(jobs: list[dict[str, Any]], seconds: float, connection: Connection, log: Path, structure: Structure) -> int:
    counts = QueueStore(connection).counts()
    requests = [json.loads(line) for line in log.read_text().splitlines()]
    faults = Counter(request["fault"] for request in requests if request["fault"])
    ended = _ended(counts)
    differences = _differences(connection, structure)
    table = Table(title="What the jobs did", show_header=False, min_width=60)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for outcome in ("completed", "failed", "conflict", "skipped"):
        table.add_row(f"items {outcome}", str(getattr(counts, outcome)))
    table.add_row("items left over", str(counts.waiting + counts.processing))
    table.add_row("time", f"{seconds:.1f} s")
    table.add_row("items/s", f"{ended / seconds:.0f}")
    table.add_row("job processes", str(len(jobs)))
    table.add_row("requests to SIORG", str(sum(job["requests"] for job in jobs)))
    table.add_row("  of them failed", str(sum(job["request_errors"] for job in jobs)))
    table.add_row(
        "  faults SIORG had, discovery included",
        ", ".join(f"{name} {n}" for name, n in sorted(faults.items())) or "none",
    )
    table.add_row("retries of items", str(sum(job["retried"] for job in jobs)))
    table.add_row("differences from SIORG", str(len(differences)))
    console.print(table)
    for difference in differences[:10]:
        console.print(difference)
    good = not differences and not counts.waiting and not counts.processing and not counts.failed
    console.print("[green]The local structure is SIORG's.[/green]" if good else "[red]Not in line.[/red]")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
