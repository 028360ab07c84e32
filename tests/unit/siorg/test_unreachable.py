"""Why no answer came: what is ours is not told as SIORG's."""

from __future__ import annotations

import errno

from siorg_job.siorg.unreachable import out_of_memory


def test_our_own_want_of_memory_is_found_behind_a_connection_that_broke() -> None:
    ours, broken, told = MemoryError(), OSError("broken"), ConnectionError("no answer")
    broken.__cause__, told.__cause__ = ours, broken
    assert out_of_memory(told) is ours
    assert isinstance(out_of_memory(OSError(errno.ENOMEM, "no memory")), MemoryError)
    assert out_of_memory(ConnectionResetError()) is None
