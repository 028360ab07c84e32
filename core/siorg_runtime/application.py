"""The names of our database connections: by them ``pg_stat_activity`` tells people and the operator whose they are."""

from __future__ import annotations

import os
from typing import Final

JOB: Final = "siorg-job"
"""The name of each connection of a job begins so."""


def job_application(use: str = "") -> str:
    """The name of a connection of this job: its Job's tag, where the operator gave it one, and what it is for."""
    given = os.environ.get("PGAPPNAME", "")
    job = given if tag_of(given) else JOB
    return f"{job} {use}" if use else job


def tagged(tag: str) -> str:
    """What ``PGAPPNAME``, a variable of libpq, has to be for the connections of the Job of that tag."""
    return f"{JOB}/{tag}"


def tag_of(name: str) -> str:
    """The tag in the name of a job's connection; empty: it has none."""
    job, _, tag = name.partition(" ")[0].partition("/")
    return tag if job == JOB else ""
