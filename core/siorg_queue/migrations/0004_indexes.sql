-- transaction: none
-- Built while the table stays in use. A build that was interrupted leaves an invalid index; the runner drops it and builds again.

-- Due rows in claim order, one range a priority; rows with no attempts left are not in it. Its words are those of predicates.sql.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_claim_idx
    ON siorg_sync_queue (coalesce(priority, 5), coalesce(scheduled_for, '-infinity'::timestamptz))
    WHERE coalesce(status, 'PENDING'::sync_status_enum) OPERATOR(pg_catalog.=) 'PENDING'::sync_status_enum
      AND (coalesce(attempts, 0) < coalesce(max_attempts, 3) OR coalesce(error_details ? 'resolution', false));

-- Rows in work, to find the abandoned.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_lease_idx
    ON siorg_sync_queue (coalesce(priority, 5), lease_expires_at) WHERE status OPERATOR(pg_catalog.=) 'PROCESSING';

-- Rows that wait and that no claim will ever take: every run begins with ending them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_spent_idx
    ON siorg_sync_queue (created_at)
    WHERE coalesce(status, 'PENDING'::sync_status_enum) OPERATOR(pg_catalog.=) 'PENDING'::sync_status_enum
      AND NOT (coalesce(attempts, 0) < coalesce(max_attempts, 3) OR coalesce(error_details ? 'resolution', false));
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_expiry_idx
    ON siorg_sync_queue (expires_at)
    WHERE coalesce(status, 'PENDING'::sync_status_enum) OPERATOR(pg_catalog.=) 'PENDING'::sync_status_enum AND expires_at IS NOT NULL;

-- Deleting a queue row makes PostgreSQL look for history that points at it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_history_sync_queue_id_idx
    ON siorg_history (sync_queue_id) WHERE sync_queue_id IS NOT NULL;
