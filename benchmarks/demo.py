"""`make demo`: the main job, whole, on this machine, from nothing.

An embedded PostgreSQL (or the database of DATABASE_URL), the SIORG simulator with a few faults, one organization of some
2,000 generated units, and `siorg-operator local` with a SiorgSyncWorker: job processes in place of Jobs, scaled from zero to
several and back to zero, once for the first discovery and once more after SIORG has changed; in between a person edits one unit.
Ends with a table and with what `siorg-job verify` says. Exit 0 only when that edit is all that differs, nothing failed, and the
operator did scale.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from siorg_job.siorg.model import Structure
from siorg_job.siorg.rows import read_structure
from siorg_operator.api.resource import read_file
from siorg_operator.decide import manifests
from siorg_queue import Connection, DatabaseUnavailable, QueueStore, connect
from support.postgres import embedded_postgres
from support.siorg_server import SiorgServer

ORGANIZATION = 471
RESOURCE = Path(__file__).with_name("siorgsyncworker.yaml")
FAULTS = "status=503:0.1,torn=0.08,garbage=0.05,429=0.05"  # few requests are needed, so that few faults need a high rate
LONGEST_SECONDS = 150
DRIFT = 3
EDITED = "Nome que uma pessoa escreveu"

console = Console()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=2000, help="units of the generated organization (default 2000)")
    parser.add_argument("--plain", action="store_true", help="lines instead of a live view, also on a terminal")
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
            "SIORG_TIMEOUT_SECS": "2",
        }
        # As the CronJob of a cluster would: how often an item may be tried is written when it is put on the queue.
        of_resource = manifests.environment(read_file(RESOURCE.read_text(encoding="utf-8")))
        discovering = {**of_resource, **environment}
        then = _structure(siorg.url).units
        siorg.control("PUT", "snapshot", {"index": 0})
        now = _structure(siorg.url).units
        edited = min(code for code, unit in now.items() if code != ORGANIZATION and code in then and then[code].name == unit.name)
        try:
            connection = stack.enter_context(connect(url, application_name="siorg-demo"))
        except DatabaseUnavailable as error:
            console.print(f"[red]The database of DATABASE_URL does not answer: {error}[/red]")
            return 75
        if foreign := _foreign_units(connection, {*now, *then}):
            console.print(
                f"[red]The database of DATABASE_URL keeps {foreign} units that are not this demo's: it writes generated units,"
                " so give it a database of its own.[/red]"
            )
            return 2
        _job(["migrate"], environment, folder)
        console.print(f"[bold]$ siorg-operator local {RESOURCE.name}[/bold]")
        command = [sys.executable, "-m", "siorg_operator", "local", str(RESOURCE), "--logs", str(folder / "jobs")]
        operator = subprocess.Popen([*command, *(["--plain"] if arguments.plain else [])], env=environment)
        stack.callback(_end, operator)
        store = QueueStore(connection)
        for index in range(2):
            if index:
                connection.execute("UPDATE organizational_units SET name = %s WHERE siorg_code = %s", [EDITED, edited])
            siorg.control("PUT", "snapshot", {"index": index})
            _job(["discover"], discovering, folder)
            _wait_for(lambda: _drained(store), operator)
        time.sleep(1)  # the last Jobs see that nothing is left, and end
        code = _end(operator)
        good = _show_result(code, folder / "jobs", connection, log)
        return 0 if _verify(edited, environment, folder) and good else 1


@contextlib.contextmanager
def _embedded() -> Iterator[str]:
    with embedded_postgres(durable=True) as postgres:
        yield postgres.database(migrated=False)


def _job(command: list[str], environment: dict[str, str], folder: Path, *, fine: tuple[int, ...] = (0,)) -> int:
    """A command of the job, its log in a file: the operator has the screen."""
    log = folder / f"{command[0]}.log"
    for _ in range(10):  # SIORG has faults here: discover may have to be asked again, as a CronJob would
        with log.open("w") as output:
            done = subprocess.run(
                [sys.executable, "-m", "siorg_job", *command], env=environment, check=False, stdout=output, stderr=output
            )
        if done.returncode != 75:
            break
    if done.returncode not in fine:
        console.print(log.read_text()[-2000:])
        raise SystemExit(done.returncode)
    return done.returncode


def _drained(store: QueueStore) -> bool:
    """Whether nothing waits and nothing is in work; by one look, for between two an item may go from one to the other."""
    counts = store.counts()
    return counts.waiting == 0 and counts.processing == 0


def _wait_for(condition: Callable[[], bool], operator: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not condition():
        if operator.poll() is not None:
            raise SystemExit(f"the operator ended by itself with exit code {operator.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"not done within {LONGEST_SECONDS} s")
        time.sleep(0.1)


def _end(operator: subprocess.Popen[bytes]) -> int:
    """Drain and exit, as Ctrl-C makes it; its exit code. By SIGTERM: what a shell starts in the background ignores SIGINT."""
    if operator.poll() is None:
        operator.send_signal(signal.SIGTERM)
    try:
        return operator.wait(60)
    except subprocess.TimeoutExpired:
        operator.kill()
        return operator.wait()


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


def _verify(edited: int, environment: dict[str, str], folder: Path) -> bool:
    """Show what ``siorg-job verify`` says; whether it names what a person edited here, and nothing else."""
    console.print("[bold]$ siorg-job verify[/bold]")
    found = folder / "departures.csv"
    ended = _job(["verify", "--csv", str(found)], environment, folder, fine=(0, DRIFT))
    console.print((folder / "verify.log").read_text(), markup=False, highlight=False)
    with found.open(encoding="utf-8") as file:
        departures = [(row["kind"], row["code"], row["field"], row["here"]) for row in csv.DictReader(file)]
    good = (ended, departures) == (0, [("edited", str(edited), "name", EDITED)])
    console.print(
        f"[green]The local structure is SIORG's, but for the name of unit {edited}, which a person edited.[/green]"
        if good
        else f"[red]Not in line: a person's name of unit {edited} should be all that differs.[/red]"
    )
    return good


def _show_result(code: int, jobs: Path, connection: Connection, log: Path) -> bool:
    """Show what became of the items; whether the operator scaled, and none is left or failed."""
    counts = QueueStore(connection).counts()
    requests = [json.loads(line) for line in log.read_text().splitlines()]
    faults = Counter(request["fault"] for request in requests if request["fault"])
    summaries: list[dict[str, Any]] = [json.loads(file.read_text()) for file in jobs.glob("*.summary") if file.stat().st_size]
    table = Table(title="The items", show_header=False, min_width=60)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for outcome in ("completed", "failed", "conflict", "skipped"):
        table.add_row(f"items {outcome}", str(getattr(counts, outcome)))
    table.add_row("items left over", str(counts.waiting + counts.processing))
    table.add_row("faults SIORG had", ", ".join(f"{name} {n}" for name, n in sorted(faults.items())) or "none")
    table.add_row("exit code of the operator", str(code))
    console.print(table)
    if counts.failed:
        reasons = connection.execute(
            "SELECT siorg_code, operation, attempts, last_error FROM siorg_sync_queue WHERE status = 'FAILED' ORDER BY 1 LIMIT 10"
        )
        for row in reasons:
            console.print("{siorg_code} {operation}: failed after {attempts} attempts: {last_error}".format_map(row))
    return code == 0 and len(summaries) > 1 and not counts.waiting and not counts.processing and not counts.failed


if __name__ == "__main__":
    sys.exit(main())
