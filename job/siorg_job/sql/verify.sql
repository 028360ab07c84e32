-- name: clock
SELECT clock_timestamp() AS now

-- name: on_queue
-- What the queue has about these entities: open rows, fields in dispute (also where a person put the dispute off and it was not
-- taken up again), those that are held, and the newest row where that FAILED.
SELECT q.entity_type, q.siorg_code AS code,
       min(q.created_at) FILTER (WHERE {{open}}) AS open_since,
       (SELECT array_agg(DISTINCT k) FROM (
            SELECT jsonb_object_keys(c.detected_changes) AS k FROM siorg_sync_queue AS c
            WHERE c.entity_type = q.entity_type AND c.siorg_code = q.siorg_code AND jsonb_typeof(c.detected_changes) = 'object'
              AND c.held_at IS NULL
              AND (c.status = 'CONFLICT' OR (c.status = 'SKIPPED' AND c.id = (array_agg(q.id ORDER BY q.created_at DESC, q.id DESC))[1]))
       ) AS keys) AS disputed,
       min(q.created_at) FILTER (WHERE q.status IN ('CONFLICT', 'SKIPPED') AND q.held_at IS NULL) AS conflict_since,
       (SELECT array_agg(DISTINCT k) FROM (
            SELECT jsonb_object_keys(h.detected_changes) AS k FROM siorg_sync_queue AS h
            WHERE h.entity_type = q.entity_type AND h.siorg_code = q.siorg_code AND jsonb_typeof(h.detected_changes) = 'object'
              AND h.held_at IS NOT NULL AND h.status = 'CONFLICT'
       ) AS keys) AS held,
       min(q.held_at) FILTER (WHERE {{held}}) AS held_since,
       CASE WHEN (array_agg(q.status ORDER BY q.created_at DESC, q.id DESC))[1] = 'FAILED'
            THEN (array_agg(q.processed_at ORDER BY q.created_at DESC, q.id DESC))[1] END AS failed_since,
       (array_agg(q.last_error ORDER BY q.created_at DESC, q.id DESC))[1] AS error
FROM siorg_sync_queue AS q
WHERE q.siorg_code = ANY (%(codes)s::integer[]) AND q.entity_type IN ('UNIT', 'ORGANIZATION')
GROUP BY q.entity_type, q.siorg_code

-- name: touched
-- Entities whose row, or about which an item, changed since then.
SELECT 'UNIT' AS entity_type, u.siorg_code AS code FROM organizational_units AS u
WHERE u.siorg_code = ANY (%(codes)s::integer[]) AND (u.siorg_synced_at >= %(asked_at)s OR u.updated_at >= %(asked_at)s)
UNION
SELECT 'ORGANIZATION', o.siorg_code FROM organizations AS o
WHERE o.siorg_code = ANY (%(codes)s::integer[]) AND (o.siorg_synced_at >= %(asked_at)s OR o.updated_at >= %(asked_at)s)
UNION
SELECT q.entity_type::text, q.siorg_code FROM siorg_sync_queue AS q
WHERE q.siorg_code = ANY (%(codes)s::integer[]) AND q.entity_type IN ('UNIT', 'ORGANIZATION')
  AND (q.created_at >= %(asked_at)s OR q.processed_at >= %(asked_at)s OR q.last_attempt_at >= %(asked_at)s)
