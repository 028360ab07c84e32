"""Measures what scale.md says: how many items a second one Job, and several at once, bring to an end.

    PYTHONPATH=tests .venv/bin/python docs/load_table.py

Everything is real: an embedded PostgreSQL with fsync on, the simulator as a process of its own that answers after 50 ms, and
`siorg-job run` processes with the settings that a resource has by default. Takes about four minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from siorg_queue import EntityType, NewItem, Operation, QueueStore, connect
from support.postgres import Postgres, embedded_postgres
from support.siorg_server import SiorgServer

LATENCY_MS = "50"
WHOLE = 6000
"""Units of the one organization that waits as a whole."""
SINGLE = 1500
"""Units that are each asked for by themselves."""


def main() -> int:
    """Measure, and print one line for each kind of work and number of Jobs."""
    _say(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    _say("| work | Jobs | items | requests | seconds | items/s |\n|---|---|---|---|---|---|")
    with embedded_postgres(durable=True) as postgres, tempfile.TemporaryDirectory() as folder:
        for jobs in (1, 2, 4):
            _tell("one whole organization", jobs, _whole(postgres, jobs))
        for limit in ("50", "0"):
            for jobs in (1, 2, 4):
                name = f"single units, {limit if limit != '0' else 'any number of'} requests/s"
                _tell(name, jobs, _single(postgres, Path(folder), jobs, limit))
    _say(f"load {os.getloadavg()[0]:.1f}")
    return 0


def _whole(postgres: Postgres, jobs: int) -> Sequence[dict[str, Any]]:
    with _database(postgres) as url, SiorgServer("--synthetic", str(WHOLE), "--latency-ms", LATENCY_MS) as siorg:
        subprocess.run([*_JOB, "discover"], env=_environment(url, siorg.url), check=True, stdout=subprocess.DEVNULL)
        return _drain(jobs, _environment(url, siorg.url))


def _single(postgres: Postgres, folder: Path, jobs: int, limit: str) -> Sequence[dict[str, Any]]:
    """Units that are not here yet: nobody knows that they belong to one organization, so each is a request."""
    snapshot = folder / "flat.json"
    snapshot.write_text(json.dumps(_flat(SINGLE)))
    with _database(postgres) as url, SiorgServer("--snapshot", str(snapshot), "--latency-ms", LATENCY_MS) as siorg:
        with connect(url, application_name="load table") as connection:
            QueueStore(connection).enqueue(
                [NewItem(EntityType.UNIT, code, Operation.CREATION) for code in range(100_000, 100_000 + SINGLE)]
            )
        return _drain(jobs, _environment(url, siorg.url, SIORG_MAX_REQUESTS_PER_SECOND=limit))


@contextmanager
def _database(postgres: Postgres) -> Iterator[str]:
    url = postgres.database()
    yield url
    postgres.drop(url)


_JOB = (sys.executable, "-m", "siorg_job")


def _environment(url: str, siorg_url: str, **more: str) -> dict[str, str]:
    known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    ours = {"DATABASE_URL": url, "SIORG_API_URL": siorg_url, "SIORG_ALLOW_INSECURE": "true", "LOG_LEVEL": "error"}
    return {**known, **ours, **more}


def _drain(jobs: int, environment: dict[str, str]) -> Sequence[dict[str, Any]]:
    """The summaries of so many Jobs that start at once, each with the seconds until the last has ended."""
    started = time.monotonic()
    with ExitStack() as stack:
        running = [
            stack.enter_context(subprocess.Popen([*_JOB, "run"], env=environment, stdout=subprocess.PIPE, text=True))
            for _ in range(jobs)
        ]
        summaries = [json.loads(job.communicate()[0].splitlines()[-1]) for job in running]
    seconds = time.monotonic() - started
    return [{**summary, "wall": seconds} for summary in summaries]


def _tell(work: str, jobs: int, summaries: Sequence[dict[str, Any]]) -> None:
    items, requests = (sum(summary[key] for summary in summaries) for key in ("completed", "requests"))
    seconds = summaries[0]["wall"]
    _say(f"| {work} | {jobs} | {items} | {requests} | {seconds:.1f} | {items / seconds:.0f} |")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _flat(units: int) -> dict[str, Any]:
    """A structure in SIORG's form whose units all hang directly under the organization."""
    base = "https://estruturaorganizacional.dados.gov.br/id"

    def row(code: int, parent: int, kind: str) -> dict[str, Any]:
        return {
            "codigoUnidade": f"{base}/unidade-organizacional/{code}",
            "codigoUnidadePai": f"{base}/unidade-organizacional/{parent}",
            "codigoOrgaoEntidade": f"{base}/unidade-organizacional/471",
            "codigoTipoUnidade": f"{base}/tipo-unidade/{kind}",
            "nome": f"Unidade {code}",
            "sigla": f"U{code}",
            "nivelNormatizacao": "ATO_INTERNO",
            "versaoConsulta": "100.0.0",
        }

    rows = [row(471, 244, "entidade"), *(row(100_000 + n, 471, "unidade-administrativa") for n in range(units))]
    return {"servico": {"codigoErro": 0, "mensagem": "Processamento sem erros", "data": "2026-01-01"}, "unidades": rows}


if __name__ == "__main__":
    sys.exit(main())
