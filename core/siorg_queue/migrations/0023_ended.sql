-- transaction: none
-- What ended and was not completed, by when: cleanup takes the oldest, people are shown the newest. COMPLETED rows, which are many,
-- have an index of their own (0020), and none of this one.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_ended_idx
    ON siorg_sync_queue (status, coalesce(processed_at, created_at))
    WHERE status OPERATOR(pg_catalog.=) ANY ('{FAILED,SKIPPED}'::sync_status_enum[]);
