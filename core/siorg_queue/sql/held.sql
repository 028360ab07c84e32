-- name: held
-- What is held: of each row the one field that it is about, with both values, oldest first, of one time by path.
SELECT q.id, q.entity_type, q.siorg_code AS code,
       coalesce(home.siorg_code, {{organization_code}}, q.siorg_code) AS organization,
       coalesce(u.name, home.name, q.payload ->> 'nome', q.siorg_code::text) AS name, coalesce(u.path_names, home.name, '') AS path,
       about.field, about.sides -> 'local' AS local, about.sides -> 'remote' AS remote, q.held_at,
       coalesce(q.last_error, '') AS reason
FROM siorg_sync_queue AS q
CROSS JOIN LATERAL (
    SELECT c.field, c.sides
    FROM jsonb_each(CASE jsonb_typeof(q.detected_changes) WHEN 'object' THEN q.detected_changes ELSE '{}' END) AS c (field, sides)
    ORDER BY c.field LIMIT 1
) AS about
LEFT JOIN organizational_units AS u ON q.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND u.siorg_code = q.siorg_code
LEFT JOIN organizations AS home ON home.id = u.organization_id OR (q.entity_type OPERATOR(pg_catalog.=) 'ORGANIZATION'
    AND home.siorg_code = q.siorg_code)
WHERE {{held}}
  AND (%(organization)s::integer IS NULL OR coalesce(home.siorg_code, {{organization_code}}, q.siorg_code) = %(organization)s)
ORDER BY q.held_at, path, q.siorg_code, q.id

-- name: organization_code
-- As a number, where it is one that an organization can have.
CASE WHEN length({{organization}}) < 10 THEN {{organization}}::integer END

-- name: release
-- As the API server writes it when a person accepts SIORG's values. held_at stays: what a person released counts against no limit.
UPDATE siorg_sync_queue AS q
SET status = 'PENDING', error_details = jsonb_build_object('resolution', 'ACCEPT_SIORG', 'resolved_by', %(by)s::text),
    resolution_notes = coalesce(%(notes)s, q.resolution_notes), scheduled_for = now(), processed_at = NULL
WHERE q.id = ANY (%(ids)s::uuid[]) AND {{held}}
RETURNING q.id

-- name: drop
-- The local value stays; the next run records what SIORG said and was turned down.
UPDATE siorg_sync_queue AS q
SET status = 'PENDING', error_details = jsonb_build_object('resolution', 'MERGE', 'resolved_by', %(by)s::text,
        'field_resolutions', (SELECT jsonb_object_agg(field, 'LOCAL') FROM jsonb_object_keys(
            CASE jsonb_typeof(q.detected_changes) WHEN 'object' THEN q.detected_changes ELSE '{"is_active": null}' END) AS k (field))),
    resolution_notes = coalesce(%(notes)s, q.resolution_notes), scheduled_for = now(), processed_at = NULL
WHERE q.id = ANY (%(ids)s::uuid[]) AND {{held}}
RETURNING q.id

-- name: hold
-- Rows that are held from the start, all at once. Not where the same is held or in dispute already, nor the end of a unit whose
-- end waits: that one is held when its turn comes. What a person decided about the same is carried out first.
INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, priority, payload, max_attempts, needed_at, status, held_at,
    detected_changes, last_error, error_details)
SELECT n.entity_type, n.siorg_code, n.operation, n.priority, n.payload, %(max_attempts)s, least(%(asked_at)s, now()), 'CONFLICT', now(),
       n.changes, %(reason)s, %(details)s::jsonb
FROM unnest(%(entity_types)s::siorg_entity_type_enum[], %(codes)s::integer[], %(operations)s::siorg_change_type_enum[],
            %(priorities)s::integer[], %(payloads)s::jsonb[], %(changes)s::jsonb[]) WITH ORDINALITY
     AS n (entity_type, siorg_code, operation, priority, payload, changes, position)
WHERE NOT EXISTS (
    SELECT FROM siorg_sync_queue AS q
    WHERE q.entity_type OPERATOR(pg_catalog.=) n.entity_type AND q.siorg_code = n.siorg_code
      AND ((q.status OPERATOR(pg_catalog.=) 'CONFLICT' AND q.detected_changes ?| ARRAY(SELECT jsonb_object_keys(n.changes)))
        OR (q.held_at IS NOT NULL AND {{open}} AND q.detected_changes ?| ARRAY(SELECT jsonb_object_keys(n.changes)))
        OR (q.operation OPERATOR(pg_catalog.=) 'EXTINCTION' AND n.operation OPERATOR(pg_catalog.=) 'EXTINCTION' AND {{open}}))
)
ORDER BY n.position
RETURNING id

-- name: end_held
-- The difference has gone. A row that a person is just deciding is left to the person.
WITH gone AS (
    SELECT q.id FROM siorg_sync_queue AS q WHERE q.id = ANY (%(ids)s::uuid[]) AND {{held}} FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE siorg_sync_queue AS q
SET status = 'SKIPPED', last_error = %(reason)s, processed_at = clock_timestamp(),
    error_details = '{"kind": "superseded", "retryable": false}'
FROM gone WHERE q.id = gone.id
RETURNING q.id
