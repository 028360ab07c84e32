-- name: tables
-- Refused at once where somebody has locked one of them, or waits for that; the refusal names it.
LOCK TABLE organizations, organizational_units, organizational_unit_types, organizational_unit_categories, siorg_mappings, siorg_history,
    siorg_sync_queue IN ROW EXCLUSIVE MODE NOWAIT

-- name: rows
-- Of each item a row that it needs and somebody else has locked. Nothing is waited for: what cannot be locked at once is skipped.
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest(%(positions)s::integer[], %(kinds)s::text[], %(codes)s::integer[], %(ids)s::uuid[])
        AS w (position, kind, code, id)
), needed AS MATERIALIZED (
    SELECT w.position, w.kind, w.id, 'its row of the queue' AS what FROM wanted AS w WHERE w.kind = 'item'
    UNION ALL
    SELECT w.position, w.kind, u.id, 'unit ' || w.code::text
    FROM wanted AS w JOIN organizational_units AS u ON u.siorg_code = w.code OR u.id = w.id WHERE w.kind IN ('unit', 'parent')
    UNION ALL
    SELECT w.position, 'mapping', m.id, 'the mapping of unit ' || w.code::text
    FROM wanted AS w {{mapping_of_code}} WHERE w.kind = 'unit'
    UNION ALL
    SELECT w.position, w.kind, o.id, 'organization ' || w.code::text
    FROM wanted AS w JOIN organizations AS o ON o.siorg_code = w.code WHERE w.kind IN ('organization', 'home')
    UNION ALL
    SELECT w.position, w.kind, c.id, 'category ' || w.code::text
    FROM wanted AS w JOIN organizational_unit_categories AS c ON c.siorg_code = w.code WHERE w.kind = 'category'
    UNION ALL
    SELECT w.position, w.kind, d.id, 'a category or type'
    FROM wanted AS w
    CROSS JOIN (SELECT t.id FROM organizational_unit_types AS t UNION ALL SELECT c.id FROM organizational_unit_categories AS c) AS d
    WHERE w.kind = 'domains'
), free AS MATERIALIZED (
    SELECT 'item' AS kind, x.id FROM (
        SELECT q.id FROM siorg_sync_queue AS q WHERE q.id = ANY (ARRAY(SELECT n.id FROM needed AS n WHERE n.kind = 'item'))
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS x
    UNION ALL
    SELECT 'unit', x.id FROM (
        SELECT u.id FROM organizational_units AS u WHERE u.id = ANY (ARRAY(SELECT n.id FROM needed AS n WHERE n.kind = 'unit'))
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS x
    UNION ALL
    SELECT 'parent', x.id FROM (
        SELECT u.id FROM organizational_units AS u WHERE u.id = ANY (ARRAY(SELECT n.id FROM needed AS n WHERE n.kind = 'parent'))
        FOR KEY SHARE SKIP LOCKED
    ) AS x
    UNION ALL
    SELECT 'mapping', x.id FROM (
        SELECT m.id FROM siorg_mappings AS m WHERE m.id = ANY (ARRAY(SELECT n.id FROM needed AS n WHERE n.kind = 'mapping'))
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS x
    UNION ALL
    SELECT 'organization', x.id FROM (
        SELECT o.id FROM organizations AS o WHERE o.id = ANY (ARRAY(SELECT n.id FROM needed AS n WHERE n.kind = 'organization'))
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS x
    UNION ALL
    SELECT 'home', x.id FROM (
        SELECT o.id FROM organizations AS o WHERE o.id = ANY (ARRAY(SELECT n.id FROM needed AS n WHERE n.kind = 'home'))
        FOR KEY SHARE SKIP LOCKED
    ) AS x
    UNION ALL
    SELECT 'category', x.id FROM (
        SELECT c.id FROM organizational_unit_categories AS c WHERE c.id = ANY (ARRAY(SELECT n.id FROM needed AS n WHERE n.kind = 'category'))
        FOR KEY SHARE SKIP LOCKED
    ) AS x
    UNION ALL
    SELECT 'domains', x.id FROM (
        SELECT t.id FROM organizational_unit_types AS t WHERE t.id = ANY (ARRAY(SELECT n.id FROM needed AS n WHERE n.kind = 'domains'))
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS x
    UNION ALL
    SELECT 'domains', x.id FROM (
        SELECT c.id FROM organizational_unit_categories AS c WHERE c.id = ANY (ARRAY(SELECT n.id FROM needed AS n WHERE n.kind = 'domains'))
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS x
)
SELECT DISTINCT ON (n.position) n.position, n.kind, n.what FROM needed AS n
WHERE NOT EXISTS (SELECT FROM free AS f WHERE f.kind = n.kind AND f.id = n.id)
ORDER BY n.position, n.kind <> 'item', n.what

-- name: rows_below
-- The same of units below those that an item is about, or of the organization that it is about: their paths change with a name.
WITH above AS MATERIALIZED (
    SELECT w.position, u.id AS unit, NULL::uuid AS organization
    FROM unnest(%(positions)s::integer[], %(kinds)s::text[], %(codes)s::integer[], %(ids)s::uuid[]) AS w (position, kind, code, id)
    JOIN organizational_units AS u ON u.siorg_code = w.code OR u.id = w.id WHERE w.kind = 'unit'
    UNION ALL
    SELECT w.position, NULL, o.id
    FROM unnest(%(positions)s::integer[], %(kinds)s::text[], %(codes)s::integer[]) AS w (position, kind, code)
    JOIN organizations AS o ON o.siorg_code = w.code WHERE w.kind = 'organization'
), needed AS MATERIALIZED (
    SELECT a.position, u.id, u.siorg_code FROM above AS a JOIN organizational_units AS u ON u.path_ids OPERATOR(pg_catalog.&&) ARRAY[a.unit]
    UNION ALL
    SELECT a.position, u.id, u.siorg_code FROM above AS a JOIN organizational_units AS u ON u.organization_id = a.organization
), free AS MATERIALIZED (
    SELECT u.id FROM organizational_units AS u WHERE u.id = ANY (ARRAY(SELECT n.id FROM needed AS n)) FOR NO KEY UPDATE SKIP LOCKED
)
SELECT DISTINCT ON (n.position) n.position, 'unit' AS kind, 'unit ' || coalesce(n.siorg_code::text, n.id::text) || ' below it' AS what
FROM needed AS n WHERE NOT EXISTS (SELECT FROM free AS f WHERE f.id = n.id)
ORDER BY n.position, n.siorg_code
