-- A hint must not end anybody's transaction: where the server's queue of notifications is full, a transaction that has one
-- fails at its COMMIT, and no handler catches that. So nothing is added once the queue is half full; polling finds the work.
-- Only pg_catalog is searched: operators and functions of other schemas are not run with the rights of whoever writes the row.
CREATE OR REPLACE FUNCTION siorg_sync_queue_notify_added() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM added WHERE coalesce(status, 'PENDING') = 'PENDING' AND coalesce(scheduled_for, '-infinity') <= clock_timestamp())
        AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('siorg_sync_queue', '');
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION siorg_sync_queue_notify_reopened() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('siorg_sync_queue', '');
    END IF;
    RETURN NULL;
END $$;
