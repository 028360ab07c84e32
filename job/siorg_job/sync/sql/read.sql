-- name: lock
-- Applies to one organization take turns: new units cannot be locked as rows, and a tree is no place for two at once.
-- So do applies that change the domain tables: one may rename several of their rows. The others share them, for each unit written
-- locks the rows that it refers to, in no order.
-- In one order for everybody, so that nobody waits in a circle. The rows are locked, and never changed.
WITH touched AS MATERIALIZED (
    SELECT code FROM unnest(%(organizations)s::integer[]) AS w (code)
    UNION
    SELECT o.siorg_code FROM unnest(%(codes)s::integer[]) AS w (code) {{unit_of_code}} {{organization_of_unit}}
), shared AS MATERIALIZED (
    SELECT t.name FROM siorg_request_pace AS t WHERE t.name = 'domains' AND NOT %(domains)s FOR SHARE
), changed AS MATERIALIZED (
    SELECT t.name FROM siorg_request_pace AS t WHERE t.name = 'domains' AND %(domains)s FOR NO KEY UPDATE
), older AS MATERIALIZED (
    SELECT {{await_older}}
    FROM (
        SELECT hashtext('siorg_sync_apply') AS class, touched.code AS object FROM touched
        WHERE (SELECT count(*) FROM shared) + (SELECT count(*) FROM changed) >= 0
        ORDER BY touched.code
    ) AS k
)
INSERT INTO siorg_request_pace AS t (name)
SELECT 'organization ' || touched.code::text FROM touched WHERE (SELECT count(*) FROM older) >= 0 ORDER BY touched.code
ON CONFLICT (name) DO UPDATE SET next_at = t.next_at WHERE false

-- name: organizations
-- Here and below: a time of the last sync that lies in the future (another clock wrote it) is unknown, or it would outdo
-- every answer.
SELECT o.id, o.siorg_code AS code, o.name, o.acronym, o.address, o.state, o.zip_code, o.phone, o.email, o.website,
       coalesce(o.is_active, true) AS is_active, o.siorg_raw_data AS base_raw,
       o.siorg_base AS record, o.siorg_synced_at IS NOT NULL AS was_synced,
       CASE WHEN o.siorg_synced_at <= clock_timestamp() THEN o.siorg_synced_at END AS synced_at
FROM organizations AS o
WHERE o.siorg_code = ANY (%(codes)s::integer[])
   OR o.id IN (SELECT u.organization_id FROM unnest(%(unit_codes)s::integer[]) AS w (code) {{unit_of_code}})

-- name: organizations_for_change
-- Rows are locked here by their ids and by nothing else, and read by the statement after this one. A statement that waits for a
-- lock looks at the locked row anew, and at all rows joined to it as they were before: where they do not fit together any more,
-- it drops the row, as if there were none.
SELECT o.id FROM organizations AS o
WHERE o.id = ANY (ARRAY(SELECT x.id FROM organizations AS x WHERE x.siorg_code = ANY (%(codes)s::integer[])))
ORDER BY o.id FOR NO KEY UPDATE

-- name: active_units
SELECT u.organization_id, array_agg(u.siorg_code) AS codes
FROM unnest(%(ids)s::uuid[]) AS o (id) {{units_of_organization}}
WHERE u.is_active AND u.siorg_code IS NOT NULL GROUP BY 1

-- name: off_path
-- Of level and path of unit u (parent p, organization o) what does not follow from the parent as it is here. Directly under an
-- organization an existing installation's trigger may put the acronym before the name.
coalesce((
    SELECT jsonb_object_agg(f.name, jsonb_build_array(f.here, f.due))
    FROM (VALUES
        ('level', to_jsonb(u.level), to_jsonb(coalesce(p.level, 0)::bigint + 1)),
        ('path_ids', to_jsonb(u.path_ids), to_jsonb(coalesce(p.path_ids, '{}'::uuid[]) OPERATOR(pg_catalog.||) u.id)),
        ('path_names', to_jsonb(u.path_names), to_jsonb(CASE
            WHEN p.id IS NOT NULL THEN coalesce(p.path_names || ' > ' || u.name::text, u.path_names)
            WHEN u.path_names = o.acronym::text || ' > ' || u.name::text THEN u.path_names
            ELSE o.name::text || ' > ' || u.name::text END))
    ) AS f (name, here, due)
    WHERE f.here IS DISTINCT FROM f.due
), '{}'::jsonb)

-- name: units_for_change
-- See organizations_for_change.
SELECT u.id FROM organizational_units AS u
WHERE u.id = ANY (ARRAY(SELECT target.id FROM ({{units_meant}}) AS target))
ORDER BY u.id FOR NO KEY UPDATE

