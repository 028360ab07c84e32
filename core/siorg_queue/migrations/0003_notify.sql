-- Wakes whoever listens on channel siorg_sync_queue when there is new work. A hint and no more: polling is the truth.
-- Once a statement, never once a row; nothing when the statement added nothing that is due.
CREATE OR REPLACE FUNCTION siorg_sync_queue_notify_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM added WHERE coalesce(status, 'PENDING')::text = 'PENDING' AND coalesce(scheduled_for, '-infinity') <= clock_timestamp()) THEN
        PERFORM pg_notify('siorg_sync_queue', '');
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER siorg_sync_queue_added AFTER INSERT ON siorg_sync_queue
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION siorg_sync_queue_notify_added();

-- A person opens a finished or conflicting row again. The condition keeps claims and finishes, the hot path, from calling it.
CREATE OR REPLACE FUNCTION siorg_sync_queue_notify_reopened() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('siorg_sync_queue', '');
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER siorg_sync_queue_reopened AFTER UPDATE OF status ON siorg_sync_queue
    FOR EACH ROW WHEN (NEW.status::text = 'PENDING' AND OLD.status::text IN ('COMPLETED', 'FAILED', 'CONFLICT', 'SKIPPED'))
    EXECUTE FUNCTION siorg_sync_queue_notify_reopened();
