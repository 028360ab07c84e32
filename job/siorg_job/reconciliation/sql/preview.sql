-- name: tree
-- The units of these codes and all above them; of those of %(ending)s also the active ones directly below.
WITH meant AS (
    SELECT u.id, u.path_ids FROM unnest(%(codes)s::integer[]) AS w (code) {{unit_of_code}}
), wanted AS (
    SELECT unnest(m.path_ids) AS id FROM meant AS m
    UNION
    SELECT m.id FROM meant AS m
    UNION
    SELECT c.id FROM unnest(%(ending)s::integer[]) AS w (code) {{unit_of_code}}
    CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.parent_id = u.id OFFSET 0) AS c
    WHERE c.is_active
)
SELECT coalesce(u.siorg_code::text, 'local:' || u.id::text) AS key, u.name, o.siorg_code AS organization,
       CASE WHEN u.parent_id IS NOT NULL THEN coalesce(p.siorg_code::text, 'local:' || p.id::text) END AS parent,
       u.is_active, u.path_names AS path, u.level,
       CASE WHEN coalesce(u.siorg_raw_data ->> 'operacao', '') <> 'EXCLUSAO' AND NOT EXISTS (
           SELECT FROM {{items_of_unit}}
           WHERE q.detected_changes ? 'is_active'
             AND (q.status OPERATOR(pg_catalog.=) 'CONFLICT' OR (q.status OPERATOR(pg_catalog.=) 'COMPLETED'
                 AND NOT coalesce(q.error_details ? 'resolution', false)))
       ) THEN u.siorg_parent_code END AS named
FROM wanted
CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = wanted.id OFFSET 0) AS u
{{organization_of_unit}}
LEFT JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.id = u.parent_id OFFSET 0) AS p ON true

-- name: organizations
-- What the paths of an organization's units begin with: which of its names that is, is the database's trigger's business.
SELECT o.siorg_code AS code, coalesce(
    (SELECT left(u.path_names, -length(' > ' || u.name::text))
     FROM (SELECT * FROM organizational_units AS x WHERE x.organization_id = o.id OFFSET 0) AS u
     WHERE u.parent_id IS NULL AND u.path_names LIKE '%% > %%' LIMIT 1), o.name) AS path
FROM organizations AS o WHERE o.siorg_code IS NOT NULL

-- name: left_behind
-- Of organizations that were not compared, active units that hang below one that leaves, and those that wait at the top for
-- one that comes.
SELECT found.code FROM (
    SELECT u.siorg_code AS code, u.organization_id
    FROM (SELECT u.id FROM unnest(%(leaving)s::integer[]) AS w (code) {{unit_of_code}}) AS p {{units_below}}
    WHERE u.is_active AND u.siorg_code IS NOT NULL
    UNION
    SELECT u.siorg_code, u.organization_id
    FROM unnest(%(coming)s::integer[], %(homes)s::integer[]) AS p (siorg_code, home) {{units_waiting_for}} {{organization_of_unit}}
    WHERE o.siorg_code = p.home AND u.is_active AND u.siorg_code <> p.siorg_code
) AS found JOIN organizations AS o ON o.id = found.organization_id
WHERE o.siorg_code <> ALL (%(compared)s::integer[])

-- name: waiting
SELECT count(*) AS items, count(*) FILTER (WHERE coalesce(q.error_details ? 'resolution', false)) AS decisions
FROM siorg_sync_queue AS q WHERE {{open}}