-- name: units_meant
-- By their SIORG code, else (an unofficial unit that a person mapped, or that the item names) by mapping or local id.
SELECT u.id, w.code FROM unnest(%(codes)s::integer[]) AS w (code) {{unit_of_code}}
UNION
SELECT u.id, w.code FROM unnest(%(codes)s::integer[]) AS w (code) {{mapping_of_code}}
CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = m.local_id OFFSET 0) AS u
WHERE m.mapping_status OPERATOR(pg_catalog.=) 'ACTIVE' AND u.siorg_code IS NULL
UNION
SELECT u.id, w.code FROM unnest(%(codes)s::integer[], %(local_ids)s::uuid[]) AS w (code, local_id)
CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = w.local_id OFFSET 0) AS u
WHERE u.siorg_code IS NULL

-- name: units
-- After units_for_change.
SELECT target.code, u.id, u.organization_id, o.siorg_code AS organization_code, u.parent_id,
       p.siorg_code AS parent_code, u.siorg_parent_code,
       u.category_id, c.siorg_code AS category_code, c.name AS category_name, u.unit_type_id, t.code AS type_slug, u.name, u.acronym,
       u.activity_area, u.contact_info, u.level, {{off_path}} AS off_path, u.is_active, u.siorg_synced_at IS NOT NULL AS was_synced,
       CASE WHEN u.siorg_synced_at <= clock_timestamp() THEN u.siorg_synced_at END AS synced_at, u.siorg_raw_data AS base_raw,
       u.siorg_base AS record, u.siorg_url AS url, u.siorg_last_version AS version
FROM ({{units_meant}}) AS target {{unit_with_all}}
ORDER BY u.siorg_code NULLS LAST, u.id

-- name: units_to_compare
-- All units of one organization that SIORG may know, and those named by code wherever they are.
SELECT u.siorg_code AS code, u.id, u.organization_id, o.siorg_code AS organization_code, u.parent_id,
       p.siorg_code AS parent_code, u.siorg_parent_code,
       u.category_id, c.siorg_code AS category_code, c.name AS category_name, u.unit_type_id, t.code AS type_slug, u.name, u.acronym,
       u.activity_area, u.contact_info, u.level, {{off_path}} AS off_path, u.is_active, u.siorg_synced_at IS NOT NULL AS was_synced,
       CASE WHEN u.siorg_synced_at <= clock_timestamp() THEN u.siorg_synced_at END AS synced_at, u.siorg_raw_data AS base_raw,
       u.siorg_base AS record, u.siorg_url AS url, u.siorg_last_version AS version
FROM (
    SELECT u.id FROM organizations AS o {{units_of_organization}}
    WHERE o.siorg_code = %(organization)s AND u.siorg_code IS NOT NULL
    UNION
    SELECT u.id FROM unnest(%(codes)s::integer[]) AS w (code) {{unit_of_code}}
) AS target {{unit_with_all}}

-- name: unit_with_all
-- Of target.id: the unit and all that it refers to.
CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = target.id OFFSET 0) AS u
{{organization_of_unit}}
JOIN organizational_unit_categories AS c ON c.id = u.category_id
JOIN organizational_unit_types AS t ON t.id = u.unit_type_id
LEFT JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = u.parent_id OFFSET 0) AS p ON true

