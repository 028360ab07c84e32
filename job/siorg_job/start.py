"""How a process of ``siorg-job`` begins: it listens for the request to end, and only then reads the rest of the program."""

from __future__ import annotations

from siorg_runtime.stopping import StopRequest


def main() -> int:
    """Run the command that the command line names; returns its exit code."""
    stop = StopRequest()
    stop.listen()
    from siorg_job.__main__ import main as command  # noqa: PLC0415 - see above

    return command(stop=stop)
