-- transaction: none
-- Rows whose workers were lost: hardly any, and the last that a claim takes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_losses_idx
    ON siorg_sync_queue (losses, coalesce(priority, 5), coalesce(scheduled_for, '-infinity'::timestamptz)) WHERE losses > 0;
