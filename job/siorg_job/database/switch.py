"""The switch that people have: the setting ``siorg.sync_enabled`` of the database."""

from __future__ import annotations

from siorg_job.database.system_settings import SYNC_ENABLED, read_boolean, read_settings
from siorg_queue import Connection, transaction


def is_enabled(connection: Connection) -> bool:
    """Whether ``siorg.sync_enabled`` is true; also where it is not set. What cannot be read is false, with a warning."""
    with transaction(connection):
        settings = read_settings(connection, [SYNC_ENABLED])
    return read_boolean(SYNC_ENABLED, settings.get(SYNC_ENABLED), unset=True, unreadable=False)
