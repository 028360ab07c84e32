"""The SIORG simulator as a real process, for tests of everything that talks to SIORG."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

REPOSITORY = Path(__file__).resolve().parents[2]

CAPTURES = REPOSITORY.parent / "shared" / "data" / "siorg"
"""Captured answers of SIORG, where this checkout has them beside it."""

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0


class SimulatorError(RuntimeError):
    """The simulator did not start, or refused a control request."""


class SiorgServer:
    """``python -m siorg_simulator …`` on a free port, from entering the context (or ``start``) until leaving it.

    The simulator also ends by itself when this process dies, whatever kills it: it watches its standard input.

    Args:
        arguments: As on the command line, without --port and --request-log.
        request_log: Where requests are logged; needed for ``requests()``.
        token: The token to require, given by the environment so that no process list shows it.
        port: 0 for a free one; the same port again to come back where clients expect it.
    """

    def __init__(
        self,
        *arguments: str | Path,
        request_log: Path | None = None,
        port: int = 0,
        token: str | None = None,
    ) -> None:
        self._arguments: Sequence[str] = [str(argument) for argument in arguments]
        self._request_log = request_log
        self._port = port
        self._token = token
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: BinaryIO | None = None
        self._said = ""
        self._url = ""

    def __enter__(self) -> SiorgServer:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, ending in ``/doc``; it stays the same when the server is started again."""
        return self._url

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def stderr(self) -> str:
        """What the simulator has written to standard error since it was started last."""
        if self._stderr is not None:
            self._stderr.seek(0)
            self._said = self._stderr.read().decode(errors="replace")
        return self._said

    def start(self) -> SiorgServer:
        """Start it and wait until it answers; also after ``stop`` or ``kill``, then on the same port."""
        if self._process is not None:
            raise SimulatorError("it runs already")
        command = [sys.executable, "-m", "siorg_simulator", *self._arguments]
        command += ["--port", str(self._port), "--until-stdin-closes"]
        if self._request_log is not None:
            command += ["--request-log", str(self._request_log)]
        path = os.pathsep.join(filter(None, [str(REPOSITORY / "simulator"), os.environ.get("PYTHONPATH")]))
        # A file, not a pipe: nobody has to read it for the simulator to go on.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed when the process has ended
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": path} | ({"SIORG_SIMULATOR_TOKEN": self._token} if self._token else {}),
        )
        try:
            line = self._first_line(self._process)
        except BaseException:
            self.kill()
            raise
        self._url = line.rsplit(" ", 1)[1]
        self._port = int(self._url.rsplit(":", 1)[1].split("/", 1)[0])
        return self

    def _first_line(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        deadline = time.monotonic() + _START_SECONDS
        text = b""
        while not text.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise SimulatorError(f"not ready after {_START_SECONDS:g} s; standard error: {self.stderr}")
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                code = process.wait(_STOP_SECONDS)
                raise SimulatorError(f"ended with exit code {code} instead of starting; standard error: {self.stderr}")
            text += piece
        line = text.decode().strip()
        if not line.startswith("SIORG simulator ready at http://"):
            raise SimulatorError(f"unexpected first line {line!r}")
        return line

    def control(self, method: str, name: str, body: object = None) -> Any:
        """A request to ``/_control/<name>``; the answer (the simulator's state).

        Raises:
            SimulatorError: It was refused; the message says why.
        """
        self._running()
        request = urllib.request.Request(
            self._url.removesuffix("/doc") + f"/_control/{name}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        # Not through a proxy of the environment: this is loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise SimulatorError(f"{error.code}: {error.read().decode(errors='replace')}") from None

    def requests(self) -> list[dict[str, Any]]:
        """All requests so far, oldest first, as the request log has them."""
        if self._request_log is None:
            raise SimulatorError("no request_log was given")
        if not self._request_log.exists():
            return []
        text = self._request_log.read_text(encoding="utf-8")
        # What follows the last line end is a line that is being written.
        return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]

    def stop(self) -> int | None:
        """End it as an operator would, and wait; its exit code (None if it was not running)."""
        return self._end(kill=False)

    def kill(self) -> int | None:
        """End it as a crash would."""
        return self._end(kill=True)

    def _end(self, *, kill: bool) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            process.kill() if kill else process.terminate()
            return process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise SimulatorError(f"did not stop; standard error: {self.stderr}") from None
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            if self._stderr is not None:
                self._said = self.stderr
                self._stderr.close()
                self._stderr = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise SimulatorError("it does not run")
        return self._process
