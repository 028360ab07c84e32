-- transaction: none
-- What ended and has an expiry, which hardly any row has: cleanup deletes it then.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_ended_expiry_idx
    ON siorg_sync_queue (expires_at)
    WHERE expires_at IS NOT NULL AND status OPERATOR(pg_catalog.=) ANY ('{COMPLETED,FAILED,SKIPPED}'::sync_status_enum[]);
