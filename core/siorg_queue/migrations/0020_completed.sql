-- transaction: none
-- The newest items that were completed, and by whom: they tell the operator that its Jobs get answers from SIORG again.
COMMENT ON COLUMN siorg_sync_queue.claimed_by IS 'The process that holds the lease, or that completed the row (new for each process, never reused)';
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_completed_idx
    ON siorg_sync_queue (processed_at) WHERE status OPERATOR(pg_catalog.=) 'COMPLETED';
