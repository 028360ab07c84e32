"""``siorg-job``: the commands, their exit codes, and what a person sees when something is wrong.

Exit codes: 0 done · 1 error · 2 wrong settings or usage · 3 drift (verify) · 75 try later (database or SIORG unavailable).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence

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
    settings,
    status,
    verify,
)
from siorg_job.commands.context import CommandError, Context, Exit
from siorg_job.settings import Settings
from siorg_queue import DatabaseUnavailable, UnsuitableDatabase, describe, is_transient
from siorg_runtime.environment import SettingsError
from siorg_runtime.logs import capture_uncaught, configure, logger
from siorg_runtime.output import Output, guarded
from siorg_runtime.stopping import StopRequest
from siorg_runtime.version import version

_COMMANDS = (
    run, discover, verify, preview, cleanup, status, conflicts, held, adopted, retry, enqueue, organizations, migrate, doctor,
    settings,
)  # fmt: skip
_WORKING = frozenset({run.run, discover.run, cleanup.run, enqueue.run, migrate.run})
"""What these do is what was asked for; of the others, what they print."""


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
    return root


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ, stop: StopRequest | None = None) -> int:
    """Run one command; returns its exit code. ``stop`` is given by whoever listens already."""
    with guarded() as outputs:
        chosen = parser().parse_args(arguments)
        code = settings.run(chosen, environ) if chosen.run is settings.run else _run(chosen, environ, outputs, stop)
        return _with_output(code, chosen, outputs[0])


def _run(
    chosen: argparse.Namespace, environ: Mapping[str, str], outputs: Sequence[Output | None], stop: StopRequest | None
) -> int:
    try:
        given = Settings.from_environment(environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return Exit.USAGE
    redactor = given.redactor()
    for output in outputs:
        if output is not None:
            output.redactor = redactor
    configure(given.log_format, given.log_level, redactor)
    capture_uncaught("siorg_job")
    log = logger("siorg_job")
    for notice in given.notices:
        log.warning(notice)
    if stop is None:
        stop = StopRequest()
        stop.listen()
    context = Context(given, stop.event, stop.wakes)
    return _guarded(lambda: chosen.run(chosen, context))


def _with_output(code: int, chosen: argparse.Namespace, output: Output | None) -> int:
    """The exit code where what was printed may not have arrived."""
    if output is not None:
        output.flush()
        if output.failed is not None:
            print(f"Standard output could not be written: {output.failed.strerror or output.failed}", file=sys.stderr)
            return Exit.ERROR if code == Exit.DONE and chosen.run not in _WORKING else code
    return code


def _guarded(command: Callable[[], int]) -> int:
    """Run a command; whatever it raises becomes a sentence for a person and an exit code."""
    log = logger("siorg_job")
    try:
        return int(command())
    except CommandError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except UnsuitableDatabase as error:
        print(error, file=sys.stderr)
        return Exit.USAGE
    except DatabaseUnavailable as error:
        log.error("The database is unavailable; try again later", reason=str(error))
        return Exit.TRY_LATER
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        log.error("The database lacks tables or columns of ours: run siorg-job migrate first", reason=describe(error))
        return Exit.ERROR
    except psycopg.Error as error:
        later = is_transient(error)
        message = "The database could not do it now; try again later" if later else "The database refused"
        log.error(message, reason=describe(error), sqlstate=error.sqlstate)
        return Exit.TRY_LATER if later else Exit.ERROR
    except Exception as error:
        log.error("Unexpected error; this is a fault of ours", error=f"{type(error).__name__}: {error}", exc_info=error)
        return Exit.ERROR


if __name__ == "__main__":
    sys.exit(main())
