"""`make bench`: the figures that the design promises, as ratios within one run where a ratio is possible.

Everything is real: an embedded PostgreSQL with fsync on, the simulator as a process of its own, and job processes.
Exit 1 when a target is missed. `--only NAME` runs one part, `--list` names them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from siorg_queue import Connection, EntityType, NewItem, Operation, Outcome, QueueStore, Verdict, connect
from support.postgres import Postgres, embedded_postgres
from support.siorg_server import SiorgServer

ROOT = 471


@dataclass(frozen=True)
class Figure:
    """One line of the result."""

    name: str
    value: float
    unit: str
    target: str
    met: bool


@dataclass
class Bench:
    """What every part is given."""

    postgres: Postgres
    folder: Path

    @contextmanager
    def database(self) -> Iterator[tuple[str, Connection]]:
        url = self.postgres.database()
        with connect(url, application_name="bench") as connection:
            yield url, connection
        self.postgres.drop(url)

    def job(self, url: str, siorg_url: str, *arguments: str, **environment: str) -> dict[str, Any]:
        """Run one siorg-job process to its end; returns its summary, CPU seconds and peak memory."""
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "DATABASE_URL": url,
            "SIORG_API_URL": siorg_url,
            "SIORG_ALLOW_INSECURE": "true",
            "LOG_LEVEL": "warning",
            **environment,
        }
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "siorg_job", *arguments], env=env, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"siorg-job {' '.join(arguments)} exited {process.returncode}")
        summary = json.loads(output.splitlines()[-1]) if arguments[0] == "run" else {}
        return {
            **summary,
            "wall": time.monotonic() - started,
            "cpu": usage.ru_utime + usage.ru_stime,
            "peak_mib": usage.ru_maxrss / 1024,
        }


def flat_structure(units: int) -> dict[str, Any]:
    """A structure in SIORG's form whose units all hang directly under the organization."""
    base = "https://estruturaorganizacional.dados.gov.br/id"

    def row(code: int, kind: str, name: str) -> dict[str, Any]:
        return {
            "codigoUnidade": f"{base}/unidade-organizacional/{code}",
            "codigoUnidadePai": f"{base}/unidade-organizacional/{244 if code == ROOT else ROOT}",
            "codigoOrgaoEntidade": f"{base}/unidade-organizacional/{ROOT}",
            "codigoTipoUnidade": f"{base}/tipo-unidade/{kind}",
            "nome": name,
            "sigla": f"U{code}",
            "codigoEsfera": f"{base}/esfera/1",
            "codigoPoder": f"{base}/poder/1",
            "codigoNaturezaJuridica": f"{base}/natureza-juridica/2",
            "codigoSubNaturezaJuridica": None,
            "nivelNormatizacao": "ATO_INTERNO",
            "versaoConsulta": "100.0.0",
            "dataInicialVersaoConsulta": "2020-01-01",
            "dataFinalVersaoConsulta": None,
            "operacao": None,
        }

    rows = [row(ROOT, "entidade", "Universidade de Teste")]
    rows += [row(100_000 + n, "unidade-administrativa", f"Unidade {n}") for n in range(units)]
    return {"servico": {"codigoErro": 0, "mensagem": "Processamento sem erros", "data": "2026-01-01"}, "unidades": rows}


def government(organizations: int, units: int, largest: int) -> Iterator[dict[str, Any]]:
    """As many units in as many organizations, one of them with ``largest``; ten below each, with telephones and an address."""
    base = "https://estruturaorganizacional.dados.gov.br/id"
    code = 1_000_000
    for number in range(organizations):
        home = ROOT if number == 0 else 100_000 + number
        others, more = divmod(units - largest, organizations - 1)
        size = largest if number == 0 else others + (number <= more)
        codes = [home, *range(code, code + size - 1)]
        code += size - 1
        for position, unit in enumerate(codes):
            yield {
                "codigoUnidade": f"{base}/unidade-organizacional/{unit}",
                "codigoUnidadePai": f"{base}/unidade-organizacional/{244 if unit == home else codes[(position - 1) // 10]}",
                "codigoOrgaoEntidade": f"{base}/unidade-organizacional/{home}",
                "codigoTipoUnidade": f"{base}/tipo-unidade/{'entidade' if unit == home else 'unidade-administrativa'}",
                "nome": f"Coordenação de Planejamento e Desenvolvimento Institucional {unit}",
                "sigla": f"CPDI{unit}",
                "codigoEsfera": f"{base}/esfera/1",
                "codigoPoder": f"{base}/poder/1",
                "codigoNaturezaJuridica": f"{base}/natureza-juridica/2",
                "nivelNormatizacao": "ATO_INTERNO",
                "versaoConsulta": "100.0.0",
                "areaAtuacao": "FIM",
                "competencia": "Planejar, coordenar e executar as atividades da sua área. " * 3,
                "contato": [{"telefone": ["(65) 3615-8000"], "email": [f"u{unit}@example.org"], "site": []}],
                "endereco": [{"logradouro": "Avenida Fernando Corrêa da Costa", "numero": "2367", "cep": "78060900", "uf": "MT"}],
                "operacao": None,
            }


