-- name: lock_organizations
-- Applies to one organization take turns: new units cannot be locked as rows, and a tree is no place for two at once.
-- In one order for everybody, so that nobody waits in a circle.
SELECT pg_advisory_xact_lock(hashtext('siorg_sync_apply'), o.code)
FROM (
    SELECT code FROM unnest(%(organizations)s::integer[]) AS w (code)
    UNION
    SELECT o.siorg_code FROM organizational_units AS u JOIN organizations AS o ON o.id = u.organization_id
    WHERE u.siorg_code = ANY (%(codes)s::integer[])
    ORDER BY 1
) AS o

-- name: organizations
-- Here and below: a time of the last sync that lies in the future (another clock wrote it) is unknown, or it would outdo
-- every answer.
SELECT o.id, o.siorg_code AS code, o.name, o.acronym, o.address, o.state, o.zip_code, o.phone, o.email, o.website,
       coalesce(o.is_active, true) AS is_active, o.siorg_raw_data AS base_raw,
       o.siorg_synced_at IS NOT NULL AS was_synced,
       CASE WHEN o.siorg_synced_at <= clock_timestamp() THEN o.siorg_synced_at END AS synced_at
FROM organizations AS o
WHERE o.siorg_code = ANY (%(codes)s::integer[])
   OR o.id IN (SELECT u.organization_id FROM organizational_units AS u WHERE u.siorg_code = ANY (%(unit_codes)s::integer[]))
ORDER BY o.id

-- name: organizations_for_change
SELECT o.id FROM organizations AS o WHERE o.siorg_code = ANY (%(codes)s::integer[]) ORDER BY o.id FOR NO KEY UPDATE

-- name: active_units
SELECT u.organization_id, count(*) AS units FROM organizational_units AS u
WHERE u.is_active AND u.organization_id = ANY (%(ids)s::uuid[]) GROUP BY 1

-- name: units
-- The units meant by codes: by their SIORG code, else (an unofficial unit that a person mapped, or that the item names)
-- by mapping or local id.
WITH wanted AS (
    SELECT * FROM unnest(%(codes)s::integer[], %(local_ids)s::uuid[]) AS w (code, local_id)
), target AS (
    SELECT u.id, w.code FROM wanted AS w JOIN organizational_units AS u ON u.siorg_code = w.code
    UNION
    SELECT u.id, w.code FROM wanted AS w
    JOIN siorg_mappings AS m ON m.entity_type = 'UNIT' AND m.siorg_code = w.code AND m.mapping_status = 'ACTIVE'
    JOIN organizational_units AS u ON u.id = m.local_id AND u.siorg_code IS NULL
    UNION
    SELECT u.id, w.code FROM wanted AS w JOIN organizational_units AS u ON u.id = w.local_id AND u.siorg_code IS NULL
)
SELECT target.code, u.id, u.organization_id, o.siorg_code AS organization_code, u.parent_id,
       p.siorg_code AS parent_code, u.siorg_parent_code,
       EXISTS (SELECT FROM organizational_units AS s WHERE s.siorg_code = u.siorg_parent_code AND s.organization_id = u.organization_id)
           AS siorg_parent_is_local,
       u.category_id, c.siorg_code AS category_code, u.unit_type_id, t.code AS type_slug, u.name, u.acronym, u.activity_area,
       u.contact_info, u.level, u.is_active, u.siorg_synced_at IS NOT NULL AS was_synced,
       CASE WHEN u.siorg_synced_at <= clock_timestamp() THEN u.siorg_synced_at END AS synced_at, u.siorg_raw_data AS base_raw,
       u.siorg_url AS url, u.siorg_last_version AS version
FROM target
JOIN organizational_units AS u ON u.id = target.id
JOIN organizations AS o ON o.id = u.organization_id
JOIN organizational_unit_categories AS c ON c.id = u.category_id
JOIN organizational_unit_types AS t ON t.id = u.unit_type_id
LEFT JOIN organizational_units AS p ON p.id = u.parent_id
ORDER BY u.id, u.siorg_code NULLS LAST
FOR NO KEY UPDATE OF u

