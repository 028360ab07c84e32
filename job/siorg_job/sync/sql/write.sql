-- name: insert_types
INSERT INTO organizational_unit_types (id, code, name, siorg_code, siorg_name, is_siorg_managed, is_active, siorg_synced_at,
    siorg_sync_status, siorg_raw_data, siorg_base)
SELECT r.id, r.slug, r.name, r.code, r.siorg_name, r.managed, r.is_active, r.synced_at, 'COMPLETED', r.base_raw,
    r.base_record
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, slug text, name text, code integer, siorg_name text, managed boolean,
    is_active boolean, synced_at timestamptz, base_raw jsonb, base_record jsonb)

-- name: insert_categories
INSERT INTO organizational_unit_categories (id, name, siorg_code, siorg_name, is_siorg_managed, is_active, siorg_synced_at,
    siorg_sync_status, siorg_raw_data, siorg_base)
SELECT r.id, r.name, r.code, r.siorg_name, r.managed, r.is_active, r.synced_at, 'COMPLETED', r.base_raw,
    r.base_record
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, name text, code integer, siorg_name text, managed boolean,
    is_active boolean, synced_at timestamptz, base_raw jsonb, base_record jsonb)

-- name: update_types
UPDATE organizational_unit_types AS t
SET name = r.name, siorg_code = r.code, siorg_name = r.siorg_name, is_siorg_managed = r.managed, is_active = r.is_active,
    siorg_synced_at = r.synced_at, siorg_sync_status = 'COMPLETED', siorg_raw_data = r.base_raw, siorg_base = r.base_record
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, name text, code integer, siorg_name text, managed boolean,
    is_active boolean, synced_at timestamptz, base_raw jsonb, base_record jsonb)
WHERE t.id = r.id

-- name: set_aside_categories
-- Names that others of the group take over: the constraint looks at each row as it is written, and rows may exchange names.
UPDATE organizational_unit_categories AS c SET name = r.id::text
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid)
WHERE c.id = r.id

-- name: update_categories
UPDATE organizational_unit_categories AS c
SET name = r.name, siorg_code = r.code, siorg_name = r.siorg_name, is_siorg_managed = r.managed, is_active = r.is_active,
    siorg_synced_at = r.synced_at, siorg_sync_status = 'COMPLETED', siorg_raw_data = r.base_raw, siorg_base = r.base_record
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, name text, code integer, siorg_name text, managed boolean,
    is_active boolean, synced_at timestamptz, base_raw jsonb, base_record jsonb)
WHERE c.id = r.id

-- name: update_organizations
UPDATE organizations AS o
SET name = r.name, acronym = r.acronym, address = r.address, state = r.state, zip_code = r.zip_code, phone = r.phone,
    email = r.email, website = r.website, is_active = r.is_active, siorg_synced_at = r.synced_at, siorg_raw_data = r.base_raw,
    siorg_base = r.base_record
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, name text, acronym text, address text, state text, zip_code text, phone text,
    email text, website text, is_active boolean, synced_at timestamptz, base_raw jsonb, base_record jsonb)
WHERE o.id = r.id

-- name: insert_units
-- One level of the hierarchy at a time: the row trigger computes a path from its parent's.
INSERT INTO organizational_units (id, organization_id, parent_id, category_id, unit_type_id, name, acronym, siorg_code,
    siorg_parent_code, siorg_url, siorg_last_version, is_siorg_managed, activity_area, contact_info, is_active,
    siorg_synced_at, siorg_sync_status, siorg_raw_data, siorg_base)
SELECT r.id, r.organization_id, r.parent_id, r.category_id, r.unit_type_id, r.name, r.acronym, r.code, r.siorg_parent_code,
    r.url, r.version, true, r.activity_area::activity_area_enum, r.contact_info, r.is_active, r.synced_at, 'COMPLETED', r.base_raw,
    r.base_record
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, organization_id uuid, parent_id uuid, category_id uuid, unit_type_id uuid,
    name text, acronym text, code integer, siorg_parent_code integer, url text, version text, activity_area text,
    contact_info jsonb, is_active boolean, synced_at timestamptz, base_raw jsonb, base_record jsonb)

-- name: relocate_units
-- Only what the row trigger looks at; the rest of the row follows with update_units.
UPDATE organizational_units AS u
SET organization_id = r.organization_id, parent_id = r.parent_id, name = r.name
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, organization_id uuid, parent_id uuid, name text)
WHERE u.id = r.id

