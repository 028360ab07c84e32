"""Being asked to end: SIGTERM and SIGINT, heard from the first moment on.

The kernel drops a signal that has no handler when it is for the first process of a container (PID 1). A SIGTERM that comes while
modules are still being read, which under a small CPU limit takes seconds, would be lost so, and the process be killed when its
grace is over. So a program listens before it imports anything else, and this module imports next to nothing.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether the process was asked to end.

    Attributes:
        event: set as soon as it was.
        wakes: called in the handler of the signal, after ``event`` was set.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.wakes: list[Callable[[], object]] = []

    def listen(self) -> None:
        """Hear SIGTERM and SIGINT from now on, also those that came before and were held back (``env --block-signal``)."""
        for number in _ENDING:
            signal.signal(number, self._heard)
            # The interpreter puts the defaults back while it ends: a second signal would then spoil an exit code that is decided.
            atexit.register(signal.signal, number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self.event.set()
        for wake in self.wakes:
            wake()
