-- name: organizations
SELECT o.siorg_code AS code, o.acronym, o.siorg_raw_data AS raw, o.siorg_synced_at IS NOT NULL AS synced,
       coalesce(o.is_active, true) AS is_active,
       (SELECT s.value #>> '{}' FROM system_settings AS s WHERE s.key = 'siorg_versao:' || o.siorg_code) AS version,
       EXISTS (SELECT FROM organizational_units AS u WHERE u.organization_id = o.id AND u.siorg_code IS NOT NULL) AS has_units
FROM organizations AS o
WHERE (%(codes)s::integer[] IS NULL AND coalesce(o.is_active, true)) OR o.siorg_code = ANY (%(codes)s::integer[])
ORDER BY o.siorg_code

-- name: units
-- What was last synced of the units of one organization, and of units named by code wherever they are.
SELECT u.siorg_code AS code, u.is_active, u.level, u.siorg_synced_at IS NOT NULL AS synced, u.siorg_raw_data AS raw, true AS own
FROM organizational_units AS u JOIN organizations AS o ON o.id = u.organization_id
WHERE o.siorg_code = %(organization)s AND u.siorg_code IS NOT NULL
UNION ALL
SELECT u.siorg_code AS code, u.is_active, u.level, u.siorg_synced_at IS NOT NULL AS synced, u.siorg_raw_data AS raw, false AS own
FROM organizational_units AS u JOIN organizations AS o ON o.id = u.organization_id
WHERE u.siorg_code = ANY (%(codes)s::integer[]) AND o.siorg_code <> %(organization)s

-- name: record_version
INSERT INTO system_settings (key, value, value_type, description, category)
VALUES ('siorg_versao:' || %(organization)s::integer, to_jsonb(%(version)s::text), 'string',
        'SIORG version up to which this organization has been discovered', 'siorg')
ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()
