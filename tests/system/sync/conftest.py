"""Fixtures of the synchronisation's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.local_structure import World


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A fresh database, and a SIORG that has the organization 471 and no units."""
    with World(database_url) as made:
        yield made