-- name: update_units
UPDATE organizational_units AS u
SET category_id = r.category_id, unit_type_id = r.unit_type_id, acronym = r.acronym, siorg_code = r.code,
    siorg_parent_code = r.siorg_parent_code, siorg_url = r.url, siorg_last_version = r.version, is_siorg_managed = true,
    activity_area = r.activity_area::activity_area_enum, contact_info = r.contact_info, is_active = r.is_active,
    deactivated_at = CASE WHEN r.is_active THEN NULL WHEN u.is_active THEN now() ELSE u.deactivated_at END,
    deactivation_reason = CASE WHEN r.is_active THEN NULL ELSE coalesce(r.deactivation_reason, u.deactivation_reason) END,
    siorg_synced_at = r.synced_at, siorg_sync_status = 'COMPLETED', siorg_raw_data = r.base_raw, siorg_base = r.base_record
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, category_id uuid, unit_type_id uuid, acronym text, code integer,
    siorg_parent_code integer, url text, version text, activity_area text, contact_info jsonb, is_active boolean,
    deactivation_reason text, synced_at timestamptz, base_raw jsonb, base_record jsonb)
WHERE u.id = r.id

-- name: touch_units
-- Nothing that people see differs: only what the sync notes for itself.
UPDATE organizational_units AS u
SET siorg_parent_code = r.siorg_parent_code, siorg_url = r.url, siorg_last_version = r.version, siorg_synced_at = r.synced_at,
    siorg_sync_status = 'COMPLETED', siorg_raw_data = r.base_raw, siorg_base = r.base_record, siorg_code = r.code,
    is_siorg_managed = true
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, code integer, siorg_parent_code integer, url text, version text,
    synced_at timestamptz, base_raw jsonb, base_record jsonb)
WHERE u.id = r.id

-- name: refresh_roots
-- An organization was renamed: the paths of the units directly under it begin with its name. The row trigger knows how.
UPDATE organizational_units AS u SET name = u.name WHERE u.parent_id IS NULL AND u.organization_id = ANY (%(ids)s::uuid[])
RETURNING u.id

-- name: right_paths
-- The given units and everything below them, from the top down, with level and path as they follow from the given ones.
RECURSIVE tree AS (
    SELECT u.id, u.organization_id, u.level, u.path_ids, u.path_names, u.level AS was, 0 AS below
    FROM organizational_units AS u WHERE u.id = ANY (%(ids)s::uuid[])
    UNION ALL
    SELECT u.id, u.organization_id, least(t.level, 1000) + 1, t.path_ids OPERATOR(pg_catalog.||) u.id,
        t.path_names || ' > ' || u.name::text, u.level, t.below + 1
    FROM tree AS t CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.parent_id = t.id OFFSET 0) AS u
    WHERE u.id <> ALL (t.path_ids)
), right_path AS (
    -- A unit reached from two of the given ones: the longest way starts at the topmost, whose path is right.
    SELECT DISTINCT ON (id) * FROM tree ORDER BY id, below DESC
)

-- name: descendants_for_change
-- What refresh_descendants will write, as far as it can be seen before. By id, and before that reads it: a unit that a person is
-- moving hangs elsewhere once the person is done.
WITH {{right_paths}}
SELECT u.id FROM organizational_units AS u
WHERE u.id = ANY (ARRAY(
    SELECT r.id FROM right_path AS r JOIN organizational_units AS x ON x.id = r.id
    WHERE r.below > 0 AND (x.level, x.path_ids::text, x.path_names) IS DISTINCT FROM (r.level, r.path_ids::text, r.path_names)))
ORDER BY u.id FOR NO KEY UPDATE

-- name: refresh_descendants
-- After descendants_for_change. Returns how deep it pushed any of them (0: none).
WITH {{right_paths}}
, refreshed AS (
    UPDATE organizational_units AS u SET level = r.level, path_ids = r.path_ids, path_names = r.path_names
    FROM right_path AS r
    WHERE u.id = r.id AND r.below > 0
      AND (u.level, u.path_ids::text, u.path_names) IS DISTINCT FROM (r.level, r.path_ids::text, r.path_names)
)
SELECT coalesce(max(level) FILTER (WHERE level > was), 0) AS deepest FROM right_path

