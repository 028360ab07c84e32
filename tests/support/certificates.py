"""Certificates, as openssl makes them."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def made(folder: Path, name: str, *more: str) -> tuple[Path, Path]:
    """A certificate of that name, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    done = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", *more,
         "-keyout", str(key), "-out", str(certificate)],
        capture_output=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip("openssl cannot make a certificate here")
    return certificate, key


def strict(make: Callable[..., ssl.SSLContext] = ssl.create_default_context) -> Callable[..., ssl.SSLContext]:
    """``ssl.create_default_context`` as from Python 3.13 on."""

    def as_from_3_13_on(*arguments: Any, **more: Any) -> ssl.SSLContext:
        context = make(*arguments, **more)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    return as_from_3_13_on
