"""The SIORG simulator as a real process, for tests of everything that talks to SIORG."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]

CAPTURES = REPOSITORY.parent / "shared" / "data" / "siorg"
"""Captured answers of SIORG, where this checkout has them beside it."""

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_READY = "SIORG simulator ready at "


class SimulatorError(RuntimeError):
    """The simulator did not start or stop, or refused a control request."""


class SiorgServer:
    """``python -m siorg_simulator …`` on a free port, from entering the context until leaving it.

    The simulator also ends by itself when this process dies, whatever kills it: it watches its standard input.

    Args:
        arguments: As on the command line, without --port and --request-log.
        request_log: Where requests are logged; needed for ``requests()``.
        token: The token to require, given by the environment so that no process list shows it.

    Attributes:
        url: The base URL, ending in ``/doc``.
    """

    def __init__(self, *arguments: str | Path, request_log: Path | None = None, token: str | None = None) -> None:
        self._arguments = [*map(str, arguments), "--port", "0", "--until-stdin-closes"]
        self._request_log = request_log
        if request_log is not None:
            self._arguments += ["--request-log", str(request_log)]
        path = os.pathsep.join(filter(None, [str(REPOSITORY / "simulator"), os.environ.get("PYTHONPATH")]))
        self._environment = {**os.environ, "PYTHONPATH": path} | ({"SIORG_SIMULATOR_TOKEN": token} if token else {})
        self.url = ""

    @property
    def stderr(self) -> str:
        """What the simulator has written to standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def __enter__(self) -> Self:
        # A file, not a pipe: nobody has to read it for the simulator to go on.
        self._stderr = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "siorg_simulator", *self._arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._stderr, env=self._environment)
        assert self.process.stdout is not None
        said, _, _ = select.select([self.process.stdout], [], [], _START_SECONDS)
        line = self.process.stdout.readline().decode() if said else ""
        if not line.startswith(_READY):
            code = self.process.wait(_STOP_SECONDS) if said else "none yet"
            message = f"not ready but {line!r}; exit code {code}; standard error: {self.stderr}"
            self.__exit__()
            raise SimulatorError(message)
        self.url = line.removeprefix(_READY).strip()
        return self

    def __exit__(self, *_error: object) -> None:
        with self._stderr, self.process:  # closes the pipes too
            self.process.terminate()
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise SimulatorError(f"did not stop; standard error: {self.stderr}") from None

    def control(self, method: str, name: str, body: object = None) -> Any:
        """A request to ``/_control/<name>``; the answer (the simulator's state).

        Raises:
            SimulatorError: It was refused; the message says why.
        """
        request = urllib.request.Request(
            self.url.removesuffix("/doc") + f"/_control/{name}",
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
