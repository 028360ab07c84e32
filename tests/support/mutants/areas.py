"""What is changed, and which tests have to notice: those that belong to it, the quickest first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Area:
    """Part of the product."""

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    """In one process with the product, so that it is seen which of them reach a line."""
    processes: tuple[str, ...] = ()
    """Those that start processes of the product: they run for each mutant that the others let live."""


def _files(folder: str, pattern: str, words: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{pattern.replace('*', word)}" for word in words.split())


_CHAOS = "tests/system/chaos"
_SYNC = "tests/system/sync"
_QUEUE_TESTS = (
    *_files("tests/database", "test_*.py", "claim finish turns held needed_at produce_and_people observe values"),
    "tests/database/test_beside_release_0_1_0.py",
    "tests/database/test_migrations.py",
    *_files(_SYNC, "test_*.py", "failures open_conflicts changes_while_waiting held ended_organizations"),
)
_QUEUE_PROCESSES = _files(_CHAOS, "test_*.py", "killed_workers claims lease_keeper locks")
_SYNC_TESTS = (
    "tests/unit/sync",
    *_files(_SYNC, "test_*.py", "people hierarchy history reforms odd_answers domain_tables sync_times failures open_conflicts"),
    *_files(_SYNC, "test_*.py", "changes_while_waiting ends_in_masses ends_and_the_rest held poison_rows told_alike"),
    "tests/database/test_beside_release_0_1_0.py",
    *_files(_SYNC, "test_*.py", "category_names ended_organizations questions_that_are_over first_sync one_transaction"),
    *_files(_SYNC, "test_*.py", "decisions_and_discovery people_at_the_same_moment convergence"),
)
_SYNC_PROCESSES = _files(_CHAOS, "test_*.py", "locks")
_DRAIN_TESTS = _files("tests/unit/job", "test_*.py", "suspects siorg_health linger in_flight")
_DRAIN_PROCESSES = (
    "tests/system/job/test_run.py",
    *_files(_CHAOS, "test_*.py", "lease_keeper claims signals rate_limited siorg_away not_siorg locks whose_fault"),
    *_files(_CHAOS, "test_*.py", "killed_workers database_away"),
)
_PLAN_TESTS = _files("tests/unit/operator", "test_*.py", "plan jobs capacity plan_properties plan_simulated status reconcile")

AREAS = (
    Area("queue", _files("core/siorg_queue", "*.py", "store decisions session"), _QUEUE_TESTS, _QUEUE_PROCESSES),
    Area("merge", _files("job/siorg_job/sync", "*.py", "merge merge_base place resolution limits"), _SYNC_TESTS, _SYNC_PROCESSES),
    Area(
        "apply",
        _files("job/siorg_job/sync", "*.py", "apply unit organization domain write working_copy"),
        _SYNC_TESTS,
        _SYNC_PROCESSES,
    ),
    Area(
        "drain",
        _files("job/siorg_job/drain", "*.py", "loop in_flight lease_keeper maintenance queue_client run siorg_health suspects"),
        _DRAIN_TESTS,
        _DRAIN_PROCESSES,
    ),
    Area("plan", _files("operator/siorg_operator/decide", "*.py", "plan sizing state jobs pods"), _PLAN_TESTS),
    Area(
        "queue-sql",
        _files("core/siorg_queue/sql", "*.sql", "predicates claim lease dangling depth failures held produce people"),
        _QUEUE_TESTS,
        _QUEUE_PROCESSES,
    ),
    Area("apply-sql", _files("job/siorg_job/sync/sql", "*.sql", "read write held blocked"), _SYNC_TESTS, _SYNC_PROCESSES),
)

REASONS: dict[tuple[str, str, str], str] = {
    ("core/siorg_queue/session.py", "_settings", "setting.since <= server_version"): "but on the very version that brought it",
    ("core/siorg_queue/session.py", "check", "encoding is not None and"): "PostgreSQL and PgBouncer tell it of each connection",
    ("job/siorg_job/sync/sql/blocked.sql", "rows", "n.kind = 'item' → true"): "the ids of other tables are none of the queue's",
    ("job/siorg_job/sync/sql/read.sql", "units", "<= → <"): "but in the very microsecond of its last sync",
    (
        "core/siorg_queue/sql/dangling.sql",
        "reap",
        "LIMIT %(limit)s → (nothing)",
    ): "the last LIMIT holds; these bound what is read",
    ("job/siorg_job/sync/sql/read.sql", "categories", "(nothing) → DESC"): "an order, so that runs by seed repeat",
    (
        "job/siorg_job/sync/apply.py",
        "_in_tree_order",
        "item.entity_type is EntityType.UNIT",
    ): "a unit brings those above it along",
    ("job/siorg_job/sync/sql/read.sql", "hanging_wrong", "(nothing) → DESC"): "an order, so that runs by seed repeat",
    ("job/siorg_job/drain/lease_keeper.py", "LeaseKeeper.stop", "5 → "): "how long a thread is waited for that ends at once",
    ("job/siorg_job/sync/sql/read.sql", "units_meant", "UNION → UNION ALL"): "the same row twice is one row of the copy",
    ("core/siorg_queue/sql/produce.sql", "enqueue_lock", "> → >="): "a count is asked for so that what is counted runs",
    ("job/siorg_job/drain/loop.py", "Drain._take_more", "max(self._next_claim - now, 0.05)"): "only how soon it looks again",
    (
        "job/siorg_job/sync/unit.py",
        "_extinguish",
        "resolution is None and base is not None and base.get(UnitField.IS_ACTIVE) is False",
    ): "no question is open about an end that has been applied: it ended with that",
    (
        "job/siorg_job/sync/apply.py",
        "_resettled",
        "entry.entity_type is EntityType.UNIT and",
    ): "an item that waits for a unit is tried once more than needed, and waits again",
}
"""Why nothing can notice: (file, function or statement, words that are in what was changed) → reason."""