-- name: insert_mappings
-- Of new units. A person who is mapping one of them has done so after this statement.
{{mapping}}
ON CONFLICT (entity_type, siorg_code) DO NOTHING

-- name: mapped_elsewhere
-- Of new units those that a person has mapped to an unofficial one: that one is meant.
SELECT m.siorg_code AS code
FROM jsonb_to_recordset(%(rows)s) AS w (code integer) {{mapping_of_code}}
CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = m.local_id OFFSET 0) AS u
WHERE m.mapping_status OPERATOR(pg_catalog.=) 'ACTIVE' AND u.siorg_code IS NULL

-- name: upsert_mappings
{{mapping}}
ON CONFLICT (entity_type, siorg_code) DO UPDATE
SET local_id = excluded.local_id, siorg_parent_code = coalesce(excluded.siorg_parent_code, siorg_mappings.siorg_parent_code),
    siorg_hierarchy_path = coalesce(excluded.siorg_hierarchy_path, siorg_mappings.siorg_hierarchy_path),
    -- MERGED and UNMAPPED are a person's words.
    mapping_status = CASE WHEN siorg_mappings.mapping_status::text IN ('MERGED', 'UNMAPPED') THEN siorg_mappings.mapping_status
        ELSE excluded.mapping_status END

-- name: mapping
INSERT INTO siorg_mappings (entity_type, local_id, siorg_code, siorg_parent_code, siorg_hierarchy_path, mapping_status)
SELECT 'UNIT', r.id, r.code, r.siorg_parent_code,
    (SELECT array_agg(p.siorg_code ORDER BY n.position) FILTER (WHERE p.siorg_code IS NOT NULL)
     FROM organizational_units AS u CROSS JOIN unnest(u.path_ids) WITH ORDINALITY AS n (id, position)
     JOIN organizational_units AS p ON p.id = n.id WHERE u.id = r.id),
    CASE WHEN r.is_active THEN 'ACTIVE' ELSE 'DEPRECATED' END::mapping_status_enum
FROM jsonb_to_recordset(%(rows)s) AS r (id uuid, code integer, siorg_parent_code integer, is_active boolean)

-- name: refresh_mapping_paths
-- The hierarchy path of everything below units that were moved.
-- Each table is asked by key (OFFSET 0 keeps the lookups inside): the organization is locked meanwhile.
WITH moved AS MATERIALIZED (
    SELECT u.id, u.path_ids FROM organizational_units AS u WHERE u.path_ids OPERATOR(pg_catalog.&&) %(ids)s::uuid[]
), differing AS MATERIALIZED (
    SELECT m.id, now.path
    FROM moved
    CROSS JOIN LATERAL (
        SELECT x.id, x.siorg_hierarchy_path FROM siorg_mappings AS x
        WHERE x.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND x.local_id = moved.id OFFSET 0
    ) AS m
    CROSS JOIN LATERAL (
        SELECT array_agg(p.siorg_code ORDER BY n.position) FILTER (WHERE p.siorg_code IS NOT NULL) AS path
        FROM unnest(moved.path_ids) WITH ORDINALITY AS n (id, position)
        CROSS JOIN LATERAL (SELECT y.siorg_code FROM organizational_units AS y WHERE y.id = n.id OFFSET 0) AS p
    ) AS now
    WHERE m.siorg_hierarchy_path::text IS DISTINCT FROM now.path::text
)
UPDATE siorg_mappings AS m SET siorg_hierarchy_path = differing.path
FROM differing WHERE m.id = differing.id AND m.id = ANY (ARRAY(SELECT d.id FROM differing AS d))

-- name: insert_history
INSERT INTO siorg_history (entity_type, siorg_code, local_id, change_type, previous_data, new_data, affected_fields,
    siorg_version, source, sync_queue_id, requires_review)
SELECT r.entity_type::siorg_entity_type_enum, r.siorg_code, r.local_id, r.change_type::siorg_change_type_enum, r.previous_data,
    r.new_data, r.affected_fields, r.siorg_version, 'SYNC', r.sync_queue_id, r.requires_review
FROM jsonb_to_recordset(%(rows)s) AS r (entity_type text, siorg_code integer, local_id uuid, change_type text,
    previous_data jsonb, new_data jsonb, affected_fields text[], siorg_version text, sync_queue_id uuid, requires_review boolean)