-- name: ancestors
-- By key at every step: a large organization is never read as a whole.
WITH RECURSIVE above AS (
    SELECT u.id, u.siorg_code, u.parent_id, u.organization_id
    FROM (
        SELECT u.id FROM unnest(%(codes)s::integer[]) AS w (code) {{unit_of_code}}
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
-- Active units below those that are to end, when an item of their own is due, and whether SIORG had them there, too, when it was
-- last asked about them; not those whose own end a person turned down.
SELECT u.parent_id, u.id, u.siorg_code AS code, u.name,
       u.siorg_code IS NOT NULL AND u.siorg_parent_code IS NOT NULL
           AND u.siorg_parent_code = (SELECT p.siorg_code FROM organizational_units AS p WHERE p.id = u.parent_id)
           AND coalesce(u.siorg_raw_data ->> 'operacao', '') <> 'EXCLUSAO'
           AND NOT EXISTS (
               SELECT FROM {{items_of_unit}}
               WHERE q.detected_changes ? 'is_active'
                 AND (q.status OPERATOR(pg_catalog.=) 'CONFLICT' OR (q.status OPERATOR(pg_catalog.=) 'COMPLETED'
                     AND NOT coalesce(q.error_details ? 'resolution', false)))
           ) AS is_named,
       (SELECT min(CASE WHEN q.status::text = 'PROCESSING' OR {{scheduled}} <= now() THEN 0
                        ELSE extract(epoch FROM least({{scheduled}}, now() + interval '1 year') - now()) END)::float8
        FROM {{items_of_unit}} WHERE {{open}}) AS item_due_seconds
FROM (SELECT DISTINCT unnest(%(ids)s::uuid[])) AS p (id) {{units_below}}
WHERE u.is_active
ORDER BY u.siorg_code

-- name: hanging_wrong
-- Units that stay where a unit left, and those that wait at the top for one that came; nothing about them is waiting or in work.
WITH moved AS MATERIALIZED (
    SELECT p.id, p.siorg_code, p.organization_id, p.is_active
    FROM unnest(%(ids)s::uuid[]) AS w (id)
    CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = w.id OFFSET 0) AS p
)
SELECT u.siorg_code AS code
FROM (
    SELECT u.siorg_code FROM moved AS p {{units_below}}
    WHERE u.is_active AND (u.organization_id <> p.organization_id OR NOT p.is_active)
    UNION
    SELECT u.siorg_code FROM moved AS p {{units_waiting_for}}
    WHERE p.is_active AND u.is_active AND u.organization_id = p.organization_id AND u.id <> p.id
) AS u
WHERE u.siorg_code IS NOT NULL AND NOT EXISTS (SELECT FROM {{items_of_unit}} WHERE {{open}})
ORDER BY 1

-- name: types_for_change
-- Here and below: what a person is writing is waited for, and read.
SELECT t.id FROM organizational_unit_types AS t ORDER BY t.id FOR NO KEY UPDATE

-- name: categories_for_change
SELECT c.id FROM organizational_unit_categories AS c ORDER BY c.id FOR NO KEY UPDATE

-- name: types
SELECT 'TYPE' AS entity_type, id, siorg_code AS code, code AS slug, name, siorg_name, coalesce(is_active, true) AS is_active,
       siorg_raw_data AS base_raw, CASE WHEN siorg_synced_at <= clock_timestamp() THEN siorg_synced_at END AS synced_at,
       coalesce(is_siorg_managed, false) AS managed, siorg_base AS record
FROM organizational_unit_types ORDER BY id

-- name: categories
SELECT 'CATEGORY' AS entity_type, id, siorg_code AS code, NULL AS slug, name, siorg_name, coalesce(is_active, true) AS is_active,
       siorg_raw_data AS base_raw, CASE WHEN siorg_synced_at <= clock_timestamp() THEN siorg_synced_at END AS synced_at,
       coalesce(is_siorg_managed, false) AS managed, siorg_base AS record
FROM organizational_unit_categories ORDER BY id

-- name: organizations_of
-- The organizations that hold these units here: a hint where the item's payload gives none.
SELECT u.siorg_code AS code, o.siorg_code AS organization_code
FROM unnest(%(codes)s::integer[]) AS w (code) {{unit_of_code}} {{organization_of_unit}}

-- name: kept
-- Conflicts that the API server ended as COMPLETED because a person keeps the local values: what SIORG said there was seen
-- and turned down. Of an end, a merge or a split that is the end alone: the rest was shown, and is not in dispute.
SELECT q.id, q.entity_type, q.siorg_code AS code,
       CASE WHEN q.operation::text IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE') THEN q.detected_changes
            ELSE jsonb_build_object('is_active', q.detected_changes -> 'is_active') END AS detected_changes,
       coalesce(q.processed_at, q.last_attempt_at, q.created_at) AS decided_at
FROM unnest(%(entity_types)s::text[], %(codes)s::integer[]) AS w (entity_type, code) {{items_of_entity}}
WHERE q.status OPERATOR(pg_catalog.=) 'COMPLETED' AND jsonb_typeof(q.detected_changes) = 'object'
  AND NOT coalesce(q.error_details ? 'resolution', false)
ORDER BY decided_at, q.id

-- name: open_conflicts
SELECT q.entity_type, q.siorg_code AS code, q.detected_changes
FROM unnest(%(entity_types)s::text[], %(codes)s::integer[]) AS w (entity_type, code) {{items_of_entity}}
WHERE q.status OPERATOR(pg_catalog.=) 'CONFLICT' AND jsonb_typeof(q.detected_changes) = 'object'

-- name: registered
SELECT o.siorg_code AS code FROM organizations AS o WHERE coalesce(o.is_active, true)
