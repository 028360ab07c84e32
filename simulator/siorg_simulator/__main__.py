"""``siorg-simulator``: reads the command line, loads or generates the structures, serves them until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from siorg_simulator import control, synthetic
from siorg_simulator.control import load_snapshot
from siorg_simulator.endpoints import Site
from siorg_simulator.faults import ALLOWED, parse_faults, parse_latency
from siorg_simulator.quirks import DESCRIPTIONS, parse_quirks
from siorg_simulator.request_log import RequestLog
from siorg_simulator.server import serve
from siorg_simulator.simulation import Simulation
from siorg_simulator.structure import History, Snapshot

_EXAMPLES = """\
Examples:
  siorg-simulator --snapshot ufmt-2016-03-02.json --snapshot ufmt-2016-06-30.json --port 8900
  siorg-simulator --synthetic 2000 --synthetic-changes 100 --port 8900 --latency-ms 50:10
  siorg-simulator --synthetic 500 --faults status=503:0.05,timeout=0.01,torn=0.01,garbage=0.01,429=0.02 --retry-after 2
  curl -s http://127.0.0.1:8900/doc/unidade-organizacional/471/completa
  curl -s -X PUT http://127.0.0.1:8900/_control/down -d '{"down": true}'
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="siorg-simulator",
        description="A SIORG to develop and test against. Everything lies under /doc, as in SIORG; answers have the\n"
        "form of 2026. Prints one line when it is ready, and serves until SIGTERM or SIGINT.",
        epilog=f"{_EXAMPLES}\n{control.HELP}\n\nExit codes: 0 stopped; 2 wrong usage, unusable file, or port in use.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    data = parser.add_argument_group("what is served (one of the two is needed)")
    data.add_argument(
        "--snapshot", type=Path, action="append", default=[], metavar="FILE",
        help="a SIORG body {servico, unidades} of any captured form; may be given several times, oldest first: the "
        "last is current, /versao and /alteradas follow from the differences",
    )  # fmt: skip
    data.add_argument(
        "--synthetic", type=_count(1, 1_000_000), metavar="N",
        help="a generated organization of N units, its own row being one of them",
    )  # fmt: skip
    data.add_argument("--seed", type=int, default=0, help="of the generated structure (default 0): same seed, same structure")
    data.add_argument(
        "--organization", type=_count(1, 2**31 - 1), default=471, metavar="CODE",
        help="code of the generated organization (default 471)",
    )  # fmt: skip
    data.add_argument(
        "--dirt", action=argparse.BooleanOptionalAction, default=True,
        help="generate what real data has: padded names, NBSP, CRLF, doubled spaces, duplicate acronyms, children "
        "before parents, null versions, root not first, addresses with integers or text (default: yes)",
    )  # fmt: skip
    data.add_argument(
        "--synthetic-changes", type=_count(1, 1_000_000), metavar="M",
        help="add a second version of the generated structure with M changes (renames, moves, additions, extinctions "
        "of leaves and small subtrees), which is current",
    )  # fmt: skip
    data.add_argument(
        "--history-limit", type=_count(1, 1_000_000), metavar="K",
        help="/alteradas knows only the last K versions of an organization; older ones are codigoErro 103",
    )  # fmt: skip
    network = parser.add_argument_group("where")
    network.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)")
    network.add_argument("--port", type=_count(0, 65535), default=8900, help="port (default 8900; 0: any free one)")
    network.add_argument(
        "--token", type=_token, default=os.environ.get("SIORG_SIMULATOR_TOKEN"),
        help="require `Authorization: Bearer TOKEN`; 401 otherwise. From the environment (SIORG_SIMULATOR_TOKEN) it "
        "stays out of the list of processes",
    )  # fmt: skip
    network.add_argument("--request-log", type=Path, metavar="FILE", help="append one JSON line for each request")
    network.add_argument(
        "--until-stdin-closes", action="store_true",
        help="also stop when standard input closes, as it does when a parent process that holds it dies",
    )  # fmt: skip
    weather = parser.add_argument_group("weather")
    weather.add_argument("--latency-ms", default="0", metavar="MEAN[:JITTER]", help="how long each answer takes (default 0)")
    weather.add_argument("--faults", default="", metavar="LIST", help=f"comma-separated: {ALLOWED}; the P add up to at most 1")
    weather.add_argument(
        "--retry-after", type=_count(0, 86400), metavar="SECONDS", help="Retry-After of 429 and 503 (default: none)"
    )
    weather.add_argument("--fault-seed", type=int, default=0, help="of faults and jitter (default 0)")
    weather.add_argument(
        "--timeout-hold", type=_seconds, default=120.0, metavar="SECONDS",
        help="how long the fault `timeout` holds a request before it closes it without an answer (default 120)",
    )  # fmt: skip
    weather.add_argument(
        "--quirk", action="append", default=[], metavar="NAME", help="a documented wobble; may be given several times"
    )
    weather.add_argument("--list-quirks", action="store_true", help="print the names for --quirk and what each does")
    return parser


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if not low <= number <= high:
            message = f"{text!r} is not a whole number from {low} to {high}"
            raise argparse.ArgumentTypeError(message)
        return number

    return parse


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86400:
        message = f"{text!r} is not a number of seconds above 0, up to 86400"
        raise argparse.ArgumentTypeError(message)
    return seconds


