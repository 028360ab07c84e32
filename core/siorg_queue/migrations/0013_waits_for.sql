-- transaction: none
-- FAILED rows by the units that have to be applied before them: looked for whenever a unit comes to its place. Without a list of
-- pending entries, which would be read as a whole each time.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_waits_for_idx
    ON siorg_sync_queue USING gin ((error_details #> '{details,waits_for}') jsonb_path_ops) WITH (fastupdate = off)
    WHERE status OPERATOR(pg_catalog.=) 'FAILED' AND error_details #> '{details,waits_for}' IS NOT NULL;
-- FAILED rows alone: each discovery looks at them, and COMPLETED ones are many.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_failed_idx
    ON siorg_sync_queue (entity_type, siorg_code) WHERE status OPERATOR(pg_catalog.=) 'FAILED';
