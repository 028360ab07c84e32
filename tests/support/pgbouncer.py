"""PgBouncer in transaction mode before an embedded PostgreSQL, where the program is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.fleet import eventually
from support.postgres import Postgres


def program() -> str | None:
    """Path of the program; None where it is not installed."""
    return shutil.which("pgbouncer") or next((path for path in ("/usr/sbin/pgbouncer",) if Path(path).exists()), None)


@contextmanager
def pgbouncer(postgres: Postgres, *, pool_size: int = 4, user: str = "postgres", **settings: str) -> Iterator[int]:
    """Run it; its port on loopback. Lets everybody in as ``user``; ``settings`` are further ones of its own."""
    path = program()
    assert path is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    # Not pytest's folder, which every session that starts makes its owner's alone again.
    with tempfile.TemporaryDirectory(prefix="siorg-pgbouncer-") as name:
        folder = Path(name)
        users = folder / "users.txt"
        users.write_text("".join(f'"{name}" ""\n' for name in {"postgres", user}))
        ini = folder / "pgbouncer.ini"
        ini.write_text(
            f"[databases]\n* = host={postgres.socket_folder} user={user}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"auth_file = {users}\nlogfile = {folder}/log\npool_mode = transaction\n"
            f"default_pool_size = {pool_size}\nmax_client_conn = 100\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        command = [path, str(ini)]
        if os.geteuid() == 0:  # it refuses to run as root
            folder.chmod(0o777)
            command = [path, "-u", pwd.getpwuid(postgres.socket_folder.stat().st_uid).pw_name, str(ini)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: _listening(port), seconds=10)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
