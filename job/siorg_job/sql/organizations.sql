-- name: list
SELECT o.siorg_code, o.acronym, o.name, o.cnpj, o.ug_code, coalesce(o.is_main, false) AS is_main,
       coalesce(o.is_active, true) AS is_active,
       (SELECT count(*) FROM organizational_units AS u WHERE u.organization_id = o.id AND u.is_active) AS units,
       (SELECT s.value #>> '{}' FROM system_settings AS s WHERE s.key = 'siorg_versao:' || o.siorg_code) AS version,
       o.siorg_synced_at AS synced_at
FROM organizations AS o
ORDER BY o.siorg_code

-- name: holders
-- Who has this code, and who this CNPJ.
SELECT o.siorg_code AS code, o.acronym, o.cnpj, coalesce(o.is_active, true) AS is_active
FROM organizations AS o
WHERE o.siorg_code = %(code)s::integer OR o.cnpj = %(cnpj)s::text
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
