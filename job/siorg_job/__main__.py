"""``siorg-job``: the commands, their exit codes, and what a person sees when something is wrong.

Exit codes: 0 done · 1 error · 2 wrong settings or usage · 3 drift (verify) · 75 try later (database or SIORG unavailable).
"""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

import psycopg

from siorg_job.commands import (
    adopted,
    cleanup,
    conflicts,
    discover,
    doctor,
    enqueue,
    held,
    migrate,
    organizations,
    preview,
    retry,
    run,
    status,
    verify,
)
from siorg_job.commands.context import CommandError, Context, Exit
from siorg_job.settings import ENVIRONMENT, Settings
from siorg_queue import DatabaseUnavailable, UnsuitableDatabase, describe, is_transient
from siorg_runtime.environment import SettingsError
from siorg_runtime.logs import capture_uncaught, configure, logger
from siorg_runtime.redaction import Redactor
from siorg_runtime.version import version

_COMMANDS = (
    run, discover, verify, preview, cleanup, status, conflicts, held, adopted, retry, enqueue, organizations, migrate, doctor,
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="siorg-job",
        description="Brings the local copy of Brazil's federal organization structure in line with SIORG, from a queue in"
        " PostgreSQL.",
        epilog="Settings come from the environment; siorg-job settings lists them. Exit codes: 0 done, 1 error, 2 wrong settings"
        " or usage, 3 drift (verify), 75 try later (database or SIORG unavailable; what was claimed was given back).",
    )
    root.add_argument("--version", action="version", version=f"siorg-job {version()}", help="print the version and exit")
    subparsers = root.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(subparsers)
    subparsers.add_parser("settings", help="list every setting with its default").set_defaults(run=None)
    return root


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; returns its exit code."""
    chosen = parser().parse_args(arguments)
    if chosen.run is None:
        print(ENVIRONMENT.markdown_table())
        return Exit.DONE
    try:
        settings = Settings.from_environment(environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return Exit.USAGE
    redactor = settings.redactor()
    configure(settings.log_format, settings.log_level, redactor)
    capture_uncaught("siorg_job")
    log = logger("siorg_job")
    for notice in settings.notices:
        log.warning(notice)
    context = Context(settings)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        context.stop.set()
        for wake in context.on_stop:
            wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
        # The interpreter puts the defaults back while it ends: a second signal would then spoil an exit code that is decided.
        atexit.register(signal.signal, number, signal.SIG_IGN)
    return _guarded(lambda: chosen.run(chosen, context), redactor)


def _guarded(command: Callable[[], int], redactor: Redactor) -> int:
    """Run a command; whatever it raises becomes a sentence for a person and an exit code."""
    log = logger("siorg_job")
    try:
        return int(command())
    except CommandError as error:
        print(redactor.text(str(error)), file=sys.stderr)
        return error.exit_code
    except UnsuitableDatabase as error:
        print(redactor.text(str(error)), file=sys.stderr)
        return Exit.USAGE
    except DatabaseUnavailable as error:
        log.error("The database is unavailable; try again later", reason=str(error))
        return Exit.TRY_LATER
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        log.error("The database lacks tables or columns of ours: run siorg-job migrate first", reason=describe(error))
        return Exit.ERROR
    except psycopg.Error as error:
        log.error("The database refused", reason=describe(error), sqlstate=error.sqlstate)
        return Exit.TRY_LATER if is_transient(error) else Exit.ERROR
    except BrokenPipeError:
        return Exit.ERROR
    except Exception as error:
        log.error("Unexpected error; this is a fault of ours", error=f"{type(error).__name__}: {error}", exc_info=error)
        return Exit.ERROR


if __name__ == "__main__":
    sys.exit(main())
