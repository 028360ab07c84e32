"""`make bench`: the figures that the design promises, as ratios within one run where a ratio is possible.

Everything is real: PostgreSQL with fsync on (an embedded one, or that of `--server`), the simulator as a process of its own, and
job processes. Each part prints its figures and writes them to benchmarks/results. Exit 1 when a target is missed. `--only NAME`
runs one part, `--list` names them, `--plot` draws charts of what was written and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import charts
from parts.contenders import INSTALL
from parts.figure import Figure
from parts.latency import insert_to_claim
from parts.load import first_load, nothing_changed, verification
from parts.process import empty_queue, memory
from parts.queue import beside_others
from parts.rows import many_rows
from parts.server import Server
from parts.single import one_by_one, whole_organization
from parts.surroundings import Bench, Sizes
from support.postgres import embedded_postgres

RESULTS = Path(__file__).with_name("results")
CHARTS = Path(__file__).parents[1] / "docs" / "charts"

PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "queue": beside_others,
    "one-by-one": one_by_one,
    "whole-organization": whole_organization,
    "load": first_load,
    "discovery": nothing_changed,
    "verify": verification,
    "rows": many_rows,
    "latency": insert_to_claim,
    "empty-queue": empty_queue,
    "memory": memory,
}


def main() -> int:
    arguments = arguments_parser().parse_args()
    if arguments.list:
        for name, part in PARTS.items():
            print(f"{name:20} {part.__doc__}")
        return 0
    if arguments.plot:
        return _plot()
    sizes = Sizes(arguments.units, arguments.items, arguments.rounds, arguments.large)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: no server is left behind
    missed = 0
    with tempfile.TemporaryDirectory() as folder, _server(arguments.server) as server:
        bench = Bench(server, Path(folder), sizes)
        machine = _machine(server)
        try:
            for name in arguments.only or PARTS:
                missed += _run(name, bench, machine)
        finally:
            if "government" in bench.__dict__:
                bench.government.close()
    print("all targets met" if not missed else f"{missed} targets missed")
    return 1 if missed else 0


def arguments_parser() -> argparse.ArgumentParser:
    """What may stand in ARGS."""
    parser, default = argparse.ArgumentParser(description=__doc__), Sizes()
    parser.add_argument("--only", choices=list(PARTS), action="append", help="run this part only (repeatable)")
    parser.add_argument("--list", action="store_true", help="name the parts")
    parser.add_argument("--plot", action="store_true", help="draw docs/charts from what was written; needs the extras 'bench'")
    parser.add_argument("--units", type=int, default=default.units, help="units of the whole government (default %(default)s)")
    parser.add_argument("--items", type=int, default=default.items, help="items of a queue without SIORG (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="of what is compared (default %(default)s)")
    parser.add_argument("--large", action="store_true", help="also with ten million rows: some 10 GB, and long to write")
    parser.add_argument(
        "--server",
        metavar="URL",
        help="superuser's URL of a PostgreSQL of your own; with pg_stat_statements preloaded, statements are counted too",
    )
    return parser


@contextmanager
def _server(url: str | None) -> Iterator[Server]:
    if url is not None:
        with closing(Server(url)) as server:
            yield server
        return
    with embedded_postgres(durable=True) as postgres, closing(Server(postgres.url())) as server:
        yield server


def _run(name: str, bench: Bench, machine: dict[str, Any]) -> int:
    """Run a part, print and write what it found; how many targets it missed."""
    print(f"{name}: {PARTS[name].__doc__}", flush=True)
    began = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "load_average": os.getloadavg()}
    figures = PARTS[name](bench)
    for figure in figures:
        print(figure.line(), flush=True)
    RESULTS.mkdir(exist_ok=True)
    result = {
        "part": name,
        **began,
        "machine": machine,
        "sizes": asdict(bench.sizes),
        "figures": [{**asdict(figure), "met": figure.met} for figure in figures],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return sum(not figure.met for figure in figures)


def _machine(server: Server) -> dict[str, Any]:
    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": server.version,
        "durable": server.is_durable,
    }
    print(", ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _plot() -> int:
    if find_spec("matplotlib") is None:
        print(f"matplotlib is not installed: {INSTALL}", file=sys.stderr)
        return 2
    written = charts.draw(RESULTS, CHARTS)
    print("\n".join(map(str, written)) if written else "nothing has been measured yet: run `make bench` first")
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