def enqueue(connection: Connection, codes: range) -> None:
    QueueStore(connection).enqueue([NewItem(EntityType.UNIT, code, Operation.CREATION) for code in codes])


def one_by_one(bench: Bench) -> list[Figure]:
    """Distinct units, each its own request, at 50 ms: in parallel against one at a time."""
    snapshot = bench.folder / "flat.json"
    snapshot.write_text(json.dumps(flat_structure(4000)))
    with SiorgServer("--snapshot", str(snapshot), "--latency-ms", "50") as siorg:
        rates = {}
        for concurrency, codes in ((1, range(100_000, 100_080)), (64, range(100_080, 103_080))):
            with bench.database() as (url, connection):
                enqueue(connection, codes)
                done = bench.job(
                    url,
                    siorg.url,
                    "run",
                    WORKER_CONCURRENCY=str(concurrency),
                    WORKER_BATCH_SIZE=str(min(concurrency, 64)),
                    SIORG_MAX_REQUESTS_PER_SECOND="0",
                )
                assert done["completed"] == len(codes), done
                rates[concurrency] = done["completed"] / done["duration_seconds"]
    ratio = rates[64] / rates[1]
    return [
        Figure("one at a time", rates[1], "items/s", "", True),
        Figure("64 in flight", rates[64], "items/s", "", True),
        Figure("ratio", ratio, "x", ">= 20", ratio >= 20),
    ]


def whole_organization(bench: Bench) -> list[Figure]:
    """A whole organization is waiting: how many requests its items cost."""
    with bench.database() as (url, connection), SiorgServer("--synthetic", "2000", "--latency-ms", "50") as siorg:
        bench.job(url, siorg.url, "discover")
        done = bench.job(url, siorg.url, "run")
        items = done["completed"]
        del connection
    per_request = items / done["requests"]
    return [
        Figure("items", items, "items", "", True),
        Figure("speed", items / done["duration_seconds"], "items/s", "", True),
        Figure("items a request", per_request, "items", ">= 100", per_request >= 100),
    ]


def queue_alone(bench: Bench) -> list[Figure]:
    """Claim and finish without any fetch, one process, one connection."""
    figures = []
    total = 20_000
    for batch in (10, 50, 200):
        with bench.database() as (_, connection):
            store = QueueStore(connection)
            store.enqueue([NewItem(EntityType.UNIT, code, Operation.UPDATE) for code in range(1, total + 1)])
            connection.execute("VACUUM ANALYZE siorg_sync_queue")
            started = time.monotonic()
            while items := store.claim(batch, lease=timedelta(seconds=60), worker="bench").items:
                store.finish([Verdict(item, Outcome.COMPLETED) for item in items])
            rate = total / (time.monotonic() - started)
        figures.append(
            Figure(f"batches of {batch}", rate, "items/s", ">= 5000" if batch == 50 else "", batch != 50 or rate >= 5000)
        )
    return figures


def memory(bench: Bench) -> list[Figure]:
    """The largest organization there is, and 20,000 items in one process."""
    with SiorgServer("--synthetic", "6600") as siorg:
        with bench.database() as (url, connection):
            bench.job(url, siorg.url, "discover")
            first = bench.job(url, siorg.url, "run")
        with bench.database() as (url, connection):
            bench.job(url, siorg.url, "discover")
            for _ in range(2):  # the same units again and again, as an API server's inserts: nothing deduplicates those
                connection.execute(
                    "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
                    " SELECT 'UNIT', siorg_code, 'UPDATE', payload FROM siorg_sync_queue WHERE operation = 'CREATION'"
                )
            third = bench.job(url, siorg.url, "run")
    growth = third["peak_mib"] - first["peak_mib"]
    return [
        Figure("peak, 6,600 units", first["peak_mib"], "MiB", "< 200", first["peak_mib"] < 200),
        Figure("speed, 6,600 units", first["completed"] / first["duration_seconds"], "items/s", "", True),
        Figure("items of the long run", third["completed"], "items", "", True),
        Figure("peak, the long run", third["peak_mib"], "MiB", "< 200", third["peak_mib"] < 200),
        Figure("growth", growth, "MiB", "< 20", growth < 20),
    ]


