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
SELECT u.siorg_code AS code FROM organizational_units AS u JOIN organizations AS o ON o.id = u.organization_id
WHERE o.siorg_code = %(code)s AND u.is_active AND u.siorg_code IS NOT NULL

-- name: another
-- What SIORG can be asked for to compare with these units: an organization that none of them belongs to, else another one, else
-- any other unit. Not always the same: one of them may be SIORG's trouble itself.
SELECT found.code FROM (
    SELECT o.siorg_code AS code, CASE WHEN EXISTS (
        SELECT FROM organizational_units AS u WHERE u.organization_id = o.id AND u.siorg_code = ANY (%(codes)s::integer[])
    ) THEN 2 ELSE 1 END AS rank
    FROM organizations AS o WHERE o.siorg_code <> ALL (%(codes)s::integer[]) AND coalesce(o.is_active, true)
    UNION ALL
    (SELECT u.siorg_code, 3 FROM organizational_units AS u
     WHERE u.siorg_code <> ALL (%(codes)s::integer[]) AND u.is_active LIMIT 20)
) AS found
ORDER BY found.rank, random()
LIMIT 1
