"""``siorg-operator``: the commands. Each imports what it needs when it runs."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence

from siorg_operator.api.errors import ResourceError
from siorg_operator.cli import DONE, USAGE, UsageError
from siorg_operator.settings import ENVIRONMENT, OperatorSettings, read
from siorg_runtime.environment import SettingsError
from siorg_runtime.listing import add_options, print_listing
from siorg_runtime.version import version


def parser() -> argparse.ArgumentParser:
    """The command line of ``siorg-operator``."""
    root = argparse.ArgumentParser(
        prog="siorg-operator",
        description="Scales Jobs that drain the SIORG sync queue, as a SiorgSyncWorker resource says.",
        epilog="Exit codes: 0 done, 1 error, 2 wrong settings, resource or usage,"
        " 75 try later (cluster or database unavailable).",
    )
    root.add_argument("--version", action="version", version=f"siorg-operator {version()}")
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="watch the resources of one namespace and scale their Jobs (in a cluster)",
        description="Watches the SiorgSyncWorkers of one namespace until SIGTERM. Settings come from the environment:"
        " siorg-operator settings lists them.",
    )
    run.set_defaults(command=_run)

    local = commands.add_parser(
        "local",
        help="run a resource on this machine: job processes instead of Job pods",
        description="The same decisions as in a cluster, with job processes in place of Jobs. DATABASE_URL, SIORG_API_TOKEN and,"
        " if set, SIORG_API_URL (with SIORG_ALLOW_INSECURE) of the environment stand for the Secrets and the URL. Ctrl-C, SIGTERM"
        " or SIGHUP: job processes finish what they hold or give it back, then it exits 0; a second one ends them at once. The"
        " schedules of cleanup and discovery are the cluster's: here run siorg-job discover and siorg-job cleanup.",
    )
    local.add_argument("file", help="a YAML file with one SiorgSyncWorker; - for standard input")
    local.add_argument(
        "--until-empty",
        action="store_true",
        help="exit once nothing waits and nothing runs; with 2 when the resource or the settings never let it come to that, with"
        " 75 when the queue could not be read for 30 s or the database says siorg.sync_enabled false, with 1 when job processes"
        " could not be started for 30 s (a full disk) or failed three times in a row (75 where the database was the cause)",
    )
    local.add_argument("--logs", metavar="FOLDER", help="where the job processes' logs go (default: a new temporary folder)")
    local.add_argument("--plain", action="store_true", help="lines instead of a live view, also on a terminal")
    local.set_defaults(command=_local)

    explain = commands.add_parser(
        "explain",
        help="print the decision that would be made now, and every limit that shaped it",
        description="FILE: a manifest; the queue is that of DATABASE_URL, or what --depth says. NAME: a resource of the cluster,"
        " with its own Secret, Jobs and status. Of the operator's settings (SIORG_OPERATOR_…) those that are set here are used:"
        " give the same as it has. Nothing is launched or written.",
    )
    explain.add_argument("what", metavar="FILE|NAME", help="a YAML file (or -), or the name of a resource in the cluster")
    explain.add_argument(
        "-n",
        "--namespace",
        help="of NAME (default: SIORG_OPERATOR_NAMESPACE, POD_NAMESPACE, that of the kubeconfig's context, or default)",
    )
    explain.add_argument(
        "--depth",
        type=_count,
        metavar="N",
        help="suppose that N items are claimable; with NAME everything else is as it is read, with FILE no database is asked",
    )
    explain.add_argument(
        "--unfinished", type=_count, metavar="N", help="suppose that N Jobs are unfinished (with FILE; default 0)"
    )
    explain.set_defaults(command=_explain)

    commands.add_parser("crd", help="print the CustomResourceDefinition").set_defaults(command=_crd)
    listing = commands.add_parser("settings", help="list every setting of run, its value in force and where that comes from")
    add_options(listing)
    listing.set_defaults(command=_settings)
    return root


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; returns its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what PYTHONIOENCODING or the locale does not have
    chosen = parser().parse_args(arguments)
    try:
        code: int = chosen.command(chosen, environ)
    except (UsageError, ResourceError, SettingsError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return DONE
    return code


def _run(_arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from siorg_runtime.logs import capture_uncaught, configure

    settings = OperatorSettings.from_environment(environ)
    configure(settings.log_format, settings.log_level, quiet=settings.quiet_loggers)
    capture_uncaught("siorg_operator")
    from siorg_operator.control.run import run

    run(settings)
    return DONE


def _local(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from siorg_operator.local.command import local
    from siorg_runtime.logs import configure

    configure("text", "warning")
    return local(arguments, environ)


def _explain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from siorg_operator.explain import explain
    from siorg_runtime.logs import configure

    configure("text", "warning")
    return explain(arguments, environ)


def _crd(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    from siorg_operator.api.crd import crd_yaml

    sys.stdout.write(crd_yaml())
    return DONE


def _settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    print_listing(arguments, ENVIRONMENT, read(environ))
    return DONE


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise argparse.ArgumentTypeError(f"{text[:20]!r}: must be an integer from 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
