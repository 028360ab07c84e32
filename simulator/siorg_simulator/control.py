"""Changing the simulator while it runs, for loopback clients: ``/_control/…``."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from siorg_simulator import edits
from siorg_simulator.faults import parse_faults, parse_latency
from siorg_simulator.quirks import parse_quirks
from siorg_simulator.request_log import RequestCounts
from siorg_simulator.rows import parse_body
from siorg_simulator.simulation import Simulation
from siorg_simulator.structure import Snapshot, format_version

HELP = """\
Control while it runs (loopback clients only; never faulted, delayed, counted or logged):
  GET  /_control/state           snapshots, current one, versions, faults, quirks, latency, counts of requests
  PUT  /_control/snapshot        {"path": "NEW.json"} adds it, current; {"index": 0} goes back (or forth) to one
  PUT  /_control/unit            edits the current structure as a new version:
    {"code": 16466, "set": {"nome": "…"}}                   any key of SIORG's rows, complete form included
    {"code": 16466, "remove": true}                         "subtree": true: with all that is below it
    {"add": {"codigoUnidade": 9001, "codigoUnidadePai": 471, "nome": "…"}}
    {"code": 16466, "verbatim": {"nome": 5}}                keys served as they are, for odd data; {} ends it
  PUT  /_control/faults          {"faults": "status=503:0.05,torn=0.01"}
  PUT  /_control/latency         {"latency": "50:10"}
  PUT  /_control/quirks          {"quirks": ["legacy-slugs"]}
  PUT  /_control/down            {"down": true}: every answer is 503 until {"down": false}
  POST /_control/reset-counters  counts from zero"""

PREFIX = "/_control/"

_Handler = Callable[[Simulation, object], Awaitable[None]]


def load_snapshot(path: Path) -> Snapshot:
    """Read a file that holds a SIORG body.

    Raises:
        OSError: It cannot be read.
        SnapshotError: It is no such body.
    """
    return parse_body(path.read_bytes(), str(path))


async def handle(simulation: Simulation, request: web.Request) -> web.Response:
    """Answer a control request."""
    if not _is_loopback(request.remote):
        return _json({"error": "control is for loopback clients"}, 403)
    name = request.path.removeprefix(PREFIX)
    if name == "state":
        if request.method not in ("GET", "HEAD"):
            return _json({"error": "state: GET"}, 405)
        return _json(state(simulation))
    known = _HANDLERS.get(name)
    if known is None:
        return _json({"error": f"there is no {name!r}; known: state, {', '.join(_HANDLERS)}"}, 404)
    method, change = known
    if request.method != method:
        return _json({"error": f"{name}: {method}"}, 405)
    try:
        body = await request.read()
        await change(simulation, json.loads(body) if body else {})
    except OSError as error:
        return _json({"error": f"{name}: cannot read {error.filename}: {error.strerror}"}, 400)
    except ValueError as error:
        return _json({"error": str(error)}, 400)
    return _json(state(simulation))


def state(simulation: Simulation) -> dict[str, object]:
    """What ``GET state`` tells."""
    history = simulation.history
    return {
        "snapshots": [
            {"index": index, "source": edition.source, "units": len(edition.units)}
            for index, edition in enumerate(history.editions)
        ],
        "current": history.current_index,
        "versions": {
            str(code): format_version(version)
            for code, version in history.current.versions.items()
            if code in history.current.units
        },
        "faults": simulation.faults.text,
        "quirks": sorted(simulation.site.quirks),
        "latency": f"{simulation.latency.mean:g}:{simulation.latency.jitter:g}",
        "down": simulation.down,
        "requests": simulation.counts.as_json(),
    }


async def _snapshot(simulation: Simulation, body: object) -> None:
    match body:
        case {"path": str(path), **rest} if not rest:
            snapshot = await asyncio.to_thread(load_snapshot, Path(path))
            simulation.serve(simulation.history.with_snapshot(snapshot))
        case {"index": int(index), **rest} if not rest and not isinstance(index, bool):
            simulation.serve(simulation.history.switched(index))
        case _:
            _refuse('snapshot: wanted {"path": "NEW.json"} or {"index": 0}')


async def _unit(simulation: Simulation, body: object) -> None:
    history = simulation.history
    today = datetime.now(UTC).date().isoformat()
    snapshot = edits.edit(history.current, body, versions=history.editions[-1].versions, date=today)
    simulation.serve(simulation.history.with_snapshot(snapshot))


async def _faults(simulation: Simulation, body: object) -> None:
    match body:
        case {"faults": str(text), **rest} if not rest:
            simulation.faults = parse_faults(text)
        case _:
            _refuse('faults: wanted {"faults": "status=503:0.05"}')


async def _latency(simulation: Simulation, body: object) -> None:
    match body:
        case {"latency": str() | int() | float() as value, **rest} if not rest and not isinstance(value, bool):
            simulation.latency = parse_latency(str(value))
        case _:
            _refuse('latency: wanted {"latency": "50:10"}')


async def _quirks(simulation: Simulation, body: object) -> None:
    match body:
        case {"quirks": list(names), **rest} if not rest:
            simulation.wobble(parse_quirks(str(name) for name in names))
        case _:
            _refuse('quirks: wanted {"quirks": ["legacy-slugs"]}')


async def _down(simulation: Simulation, body: object) -> None:
    match body:
        case {"down": bool(down), **rest} if not rest:
            simulation.down = down
        case _:
            _refuse('down: wanted {"down": true} or {"down": false}')


async def _reset_counters(simulation: Simulation, body: object) -> None:
    del body
    simulation.counts = RequestCounts()


_HANDLERS: dict[str, tuple[str, _Handler]] = {
    "snapshot": ("PUT", _snapshot),
    "unit": ("PUT", _unit),
    "faults": ("PUT", _faults),
    "latency": ("PUT", _latency),
    "quirks": ("PUT", _quirks),
    "down": ("PUT", _down),
    "reset-counters": ("POST", _reset_counters),
}


def _is_loopback(remote: str | None) -> bool:
    try:
        return remote is not None and ipaddress.ip_address(remote.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _json(value: object, status: int = 200) -> web.Response:
    # NaN is no JSON; nothing here can be one.
    return web.json_response(value, status=status, dumps=lambda item: json.dumps(item, ensure_ascii=False, allow_nan=False))


def _refuse(message: str) -> None:
    raise ValueError(message)
