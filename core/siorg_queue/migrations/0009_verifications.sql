-- What each verification found. Written by siorg-job verify, read by the operator and by people.
CREATE TABLE IF NOT EXISTS siorg_verifications (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    complete boolean NOT NULL,
    organizations integer NOT NULL,
    compared integer NOT NULL,
    drift integer NOT NULL,
    enqueued integer NOT NULL DEFAULT 0,
    departures jsonb NOT NULL,
    reason text
);
CREATE INDEX IF NOT EXISTS siorg_verifications_complete_idx ON siorg_verifications (finished_at DESC) WHERE complete;

COMMENT ON TABLE siorg_verifications IS 'The comparisons of the local rows with those of SIORG, one row each';
COMMENT ON COLUMN siorg_verifications.started_at IS 'Before the first request to SIORG, by the clock of the database';
COMMENT ON COLUMN siorg_verifications.finished_at IS 'When the result was stored, by the clock of the database';
COMMENT ON COLUMN siorg_verifications.complete IS 'Every registered organization was compared; only such a row says whether the copy is in line';
COMMENT ON COLUMN siorg_verifications.organizations IS 'How many organizations were compared';
COMMENT ON COLUMN siorg_verifications.compared IS 'How many rows were compared';
COMMENT ON COLUMN siorg_verifications.drift IS 'How many fields differ from those of SIORG without a name for it';
COMMENT ON COLUMN siorg_verifications.enqueued IS 'How many items were put on the queue to mend that';
COMMENT ON COLUMN siorg_verifications.departures IS 'How many fields differ for a known reason, by its kind: conflict, held, ended, failed, waiting, outside, edited';
COMMENT ON COLUMN siorg_verifications.reason IS 'Why it is not complete; NULL: it is';

-- Nullable and without a default: no rewrite. Older Jobs and the first worker see a conflict, and leave it alone.
ALTER TABLE siorg_sync_queue ADD COLUMN IF NOT EXISTS held_at timestamptz;

COMMENT ON COLUMN siorg_sync_queue.held_at IS 'Since when a CONFLICT is held: an end or an overwrite beyond a limit, which waits for a person; NULL: it is a conflict of both sides';
