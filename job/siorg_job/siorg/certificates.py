"""Whether the certificates that the environment names can be used: looked at before anything is claimed.

A mount that is missing is enough to make every request fail; that is the settings' fault, and no item may pay for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_FILE, _FOLDER = "SSL_CERT_FILE", "SSL_CERT_DIR"  # OpenSSL's, which take the place of the system's certificates
_LARGEST = 64 * 1024 * 1024  # bytes: a bundle of the whole world has a quarter of a megabyte
_HASHED = re.compile(r"[0-9a-fA-F]{8}\.[0-9]+")  # the names under which OpenSSL looks in a directory
_FILE_ALLOWED = "a PEM file with at least one certificate"
_FOLDER_ALLOWED = "a directory of PEM certificates under hashed names (openssl rehash), or several with colons between"


def check_bundle(text: str) -> Path:
    """The path of a PEM file that holds certificates.

    Raises:
        ValueError: it cannot be used; the message says why, and nothing of the path.
    """
    path = Path(text)
    try:
        if path.is_dir():
            raise ValueError("is a directory; must be a file")
        if not path.is_file():
            raise ValueError("must be a file that exists")
        if path.stat().st_size > _LARGEST:
            raise ValueError("is too large for a file of certificates")
        _check_pem(path)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    return path


def unusable(environ: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the variables by which OpenSSL finds certificates, one line each: ``NAME: …; allowed: …``."""
    checks = ((_FILE, check_bundle, _FILE_ALLOWED), (_FOLDER, _check_folders, _FOLDER_ALLOWED))
    for name, check, allowed in checks:
        if text := environ.get(name, ""):
            try:
                check(text)
            except ValueError as wrong:
                yield f"{name}: {wrong}; allowed: {allowed}"


def _check_pem(path: Path) -> None:
    import ssl  # noqa: PLC0415 - most environments name no certificates

    content = path.read_bytes()
    if b"-----BEGIN" not in content:
        # DER begins with a SEQUENCE whose length takes two bytes; PKCS #12 does too, and is no better.
        is_der = content[:2] == b"\x30\x82"
        raise ValueError("is DER; must be PEM (openssl x509 -inform der)" if is_der else "is not PEM")
    if b"CERTIFICATE-----" not in content:
        raise ValueError("has no certificate in it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError("has a certificate in it that cannot be read") from None
    if not context.cert_store_stats()["x509"]:
        raise ValueError("has no certificate in it")


def _check_folders(text: str) -> None:
    found = False
    for folder in filter(None, text.split(os.pathsep)):
        try:
            names = [path.name for path in Path(folder).iterdir()]
        except NotADirectoryError:
            raise ValueError("is a file; must be a directory") from None
        except FileNotFoundError:
            raise ValueError("must be a directory that exists") from None
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from None
        found |= any(map(_HASHED.fullmatch, names))
    if not found:
        raise ValueError("has no certificate under a hashed name in it")
