"""The memory limit, as the kernel's files tell it in version 1 and 2 of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from siorg_runtime.memory import limit

NONE = str(2**63 - 4096)  # as version 1 says it


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "536870912\n"}, 536870912),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "300\n", "memory.max": "900\n"}, 300),
        ("0::/of/the/host\n", {"memory.max": "900\n"}, 900),
        ("9:cpu,cpuacct:/\n4:memory:/kubepods/x\n0::/\n", {"memory/memory.limit_in_bytes": "800\n"}, 800),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "700\n", "memory/memory.limit_in_bytes": NONE}, 700),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": NONE}, None),
        ("0::/\n", {}, None),
        ("nonsense\n\n", {"memory.max": "nonsense"}, None),
        (None, {"memory.max": "900\n"}, None),
    ],
)
def test_the_lowest_limit_of_the_groups_above_counts(
    tmp_path: Path, cgroup: str | None, files: dict[str, str], expected: int | None
) -> None:
    if cgroup is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert limit(tmp_path) == expected


def test_that_of_this_process_can_be_asked_for() -> None:
    assert (limit() or 1) > 0
