-- How young an answer of SIORG has to be. Nullable and without a default: no rewrite, and who does not know it goes on as before.
ALTER TABLE siorg_sync_queue ADD COLUMN IF NOT EXISTS needed_at timestamptz;

COMMENT ON COLUMN siorg_sync_queue.needed_at IS 'An answer of SIORG that was asked for before this is too old for the row; null: created_at';

-- Whoever opens a row again: while it was closed, nobody noted on it what changed. The condition keeps the hot path from calling it.
CREATE OR REPLACE FUNCTION siorg_sync_queue_needed_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.needed_at := clock_timestamp();
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER siorg_sync_queue_needed_again BEFORE UPDATE OF status ON siorg_sync_queue
    FOR EACH ROW WHEN (NEW.status::text = 'PENDING' AND OLD.status::text IN ('COMPLETED', 'FAILED', 'CONFLICT', 'SKIPPED'))
    EXECUTE FUNCTION siorg_sync_queue_needed_again();
