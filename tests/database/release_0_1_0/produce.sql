-- name: enqueue_lock
-- Producers take turns: between one's look and its insert no other may insert the same. Held to the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext('siorg_sync_queue'), hashtext('enqueue'))

-- name: enqueue
-- Adds what is not waiting already. CREATION, UPDATE and HIERARCHY_CHANGE are one and the same work (fetch, bring in line):
-- one of them waiting is enough.
WITH wanted AS (
    SELECT DISTINCT ON (n.entity_type, n.siorg_code, n.work) n.*
    FROM (
        SELECT *, CASE WHEN operation IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE') THEN 'UPDATE' ELSE operation::text END AS work
        FROM unnest(%(entity_types)s::siorg_entity_type_enum[], %(codes)s::integer[], %(operations)s::siorg_change_type_enum[],
                    %(priorities)s::integer[], %(payloads)s::jsonb[], %(delays)s::float8[])
             WITH ORDINALITY AS n (entity_type, siorg_code, operation, priority, payload, delay_seconds, position)
    ) AS n
    ORDER BY n.entity_type, n.siorg_code, n.work, n.position
)
INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, priority, payload, max_attempts, scheduled_for)
SELECT n.entity_type, n.siorg_code, n.operation, n.priority, n.payload, %(max_attempts)s,
       clock_timestamp() + make_interval(secs => n.delay_seconds)
FROM wanted AS n
WHERE NOT EXISTS (
    SELECT FROM siorg_sync_queue AS q
    WHERE q.entity_type = n.entity_type AND q.siorg_code = n.siorg_code AND {{waiting}}
      AND CASE WHEN q.operation IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE') THEN 'UPDATE' ELSE q.operation::text END = n.work
)
ORDER BY n.position
RETURNING id
