-- name: conflicts
SELECT q.id, q.entity_type, q.siorg_code, q.operation, q.status, q.attempts, coalesce(q.max_attempts, 3) AS max_attempts, q.last_error,
       q.error_details, q.detected_changes, q.created_at, q.last_attempt_at
FROM siorg_sync_queue AS q
WHERE q.status OPERATOR(pg_catalog.=) 'CONFLICT' AND CASE WHEN %(id)s::uuid IS NULL THEN {{conflict}} ELSE q.id = %(id)s END
ORDER BY q.created_at DESC
LIMIT %(limit)s

-- name: failures
SELECT q.id, q.entity_type, q.siorg_code, q.operation, q.status, q.attempts, coalesce(q.max_attempts, 3) AS max_attempts, q.last_error,
       q.error_details, q.detected_changes, q.created_at, q.last_attempt_at
FROM siorg_sync_queue AS q
WHERE q.status OPERATOR(pg_catalog.=) 'FAILED' AND (%(id)s::uuid IS NULL OR q.id = %(id)s)
ORDER BY {{ended_at}} DESC
LIMIT %(limit)s

-- name: reopen_conflict
-- What the API server does when a person accepts SIORG's values or merges: back to PENDING with the decision beside it.
UPDATE siorg_sync_queue AS q
SET status = 'PENDING', error_details = %(decision)s::jsonb, resolution_notes = coalesce(%(notes)s, q.resolution_notes),
    scheduled_for = now(), processed_at = NULL
WHERE q.id = %(id)s AND q.status OPERATOR(pg_catalog.=) 'CONFLICT'
RETURNING q.id

-- name: decide
-- A person's decisions about fields that were in no conflict: an item carries each. One that waits already is not added again.
INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, max_attempts, scheduled_for, error_details, detected_changes,
    resolution_notes)
SELECT n.entity_type, n.siorg_code, 'UPDATE', '{}', %(max_attempts)s, clock_timestamp(), n.decision, n.changes, %(notes)s
FROM unnest(%(entity_types)s::siorg_entity_type_enum[], %(codes)s::integer[], %(decisions)s::jsonb[], %(changes)s::jsonb[])
    AS n (entity_type, siorg_code, decision, changes)
WHERE NOT EXISTS (
    SELECT FROM siorg_sync_queue AS q
    WHERE q.entity_type OPERATOR(pg_catalog.=) n.entity_type AND q.siorg_code = n.siorg_code AND {{open}}
        AND q.error_details @> n.decision - 'resolved_by'::text
)
RETURNING id

-- name: skip_conflict
UPDATE siorg_sync_queue AS q
SET status = 'SKIPPED', resolution_notes = coalesce(%(notes)s, q.resolution_notes), processed_at = now()
WHERE q.id = %(id)s AND q.status OPERATOR(pg_catalog.=) 'CONFLICT'
RETURNING q.id

-- name: end_older_conflicts
-- Open conflicts of an entity about which a later answer of SIORG has decided: another conflict stands for them now, or none
-- does. What was merged or split is a question by itself, and so is what is held. A row that a person is just deciding is left
-- to the person.
WITH decided AS (
    SELECT d.*, n.created_at
    FROM unnest(%(ids)s::uuid[], %(asked)s::text[], %(reasons)s::text[]) AS d (id, asked, reason)
    JOIN siorg_sync_queue AS n ON n.id = d.id AND n.operation::text IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE', 'EXTINCTION')
), older AS (
    SELECT q.id, d.reason
    FROM decided AS d
    JOIN siorg_sync_queue AS n ON n.id = d.id
    JOIN siorg_sync_queue AS q ON q.entity_type OPERATOR(pg_catalog.=) n.entity_type AND q.siorg_code = n.siorg_code
    WHERE {{conflict}} AND q.operation::text IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE', 'EXTINCTION')
      AND (coalesce(q.error_details #>> '{details,asked_at}', '') COLLATE "C", q.created_at, q.id) < (d.asked, d.created_at, d.id)
    FOR NO KEY UPDATE OF q SKIP LOCKED
)
UPDATE siorg_sync_queue AS q
SET status = 'SKIPPED', last_error = older.reason, processed_at = clock_timestamp(),
    error_details = '{"kind": "superseded", "retryable": false}'
FROM older WHERE q.id = older.id

-- name: end_conflicts_of_units
-- What they asked a person has no object any more. A row that a person is just deciding is left to the person.
WITH open AS (
    SELECT q.id FROM siorg_sync_queue AS q
    WHERE q.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND q.siorg_code = ANY (%(codes)s::integer[])
        AND q.status OPERATOR(pg_catalog.=) 'CONFLICT'
    FOR NO KEY UPDATE OF q SKIP LOCKED
)
UPDATE siorg_sync_queue AS q
SET status = 'SKIPPED', last_error = %(reason)s, processed_at = clock_timestamp(),
    error_details = '{"kind": "superseded", "retryable": false}'
FROM open WHERE q.id = open.id
RETURNING q.id
