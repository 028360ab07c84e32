-- name: list
SELECT o.siorg_code, o.acronym, o.name, o.cnpj, o.ug_code, coalesce(o.is_main, false) AS is_main,
       coalesce(o.is_active, true) AS is_active,
       (SELECT count(*) FROM organizational_units AS u WHERE u.organization_id = o.id AND u.is_active) AS units,
       (SELECT CASE s.value #>> '{}' WHEN 'true' THEN true WHEN 'false' THEN false END
        FROM system_settings AS s WHERE s.key::text = 'siorg_existe:' || o.siorg_code::text) AS exists_in_siorg,
       (SELECT s.value #>> '{}' FROM system_settings AS s WHERE s.key::text = 'siorg_versao:' || o.siorg_code::text) AS version,
       o.siorg_synced_at AS synced_at
FROM organizations AS o
ORDER BY o.siorg_code

-- name: holders
-- Who has this code, and who this CNPJ.
SELECT o.siorg_code AS code, o.acronym, o.cnpj, coalesce(o.is_active, true) AS is_active
FROM organizations AS o
WHERE o.siorg_code = %(code)s::integer OR o.cnpj::text = %(cnpj)s::text
ORDER BY o.siorg_code

-- name: add
INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code, is_main)
VALUES (%(code)s, %(acronym)s, %(name)s, %(cnpj)s, %(ug_code)s, false)

-- name: for_edit
SELECT o.id, o.acronym, o.name, o.cnpj, o.ug_code, o.is_main, o.address, o.city, o.state, o.zip_code, o.phone, o.email,
       o.website, o.logo_url, o.siorg_synced_at IS NOT NULL AS was_synced, o.siorg_raw_data AS base_raw
FROM organizations AS o WHERE o.siorg_code = %(code)s FOR NO KEY UPDATE

-- name: edit
UPDATE organizations AS o
SET acronym = %(acronym)s, name = %(name)s, cnpj = %(cnpj)s, ug_code = %(ug_code)s, is_main = %(is_main)s,
    address = %(address)s, city = %(city)s, state = %(state)s, zip_code = %(zip_code)s, phone = %(phone)s, email = %(email)s,
    website = %(website)s, logo_url = %(logo_url)s
WHERE o.id = %(id)s

-- name: other_main
SELECT o.siorg_code AS code, o.acronym FROM organizations AS o
WHERE o.is_main AND coalesce(o.is_active, true) AND o.siorg_code <> %(code)s
ORDER BY o.siorg_code

-- name: constraint
-- What a constraint of the table says, in the database's own words.
SELECT pg_get_constraintdef(c.oid) AS definition FROM pg_constraint AS c
WHERE c.conrelid = to_regclass('organizations') AND c.conname = %(name)s

-- name: for_end
-- Those that a person wants to end: what SIORG says of each, as far as it is known here, and what would end with it.
SELECT o.siorg_code AS code, o.acronym, o.name, coalesce(o.is_active, true) AS is_active,
       (SELECT count(*) FROM organizational_units AS u WHERE u.organization_id = o.id AND u.is_active AND u.siorg_code IS NOT NULL) AS units,
       (SELECT count(*) FROM organizational_units AS u WHERE u.organization_id = o.id AND u.is_active AND u.siorg_code IS NULL) AS unofficial,
       coalesce((SELECT s.value = 'false' FROM system_settings AS s WHERE s.key::text = 'siorg_existe:' || o.siorg_code::text), false)
           OR EXISTS (
               SELECT FROM siorg_sync_queue AS q
               WHERE q.entity_type OPERATOR(pg_catalog.=) 'ORGANIZATION' AND q.siorg_code = o.siorg_code
                   AND q.operation OPERATOR(pg_catalog.=) 'EXTINCTION' AND q.status OPERATOR(pg_catalog.=) 'CONFLICT'
           ) AS has_ended
FROM organizations AS o WHERE o.siorg_code = ANY (%(codes)s::integer[])
ORDER BY o.siorg_code

-- name: decide_end
-- The decision goes with the item that asks for it, where one is open; else with an item of its own.
WITH decision AS (
    SELECT code, jsonb_strip_nulls(jsonb_build_object('resolution', 'ACCEPT_SIORG', 'resolved_by', %(by)s::text)) AS details,
           '{"is_active": {"base": true, "local": true, "remote": false}}'::jsonb AS changes
    FROM unnest(%(codes)s::integer[]) AS c (code)
), asked AS MATERIALIZED (
    SELECT q.id, d.code, d.details, d.changes FROM decision AS d JOIN siorg_sync_queue AS q ON q.siorg_code = d.code
    WHERE q.entity_type OPERATOR(pg_catalog.=) 'ORGANIZATION' AND q.operation OPERATOR(pg_catalog.=) 'EXTINCTION'
        AND coalesce(q.status, 'PENDING')::text IN ('CONFLICT', 'PENDING')
    ORDER BY q.id FOR NO KEY UPDATE OF q
), answered AS (
    UPDATE siorg_sync_queue AS q
    SET status = 'PENDING', error_details = asked.details, detected_changes = asked.changes, scheduled_for = now(),
        processed_at = NULL, resolution_notes = coalesce(%(note)s::text, q.resolution_notes)
    FROM asked WHERE q.id = asked.id
)
INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, priority, payload, error_details, detected_changes, resolution_notes)
SELECT 'ORGANIZATION', d.code, 'EXTINCTION', 6, '{}', d.details, d.changes, %(note)s::text
FROM decision AS d WHERE NOT EXISTS (SELECT FROM asked WHERE asked.code = d.code)

-- name: reactivate
-- Active again, by a person's hand. SIORG's version is forgotten, so that its units are compared one and all.
WITH before AS (
    SELECT o.id, o.siorg_code,
           jsonb_build_object('name', o.name, 'acronym', o.acronym, 'address', o.address, 'state', o.state, 'zip_code', o.zip_code,
               'phone', o.phone, 'email', o.email, 'website', o.website, 'is_active', false) AS data
    FROM organizations AS o
    WHERE o.siorg_code = ANY (%(codes)s::integer[]) AND NOT coalesce(o.is_active, true)
    FOR NO KEY UPDATE
), done AS (
    UPDATE organizations AS o SET is_active = true FROM before WHERE o.id = before.id
), forgotten AS (
    UPDATE system_settings AS s SET value = CASE WHEN s.key::text LIKE 'siorg_em_dia:%%' THEN 'false'::jsonb ELSE 'null' END
    FROM before WHERE s.key::text IN ('siorg_versao:' || before.siorg_code::text, 'siorg_em_dia:' || before.siorg_code::text)
)
INSERT INTO siorg_history (entity_type, siorg_code, local_id, change_type, previous_data, new_data, affected_fields, source, review_notes)
SELECT 'ORGANIZATION', before.siorg_code, before.id, 'CREATION', before.data, before.data || '{"is_active": true}', '{is_active}', 'MANUAL',
       concat_ws(': ', 'reactivated' || coalesce(' by ' || %(by)s::text, ''), %(note)s::text)
FROM before
RETURNING siorg_code AS code
