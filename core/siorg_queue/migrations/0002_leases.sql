-- A claim is a lease: who works on a row, until when, and the token that fences late writers. Constant defaults: no rewrite.
ALTER TABLE siorg_sync_queue
    ADD COLUMN IF NOT EXISTS lease_token bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS lease_expires_at timestamptz,
    ADD COLUMN IF NOT EXISTS claimed_by text;

COMMENT ON COLUMN siorg_sync_queue.lease_token IS 'Grows by one at each claim and never goes back: only its holder may renew, finish or release';
COMMENT ON COLUMN siorg_sync_queue.lease_expires_at IS 'Until when claimed_by may finish the row; past that, anybody may claim it';
COMMENT ON COLUMN siorg_sync_queue.claimed_by IS 'The process that holds the lease (new for each process, never reused)';

-- One pace for all processes of one database: when the next request to SIORG may leave, and until when none may.
CREATE TABLE IF NOT EXISTS siorg_request_pace (
    name text PRIMARY KEY,
    next_at timestamptz NOT NULL DEFAULT '-infinity',
    paused_until timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO siorg_request_pace (name) VALUES ('siorg') ON CONFLICT DO NOTHING;
