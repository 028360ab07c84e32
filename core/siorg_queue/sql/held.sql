-- name: held
-- What is held: of each row the one field that it is about, with both values, oldest first, of one time by path.
SELECT q.id, q.entity_type, q.siorg_code AS code,
       coalesce(home.siorg_code, {{organization}}::integer, q.siorg_code) AS organization,
       coalesce(u.name, home.name, q.payload ->> 'nome', q.siorg_code::text) AS name, coalesce(u.path_names, home.name, '') AS path,
       about.field, about.sides -> 'local' AS local, about.sides -> 'remote' AS remote, q.held_at,
       coalesce(q.last_error, '') AS reason
FROM siorg_sync_queue AS q
CROSS JOIN LATERAL (
    SELECT c.field, c.sides
    FROM jsonb_each(CASE jsonb_typeof(q.detected_changes) WHEN 'object' THEN q.detected_changes ELSE '{}' END) AS c (field, sides)
    ORDER BY c.field LIMIT 1
) AS about
LEFT JOIN organizational_units AS u ON q.entity_type = 'UNIT' AND u.siorg_code = q.siorg_code
LEFT JOIN organizations AS home ON home.id = u.organization_id OR (q.entity_type = 'ORGANIZATION' AND home.siorg_code = q.siorg_code)
WHERE {{held}}
  AND (%(organization)s::integer IS NULL OR coalesce(home.siorg_code, {{organization}}::integer, q.siorg_code) = %(organization)s)
ORDER BY q.held_at, path, q.siorg_code, q.id

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
        'field_resolutions', (SELECT jsonb_object_agg(field, 'LOCAL') FROM jsonb_object_keys(q.detected_changes) AS k (field))),
    resolution_notes = coalesce(%(notes)s, q.resolution_notes), scheduled_for = now(), processed_at = NULL
WHERE q.id = ANY (%(ids)s::uuid[]) AND {{held}}
RETURNING q.id
