"""Fixtures of the synchronisation's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.local_structure import World, check_tree


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A fresh database, and a SIORG that has the organization 471 and no units; at the end every unit is in its place."""
    with World(database_url) as made:
        yield made
        check_tree(made.connection)
