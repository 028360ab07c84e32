r"""Standard output and standard error of a command: whatever is written, in whatever encoding, to whoever still reads.

A command's work does not depend on who reads along. A reader that has left (``siorg-job status | head -1``) has seen enough; a
device that is full is remembered, and told at the end. What the encoding does not have (``PYTHONIOENCODING=ascii``) is written
as ``\u2192``, and so is, on standard output, what a terminal would obey: names in rows come from everywhere. Everything passes
the redactor, once it is known what is secret.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO, cast

from siorg_runtime.redaction import Redactor

_ESCAPED = "siorg_runtime.output"  # name of an error handler

# Control characters but line ends and tabs, and what turns the direction of writing.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Output:
    """A text stream on another one; a write never raises.

    Attributes:
        redactor: goes over every text that is written from then on.
        failed: why something could not be written; None: all was, or nobody wants it any more.
    """

    def __init__(self, stream: TextIO, *, harmless: bool) -> None:
        """``harmless``: without characters that a terminal would obey."""
        self._stream = stream
        self._harmless = harmless
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._ended = False
        self.redactor: Redactor | None = None
        self.failed: OSError | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)  # fileno, isatty, encoding …

    def write(self, text: str) -> int:
        """Write as much of ``text`` as can be written; returns its length."""
        shown = text if self.redactor is None else self.redactor.text(text)
        if self._harmless:
            shown = _OBEYED.sub(_escaped, shown)
        with self._told():
            self._stream.write(shown.encode(self._encoding, _ESCAPED).decode(self._encoding))
        return len(text)

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        if self._ended:
            yield
            return
        try:
            yield
        except BrokenPipeError:
            self._end()
        except OSError as error:
            self.failed = self.failed or error
            self._end()
        except ValueError:  # the stream is closed
            self._ended = True

    def _end(self) -> None:
        self._ended = True
        # What is still in the buffer goes nowhere: the interpreter would try again at its end, and fail with 120.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _escaped(match: re.Match[str]) -> str:
    return _in_json(match[0])


def _in_json(text: str) -> str:
    """Escapes that are as good in JSON, which may be what is written."""
    return json.dumps(text)[1:-1]


def _unencodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return _in_json(error.object[error.start : error.end]), error.end


codecs.register_error(_ESCAPED, _unencodable)


@contextlib.contextmanager
def guarded() -> Iterator[tuple[Output | None, Output | None]]:
    """Put standard output and error behind an ``Output`` each, for as long as this lasts; None: it is closed."""
    before = sys.stdout, sys.stderr
    out, err = (
        None if stream is None else Output(stream, harmless=harmless)
        for stream, harmless in zip(before, (True, False), strict=True)
    )
    sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
    try:
        yield out, err
    finally:
        for output in (out, err):
            if output is not None:
                output.flush()
        sys.stdout, sys.stderr = before
