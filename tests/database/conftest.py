"""Fixtures of the queue's tests."""

from __future__ import annotations

import pytest

from siorg_queue import Connection
from support.queue import Queue


@pytest.fixture
def queue(connection: Connection) -> Queue:
    """The queue in the fresh database."""
    return Queue(connection)