def verification(bench: Bench) -> list[Figure]:
    """328 organizations with 74,350 units at 50 ms, 300 of them missing in SIORG: every row is compared."""
    snapshot = bench.folder / "government.json"
    with snapshot.open("w") as file:  # row by row: the peak of a child counts what its parent has in memory
        file.write('{"servico": {"codigoErro": 0, "mensagem": "Processamento sem erros", "data": "2026-01-01"}, "unidades": [')
        for number, row in enumerate(government(328, 74_350, 6_600)):
            file.write("," * (number > 0) + json.dumps(row))
        file.write("]}")
    with bench.database() as (url, connection):
        connection.cursor().executemany(
            "INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code) VALUES (%s, %s, %s, %s, 1)",
            [(code, f"O{code}", f"Organização {code}", f"{code:014d}") for code in range(100_001, 100_328)],
        )
        with SiorgServer("--snapshot", str(snapshot)) as siorg:
            for command in ("discover", "run"):
                bench.job(url, siorg.url, command, SIORG_MAX_REQUESTS_PER_SECOND="0", WORKER_BATCH_SIZE="200")
        connection.execute("UPDATE organizational_units SET siorg_code = siorg_code + 10000000 WHERE siorg_code % 248 = 0")
        connection.execute("VACUUM ANALYZE")
        with SiorgServer("--snapshot", str(snapshot), "--latency-ms", "50") as siorg:
            done = bench.job(url, siorg.url, "verify", "--stored")
        (stored,) = connection.execute("SELECT * FROM siorg_verifications").fetchall()
    return [
        Figure("rows", stored["compared"], "rows", "", True),
        Figure("drift", stored["drift"], "fields", "", True),
        Figure("duration", done["wall"], "s", "< 300", done["wall"] < 300),
        Figure("CPU", done["cpu"], "s", "", True),
        Figure("peak", done["peak_mib"], "MiB", "< 200", done["peak_mib"] < 200),
    ]


def empty_queue(bench: Bench) -> list[Figure]:
    """`siorg-job run` with nothing to do, against the bare imports."""

    def cpu(command: list[str], env: dict[str, str]) -> float:
        best = float("inf")
        for _ in range(7):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return best

    with bench.database() as (url, _):
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "DATABASE_URL": url,
            "SIORG_API_URL": "http://127.0.0.1:9/doc",
            "SIORG_ALLOW_INSECURE": "true",
        }
        bare = cpu([sys.executable, "-c", "import psycopg, httpx2, pydantic"], env)
        run = cpu([sys.executable, "-m", "siorg_job", "run"], env)
    return [
        Figure("bare imports", bare, "s CPU", "", True),
        Figure("run, empty queue", run, "s CPU", "", True),
        Figure("ratio", run / bare, "x", "<= 1.5", run / bare <= 1.5),
    ]


PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "one-by-one": one_by_one,
    "whole-organization": whole_organization,
    "queue": queue_alone,
    "memory": memory,
    "verify": verification,
    "empty-queue": empty_queue,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="run this part only (repeatable)")
    parser.add_argument("--list", action="store_true", help="name the parts")
    arguments = parser.parse_args()
    if arguments.list:
        for name, part in PARTS.items():
            print(f"{name:20} {part.__doc__}")
        return 0
    missed = 0
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(durable=True) as postgres:
        for name in arguments.only or PARTS:
            print(f"{name}: {PARTS[name].__doc__}", flush=True)
            for figure in PARTS[name](Bench(postgres, Path(folder))):
                verdict = "" if not figure.target else f"   target {figure.target}: {'met' if figure.met else 'MISSED'}"
                print(f"  {figure.name:24} {figure.value:12,.2f} {figure.unit}{verdict}", flush=True)
                missed += not figure.met
    print("all targets met" if not missed else f"{missed} targets missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
