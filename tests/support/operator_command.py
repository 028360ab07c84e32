"""``siorg-operator`` as people call it, in this process: what it says and its exit code."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout

import pytest

from siorg_operator.__main__ import main


def called(*arguments: str, stdin: str = "", environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """One call, on a terminal of 120 columns; ``environ`` is all that it sees of the environment."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        patched.setenv("COLUMNS", "120")
        try:
            code = main(arguments, environ)
        except SystemExit as ended:  # argparse's
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