def _token(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        # Not quoted: what was meant as a token stays out of what is printed.
        message = "wanted: printable ASCII without spaces, not empty"
        raise argparse.ArgumentTypeError(message)
    return text


def _snapshots(options: argparse.Namespace) -> list[Snapshot]:
    """The structures that the command line asks for, oldest first.

    Raises:
        ValueError: They contradict each other, or a file cannot be used.
        OSError: A file cannot be read.
    """
    if bool(options.snapshot) == bool(options.synthetic):
        message = "wanted: --snapshot FILE (one or more) or --synthetic N, not both"
        raise ValueError(message)
    if options.snapshot:
        if options.synthetic_changes:
            message = "--synthetic-changes needs --synthetic"
            raise ValueError(message)
        return [load_snapshot(path) for path in options.snapshot]
    first = synthetic.generate(options.synthetic, seed=options.seed, organization=options.organization, dirt=options.dirt)
    if not options.synthetic_changes:
        return [first]
    return [first, synthetic.evolve(first, options.synthetic_changes, seed=options.seed, dirt=options.dirt)]


def _simulation(options: argparse.Namespace) -> Simulation:
    quirks = parse_quirks(options.quirk)
    faults, latency = parse_faults(options.faults), parse_latency(options.latency_ms)
    return Simulation(
        site=Site(History.of(_snapshots(options)), quirks, options.history_limit),
        faults=faults,
        latency=latency,
        token=options.token,
        retry_after=options.retry_after,
        timeout_hold=options.timeout_hold,
        seed=options.fault_seed,
    )


async def _run(options: argparse.Namespace, simulation: Simulation, log: RequestLog) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.until_stdin_closes:
        # Not loop.connect_read_pipe: standard input may be a file or a terminal.
        threading.Thread(target=_wait_for_stdin, args=(loop, stop), daemon=True).start()

    def ready(host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        sys.stdout.write(f"SIORG simulator ready at http://{shown}:{port}/doc\n")
        sys.stdout.flush()

    await serve(simulation, log, host=options.host, port=options.port, ready=ready, stop=stop)


def _wait_for_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0 when it was stopped, 2 when it could not start."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list_quirks:
        for quirk, description in DESCRIPTIONS.items():
            sys.stdout.write(f"{quirk.value:24} {description}\n")
        return 0
    try:
        simulation = _simulation(options)
        log = RequestLog(options.request_log)
    except OSError as error:
        return _refused(f"cannot use {error.filename}: {error.strerror}")
    except ValueError as error:
        return _refused(str(error))
    try:
        asyncio.run(_run(options, simulation, log))
    except OSError as error:
        return _refused(f"cannot listen on {options.host} port {options.port}: {error.strerror or error}")
    finally:
        log.close()
    return 0


def _refused(message: str) -> int:
    sys.stderr.write(f"siorg-simulator: {message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
