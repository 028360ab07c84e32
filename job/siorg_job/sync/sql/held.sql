-- name: lock
-- Who counts ends takes turns with all others who do, to the end of the transaction: they have one limit together.
INSERT INTO siorg_request_pace AS t (name) VALUES ('ends') ON CONFLICT (name) DO UPDATE SET next_at = t.next_at WHERE false

-- name: ends
-- The ends of each organization: within 24 hours, waiting, just found, and held. Not what a person decided, nor units that were
-- never synced, nor those of an organization that SIORG has ended: what leaves it goes at once, the rest is one decision. A unit
-- counts once, for the first that applies.
WITH found (code, how) AS (
    SELECT h.siorg_code, 1
    FROM siorg_history AS h LEFT JOIN LATERAL (SELECT * FROM siorg_sync_queue AS x WHERE x.id = h.sync_queue_id OFFSET 0) AS q ON true
    WHERE {{end_in_history}} AND h.created_at > now() - interval '24 hours' AND NOT coalesce(q.error_details ? 'resolution', false)
    UNION ALL
    SELECT q.siorg_code, 2
    FROM siorg_sync_queue AS q
    WHERE {{open_end}} AND {{open}} AND NOT coalesce(q.error_details ? 'resolution', false) AND q.id <> ALL (%(settled)s::uuid[])
    UNION ALL
    SELECT code, 2 FROM unnest(%(codes)s::integer[]) AS n (code)
    UNION ALL
    SELECT q.siorg_code, 3 FROM siorg_sync_queue AS q WHERE {{held}} AND q.entity_type OPERATOR(pg_catalog.=) 'UNIT'
        AND q.detected_changes ? 'is_active'
), counted AS (
    SELECT u.organization_id, min(w.how) AS how
    FROM found AS w {{unit_of_code}}
    WHERE u.siorg_synced_at IS NOT NULL AND u.is_active = (w.how > 1) AND NOT EXISTS (
        SELECT FROM organizations AS o JOIN system_settings AS s ON s.key::text = 'siorg_existe:' || o.siorg_code::text
        WHERE o.id = u.organization_id AND s.value = 'false' AND o.siorg_code <> ALL (%(alive)s::integer[])
    )
    GROUP BY u.organization_id, u.id
), active AS (
    SELECT u.organization_id, count(*) AS units
    FROM organizational_units AS u WHERE u.is_active AND u.siorg_synced_at IS NOT NULL GROUP BY 1
), ends AS (
    SELECT c.organization_id, count(*) FILTER (WHERE c.how = 1) AS ended, count(*) FILTER (WHERE c.how < 3) AS ends,
           count(*) FILTER (WHERE c.how = 3) AS held
    FROM counted AS c GROUP BY 1
)
SELECT o.siorg_code AS organization, coalesce(active.units, 0) + coalesce(ends.ended, 0) AS units, coalesce(ends.ends, 0) AS ends,
       coalesce(ends.held, 0) AS held
FROM organizations AS o
LEFT JOIN active ON active.organization_id = o.id
LEFT JOIN ends ON ends.organization_id = o.id
WHERE active.units > 0 OR ends.ends > 0 OR o.siorg_code = ANY (%(organizations)s::integer[])

-- name: end_in_history
-- The condition of an index.
h.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND (h.change_type OPERATOR(pg_catalog.=) 'EXTINCTION'
    OR (h.change_type OPERATOR(pg_catalog.=) 'HIERARCHY_CHANGE' AND 'is_active' = ANY (h.affected_fields)))

-- name: open_end
-- The condition of an index.
q.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND q.operation OPERATOR(pg_catalog.=) 'EXTINCTION'
    AND coalesce(q.status, 'PENDING'::sync_status_enum) OPERATOR(pg_catalog.=) ANY ('{PENDING,PROCESSING}'::sync_status_enum[])

-- name: names
-- What names of these organizations' units became within 24 hours, or would become: just found, else held, else written. What was
-- overwritten in a row that was never synced has to be reviewed, and does not count (unless it moved, too: every move has to be
-- reviewed); nor what a person decided. IS TRUE: the codes are hashed, and all but these organizations' left out, before anything
-- is looked up; on a day of many changes those of others are many.
SELECT DISTINCT ON (w.code) o.siorg_code AS organization, w.name
FROM (
    SELECT n.code, n.name, 1 AS how, NULL::uuid AS item FROM unnest(%(codes)s::integer[], %(names)s::text[]) AS n (code, name)
    UNION ALL
    SELECT q.siorg_code, q.detected_changes #>> '{name,remote}', 2, NULL
    FROM siorg_sync_queue AS q WHERE {{held}} AND q.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND q.detected_changes ? 'name'
    UNION ALL
    SELECT h.siorg_code, h.new_data ->> 'name', 3, h.sync_queue_id
    FROM siorg_history AS h
    WHERE {{name_in_history}} AND h.created_at > now() - interval '24 hours'
        AND (h.change_type OPERATOR(pg_catalog.=) 'HIERARCHY_CHANGE' OR NOT coalesce(h.requires_review, false))
) AS w
{{unit_of_code}}
{{organization_of_unit}}
LEFT JOIN LATERAL (SELECT * FROM siorg_sync_queue AS x WHERE x.id = w.item OFFSET 0) AS q ON true
WHERE (w.code IN (
    SELECT u.siorg_code FROM organizations AS o {{units_of_organization}}
    WHERE o.siorg_code = ANY (%(organizations)s::integer[]) AND u.is_active
)) IS TRUE AND NOT coalesce(q.error_details ? 'resolution', false)
ORDER BY w.code, w.how

-- name: name_in_history
-- The condition of an index.
h.entity_type OPERATOR(pg_catalog.=) 'UNIT'
    AND h.change_type OPERATOR(pg_catalog.=) ANY ('{UPDATE,HIERARCHY_CHANGE}'::siorg_change_type_enum[])
    AND 'name' = ANY (h.affected_fields)

-- name: units
SELECT o.siorg_code AS organization, count(*) AS units
FROM organizations AS o {{units_of_organization}}
WHERE o.siorg_code = ANY (%(organizations)s::integer[]) AND u.is_active AND u.siorg_synced_at IS NOT NULL
GROUP BY o.siorg_code

-- name: questions
-- Fields that are held, or were and a person has decided: that is carried out by the row itself, and nobody else writes them.
SELECT q.id, q.entity_type, q.siorg_code AS code, q.status::text <> 'CONFLICT' AS decided, q.detected_changes AS changes
FROM siorg_sync_queue AS q
WHERE q.held_at IS NOT NULL AND q.status::text IN ('CONFLICT', 'PENDING', 'PROCESSING')
  AND q.siorg_code = ANY (%(codes)s::integer[]) AND jsonb_typeof(q.detected_changes) = 'object'