-- name: ancestors
-- Found by key at every step (OFFSET 0 keeps the lookups inside): a large organization is never read as a whole.
WITH RECURSIVE above AS (
    SELECT u.id, u.siorg_code, u.parent_id, u.organization_id
    FROM (
        SELECT c.id FROM organizational_units AS c WHERE c.siorg_code = ANY (%(codes)s::integer[])
        UNION
        SELECT * FROM unnest(%(ids)s::uuid[])
    ) AS wanted (id)
    CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = wanted.id OFFSET 0) AS u
    UNION
    SELECT u.id, u.siorg_code, u.parent_id, u.organization_id
    FROM above CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = above.parent_id OFFSET 0) AS u
)
SELECT above.id, above.siorg_code AS code, above.parent_id, o.siorg_code AS organization_code
FROM above JOIN organizations AS o ON o.id = above.organization_id

-- name: children
-- Active units below those that are to end, and when an item of their own is due.
SELECT u.parent_id, u.id, u.siorg_code AS code, u.name,
       (SELECT min(CASE WHEN q.status = 'PROCESSING' OR {{scheduled}} <= now() THEN 0
                        ELSE extract(epoch FROM {{scheduled}} - now()) END)::float8
        FROM siorg_sync_queue AS q
        WHERE q.entity_type = 'UNIT' AND q.siorg_code = u.siorg_code AND ({{waiting}} OR q.status = 'PROCESSING')) AS item_due_seconds
FROM organizational_units AS u
WHERE u.parent_id = ANY (%(ids)s::uuid[]) AND u.is_active
ORDER BY u.siorg_code

-- name: types
SELECT 'TYPE' AS entity_type, id, siorg_code AS code, code AS slug, name, siorg_name, coalesce(is_active, true) AS is_active,
       siorg_raw_data AS base_raw, CASE WHEN siorg_synced_at <= clock_timestamp() THEN siorg_synced_at END AS synced_at,
       coalesce(is_siorg_managed, false) AS managed
FROM organizational_unit_types ORDER BY id

-- name: categories
SELECT 'CATEGORY' AS entity_type, id, siorg_code AS code, NULL AS slug, name, siorg_name, coalesce(is_active, true) AS is_active,
       siorg_raw_data AS base_raw, CASE WHEN siorg_synced_at <= clock_timestamp() THEN siorg_synced_at END AS synced_at,
       coalesce(is_siorg_managed, false) AS managed
FROM organizational_unit_categories ORDER BY id

-- name: known_parents
-- Before a fetch is called complete: which parents are here, and do not hang below the unit that is to hang below them.
SELECT w.code AS unit, w.parent AS code, o.siorg_code AS organization_code,
       EXISTS (
           WITH RECURSIVE above AS (
               SELECT p.id, p.parent_id, p.siorg_code
               UNION
               SELECT u.id, u.parent_id, u.siorg_code FROM organizational_units AS u JOIN above ON u.id = above.parent_id
           )
           SELECT FROM above WHERE above.siorg_code = w.code
       ) AS below
FROM unnest(%(codes)s::integer[], %(parents)s::integer[]) AS w (code, parent)
JOIN organizational_units AS p ON p.siorg_code = w.parent
JOIN organizations AS o ON o.id = p.organization_id

-- name: organizations_of
-- The organizations that hold these units here: a hint where the item's payload gives none.
SELECT u.siorg_code AS code, o.siorg_code AS organization_code
FROM organizational_units AS u JOIN organizations AS o ON o.id = u.organization_id
WHERE u.siorg_code = ANY (%(codes)s::integer[])

-- name: category_codes
SELECT siorg_code AS code FROM organizational_unit_categories WHERE siorg_code = ANY (%(codes)s::integer[])

-- name: clock
SELECT clock_timestamp() AS now

-- name: kept
-- Conflicts that a person ended by keeping the local values: what SIORG said there was seen and turned down.
SELECT q.entity_type, q.siorg_code AS code, q.detected_changes, coalesce(q.processed_at, q.last_attempt_at, q.created_at) AS decided_at
FROM siorg_sync_queue AS q
WHERE q.siorg_code = ANY (%(codes)s::integer[]) AND q.entity_type IN ('ORGANIZATION', 'UNIT', 'CATEGORY', 'TYPE')
  AND q.status = 'COMPLETED' AND jsonb_typeof(q.detected_changes) = 'object'
  AND q.operation IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE') AND NOT coalesce(q.error_details ? 'resolution', false)
ORDER BY decided_at, q.id
