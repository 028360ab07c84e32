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
