-- name: organizations
SELECT o.siorg_code AS code, o.acronym, o.name,
       (SELECT s.value #>> '{}' FROM system_settings AS s WHERE s.key::text = 'siorg_versao:' || o.siorg_code::text) AS version,
       EXISTS (
           SELECT FROM system_settings AS s
           JOIN system_settings AS v ON v.key::text = 'siorg_versao:' || o.siorg_code::text  -- updated_at: when it moved
           WHERE s.key::text = 'siorg_em_dia:' || o.siorg_code::text AND s.value = 'true'
             AND s.updated_at > now() - interval '7 days'
             AND (greatest(s.updated_at, timestamptz '2000-01-01Z') - interval '1 day' >= v.updated_at
                 OR now() - interval '1 day' < v.updated_at)
       ) AS at_rest,
       EXISTS (SELECT FROM organizational_units AS u WHERE u.organization_id = o.id AND u.siorg_code IS NOT NULL) AS has_units,
       coalesce(o.is_active, true) AS is_active,
       -- Ended by SIORG's word, here or there; what a person alone deactivated is nobody's question.
       coalesce((SELECT jsonb_typeof(s.value) <> 'null' FROM system_settings AS s WHERE s.key::text = 'siorg_existe:' || o.siorg_code::text), false)
           OR coalesce(o.siorg_raw_data ->> 'operacao', '') = 'EXCLUSAO' AS had_ended
FROM organizations AS o
WHERE (%(codes)s::integer[] IS NULL AND (%(inactive)s OR coalesce(o.is_active, true))) OR o.siorg_code = ANY (%(codes)s::integer[])
ORDER BY o.siorg_code

-- name: record
-- What came of a comparison; the version only where it may be recorded, and touched only where it moved: its time is when it did.
-- Another discovery of the organization that recorded after this one asked SIORG may have had the newer answer: then nothing is
-- at rest, and its version stands.
WITH at_once AS (
    SELECT EXISTS (
        SELECT FROM system_settings AS s
        WHERE s.key::text = 'siorg_em_dia:' || %(organization)s::integer::text AND s.updated_at >= %(asked_at)s
    ) AS another
)
INSERT INTO system_settings AS s (key, value, value_type, description, category)
SELECT 'siorg_versao:' || %(organization)s::integer::text, to_jsonb(%(version)s::text), 'string',
       'SIORG version up to which this organization has been discovered', 'siorg'
FROM at_once WHERE %(version)s::text IS NOT NULL AND NOT another
UNION ALL
SELECT 'siorg_em_dia:' || %(organization)s::integer::text, to_jsonb(%(at_rest)s::boolean AND NOT another), 'boolean',
       'Whether nothing differed when this organization was last compared with SIORG', 'siorg'
FROM at_once
ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()
WHERE starts_with(s.key::text, 'siorg_em_dia:') OR s.value IS DISTINCT FROM excluded.value

-- name: questions
-- What people are asked about these entities, and have not decided yet; also about units that came from an organization that is
-- not active here, and have gone on.
SELECT q.entity_type, q.siorg_code AS code, q.operation,
       CASE jsonb_typeof(q.detected_changes) WHEN 'object' THEN q.detected_changes ELSE '{}' END AS changes,
       ARRAY(
           SELECT below.siorg_code FROM organizational_units AS u JOIN organizational_units AS below ON below.parent_id = u.id
           WHERE q.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND u.siorg_code = q.siorg_code AND below.is_active
       ) AS children
FROM siorg_sync_queue AS q
WHERE {{conflict}} AND q.operation::text IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE', 'EXTINCTION')
  -- A unit here may have been an organization: the question about its end is asked where that is looked at.
  AND ((q.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND q.siorg_code = ANY (%(codes)s::integer[]))
      OR (q.entity_type OPERATOR(pg_catalog.=) 'ORGANIZATION' AND q.siorg_code = %(organization)s) OR (
      {{organization}} = %(organization)s::text AND EXISTS (
          SELECT FROM organizational_units AS u JOIN organizations AS o ON o.id = u.organization_id
          WHERE q.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND u.siorg_code = q.siorg_code AND NOT coalesce(o.is_active, true))))

-- name: open_conflicts
-- Of categories or types, what a person is being asked; of several about one, the newest.
SELECT DISTINCT ON (q.siorg_code) q.siorg_code AS code, coalesce(q.detected_changes, '{}') AS changes
FROM siorg_sync_queue AS q
WHERE q.entity_type OPERATOR(pg_catalog.=) %(entity_type)s AND q.status OPERATOR(pg_catalog.=) 'CONFLICT'
    AND q.operation::text IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE')
ORDER BY q.siorg_code, q.created_at DESC, q.id
