"""``siorg-job settings``: every setting, its value in force and where that comes from. Works where settings are wrong, too."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from siorg_job.commands.context import Exit
from siorg_job.settings import ENVIRONMENT, read
from siorg_runtime.listing import add_options, print_listing


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "settings",
        help="list every setting, its value in force and where that comes from",
        description="Nothing secret is shown. What is wrong is marked, and does not keep this command from working.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    print_listing(arguments, ENVIRONMENT, read(environ))
    return Exit.DONE
