"""How much memory this process may use before the kernel ends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_UNLIMITED = 1 << 60  # cgroup v1 says 2^63 less a page where there is no limit


def limit(root: Path = Path("/")) -> int | None:
    """The lowest memory limit, in bytes, of the cgroups that the process is in; None: there is none, or none can be read.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    found = [size for path in _files(root) if (size := _size(path)) is not None]
    return min(found, default=None)


def _files(root: Path) -> Iterator[Path]:
    """Of the cgroup of the process and all above it, whose limits hold as well: where the limit stands, in v2 and in v1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers == "":
            top, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the name may be the host's, of which here is nothing but the top: the container's own.
        group = PurePosixPath(name.lstrip("/"))
        for above in (group, *group.parents):
            yield top / above / file


def _size(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isascii() and text.isdigit() and int(text) < _UNLIMITED else None
