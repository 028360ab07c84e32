-- name: conflicts
SELECT q.id, q.entity_type, q.siorg_code, q.operation, q.status, q.attempts, coalesce(q.max_attempts, 3) AS max_attempts, q.last_error,
       q.error_details, q.detected_changes, q.created_at, q.last_attempt_at
FROM siorg_sync_queue AS q
WHERE q.status = 'CONFLICT' AND (%(id)s::uuid IS NULL OR q.id = %(id)s)
ORDER BY q.created_at DESC
LIMIT %(limit)s

-- name: failures
SELECT q.id, q.entity_type, q.siorg_code, q.operation, q.status, q.attempts, coalesce(q.max_attempts, 3) AS max_attempts, q.last_error,
       q.error_details, q.detected_changes, q.created_at, q.last_attempt_at
FROM siorg_sync_queue AS q
WHERE q.status = 'FAILED' AND (%(id)s::uuid IS NULL OR q.id = %(id)s)
ORDER BY q.processed_at DESC NULLS LAST
LIMIT %(limit)s

-- name: reopen_conflict
-- What the API server does when a person accepts SIORG's values or merges: back to PENDING with the decision beside it.
UPDATE siorg_sync_queue AS q
SET status = 'PENDING', error_details = %(decision)s::jsonb, resolution_notes = coalesce(%(notes)s, q.resolution_notes),
    scheduled_for = now(), processed_at = NULL
WHERE q.id = %(id)s AND q.status = 'CONFLICT'
RETURNING q.id

-- name: close_conflict
UPDATE siorg_sync_queue AS q
SET status = %(status)s::sync_status_enum, resolution_notes = coalesce(%(notes)s, q.resolution_notes), processed_at = now()
WHERE q.id = %(id)s AND q.status = 'CONFLICT'
RETURNING q.id

-- name: retry
-- Opens FAILED rows again with all their attempts; a person's decision beside them stays.
UPDATE siorg_sync_queue AS q
SET status = 'PENDING', attempts = 0, scheduled_for = now(), processed_at = NULL, lease_expires_at = NULL, claimed_by = NULL,
    expires_at = CASE WHEN q.expires_at > now() THEN q.expires_at END,
    error_details = nullif((coalesce(CASE jsonb_typeof(q.error_details) WHEN 'object' THEN q.error_details END, '{}')
        - '{kind,retryable,details}'::text[]), '{}')
WHERE q.status = 'FAILED' AND (%(ids)s::uuid[] IS NULL OR q.id = ANY (%(ids)s::uuid[]))
  AND (%(codes)s::integer[] IS NULL OR q.siorg_code = ANY (%(codes)s::integer[]))
RETURNING q.id

-- name: end_older_conflicts
-- Open conflicts of an entity about which a later answer of SIORG has decided: another conflict stands for them now, or none
-- does. Only the work "bring in line": what was merged, split or ended is a question by itself. A row that a person is just
-- deciding is left to the person.
WITH decided AS (
    SELECT d.*, n.created_at
    FROM unnest(%(ids)s::uuid[], %(asked)s::text[], %(reasons)s::text[]) AS d (id, asked, reason)
    JOIN siorg_sync_queue AS n ON n.id = d.id AND n.operation IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE')
), older AS (
    SELECT q.id, d.reason
    FROM decided AS d
    JOIN siorg_sync_queue AS n ON n.id = d.id
    JOIN siorg_sync_queue AS q ON q.entity_type = n.entity_type AND q.siorg_code = n.siorg_code
    WHERE q.status = 'CONFLICT' AND q.operation IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE')
      AND (coalesce(q.error_details #>> '{details,asked_at}', '') COLLATE "C", q.created_at, q.id) < (d.asked, d.created_at, d.id)
    FOR NO KEY UPDATE OF q SKIP LOCKED
)
UPDATE siorg_sync_queue AS q
SET status = 'SKIPPED', last_error = older.reason, processed_at = clock_timestamp(),
    error_details = '{"kind": "superseded", "retryable": false}'
FROM older WHERE q.id = older.id
RETURNING q.id
