-- name: organizations
SELECT o.siorg_code AS code, o.acronym,
       (SELECT s.value #>> '{}' FROM system_settings AS s WHERE s.key = 'siorg_versao:' || o.siorg_code) AS version,
       EXISTS (
           SELECT FROM system_settings AS s
           WHERE s.key = 'siorg_em_dia:' || o.siorg_code AND s.value = 'true' AND s.updated_at > now() - interval '7 days'
       ) AS at_rest,
       EXISTS (SELECT FROM organizational_units AS u WHERE u.organization_id = o.id AND u.siorg_code IS NOT NULL) AS has_units,
       coalesce(o.is_active, true) AS is_active,
       -- Ended by SIORG's word, here or there; what a person alone deactivated is nobody's question.
       coalesce((SELECT jsonb_typeof(s.value) <> 'null' FROM system_settings AS s WHERE s.key = 'siorg_existe:' || o.siorg_code), false)
           OR coalesce(o.siorg_raw_data ->> 'operacao', '') = 'EXCLUSAO' AS had_ended
FROM organizations AS o
WHERE (%(codes)s::integer[] IS NULL AND (%(inactive)s OR coalesce(o.is_active, true))) OR o.siorg_code = ANY (%(codes)s::integer[])
ORDER BY o.siorg_code

-- name: record_version
INSERT INTO system_settings (key, value, value_type, description, category)
VALUES ('siorg_versao:' || %(organization)s::integer, to_jsonb(%(version)s::text), 'string',
        'SIORG version up to which this organization has been discovered', 'siorg'),
       ('siorg_em_dia:' || %(organization)s::integer, to_jsonb(%(at_rest)s::boolean), 'boolean',
        'Whether nothing differed when this organization was last compared with SIORG', 'siorg')
ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()

-- name: clock
SELECT clock_timestamp() AS now

-- name: open_conflicts
-- Of categories or types, what a person is being asked; of several about one, the newest.
SELECT DISTINCT ON (q.siorg_code) q.siorg_code AS code, coalesce(q.detected_changes, '{}') AS changes
FROM siorg_sync_queue AS q
WHERE q.entity_type = %(entity_type)s AND q.status = 'CONFLICT' AND q.operation IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE')
ORDER BY q.siorg_code, q.created_at DESC, q.id
