-- transaction: none
-- The newest item that was completed: it tells the operator that SIORG answers again.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_completed_idx
    ON siorg_sync_queue (processed_at) WHERE status OPERATOR(pg_catalog.=) 'COMPLETED';
