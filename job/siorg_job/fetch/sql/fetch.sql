-- name: here
-- Before a fetch is called complete: which of the parents, organizations and categories that answers name are here. Of an inactive
-- parent nobody knows where SIORG has it, if at all.
SELECT 'PARENT' AS kind, w.code, CASE WHEN u.is_active THEN o.siorg_code END AS organization_code,
       ARRAY(
           WITH RECURSIVE above AS (
               SELECT u.parent_id, u.siorg_code
               UNION
               SELECT p.parent_id, p.siorg_code
               FROM above CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = above.parent_id OFFSET 0) AS p
           )
           SELECT above.siorg_code FROM above WHERE above.siorg_code IS NOT NULL
       ) AS line,
       EXISTS (SELECT FROM {{items_of_unit}} WHERE q.status::text NOT IN ('COMPLETED', 'SKIPPED'))
           OR coalesce(substring(u.siorg_raw_data ->> 'codigoOrgaoEntidade' FROM '0*([0-9]+)/?\s*$') <> o.siorg_code::text, false)
           AS touched
FROM unnest(%(parents)s::integer[]) AS w (code) {{unit_of_code}} {{organization_of_unit}}
UNION ALL
SELECT 'ORGANIZATION', o.siorg_code, NULL, NULL, NULL
FROM organizations AS o WHERE o.siorg_code = ANY (%(organizations)s::integer[]) AND coalesce(o.is_active, true)
UNION ALL
SELECT 'CATEGORY', c.siorg_code, NULL, NULL, NULL
FROM organizational_unit_categories AS c WHERE c.siorg_code = ANY (%(categories)s::integer[])

-- name: holder_of
-- The organization that holds a unit here: by the unit's SIORG code, else by a person's mapping, else by the item's local id.
SELECT o.siorg_code AS code, coalesce(o.is_active, true) AS is_active
FROM (
    SELECT u.organization_id, 1 AS rank FROM organizational_units AS u WHERE u.siorg_code = %(code)s
    UNION ALL
    SELECT u.organization_id, 2 FROM siorg_mappings AS m JOIN organizational_units AS u ON u.id = m.local_id AND u.siorg_code IS NULL
    WHERE m.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND m.siorg_code = %(code)s
        AND m.mapping_status OPERATOR(pg_catalog.=) 'ACTIVE'
    UNION ALL
    SELECT u.organization_id, 3 FROM organizational_units AS u WHERE u.id = %(local_id)s::uuid AND u.siorg_code IS NULL
) AS holder
JOIN organizations AS o ON o.id = holder.organization_id
ORDER BY holder.rank
LIMIT 1

-- name: active_units
-- The active units of an organization that SIORG may know.
SELECT u.siorg_code AS code FROM organizations AS o {{units_of_organization}}
WHERE o.siorg_code = %(code)s AND u.is_active AND u.siorg_code IS NOT NULL

-- name: another
-- What SIORG can be asked for to compare with these units: an organization that none of them belongs to, else another one, else
-- any other unit. Not always the same: one of them may be SIORG's trouble itself.
SELECT found.code FROM (
    SELECT o.siorg_code AS code, CASE WHEN o.id IN (
        SELECT u.organization_id FROM unnest(%(codes)s::integer[]) AS w (code) {{unit_of_code}}
    ) THEN 2 ELSE 1 END AS rank
    FROM organizations AS o WHERE o.siorg_code <> ALL (%(codes)s::integer[]) AND coalesce(o.is_active, true)
    UNION ALL
    (SELECT u.siorg_code, 3 FROM organizational_units AS u
     WHERE u.siorg_code <> ALL (%(codes)s::integer[]) AND u.is_active LIMIT 20)
) AS found
ORDER BY found.rank, random()
LIMIT 1
