-- name: here
-- Before a fetch is called complete: which of the parents, organizations and categories that answers name are here. Of an inactive
-- parent nobody knows where SIORG has it, if at all. Each row is asked for by key (OFFSET 0 and LIMIT keep the look-ups inside): a
-- large organization, or the queue, is never read as a whole.
SELECT 'PARENT' AS kind, w.code, CASE WHEN p.is_active THEN o.siorg_code END AS organization_code,
       ARRAY(
           WITH RECURSIVE above AS (
               SELECT p.parent_id, p.siorg_code
               UNION
               SELECT u.parent_id, u.siorg_code
               FROM above CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = above.parent_id OFFSET 0) AS u
           )
           SELECT above.siorg_code FROM above WHERE above.siorg_code IS NOT NULL
       ) AS line,
       coalesce((
           SELECT true FROM siorg_sync_queue AS q
           WHERE q.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND q.siorg_code = w.code
               AND q.status::text NOT IN ('COMPLETED', 'SKIPPED')
           LIMIT 1
       ), false)
           OR coalesce(substring(p.siorg_raw_data ->> 'codigoOrgaoEntidade' FROM '0*([0-9]+)/?\s*$') <> o.siorg_code::text, false)
           AS touched
FROM unnest(%(parents)s::integer[]) AS w (code)
CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.siorg_code = w.code OFFSET 0) AS p
CROSS JOIN LATERAL (SELECT * FROM organizations AS x WHERE x.id = p.organization_id OFFSET 0) AS o
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
