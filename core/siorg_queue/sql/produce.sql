-- name: enqueue_lock
-- Producers take turns: between one's look and its insert no other may insert the same. Held to the end of the transaction.
-- The row is locked, and never changed: whoever may not write our tables cannot hold it.
WITH older AS MATERIALIZED (
    SELECT {{await_older}} FROM (SELECT hashtext('siorg_sync_queue') AS class, hashtext('enqueue') AS object) AS k
)
INSERT INTO siorg_request_pace AS t (name) SELECT 'enqueue' WHERE (SELECT count(*) FROM older) > 0
ON CONFLICT (name) DO UPDATE SET next_at = t.next_at WHERE false

-- name: enqueue
-- Adds what is not waiting already. On what is open for the same work it is noted how young an answer has to be from now on;
-- a row in work gets a successor beside that. Rows are locked first, in the order in which "fence" locks them, and looked at
-- again: one that was just claimed is in work, one that was just finished is open no more.
WITH wanted AS (
    SELECT DISTINCT ON (n.entity_type, n.siorg_code, n.work) n.*,
           max(n.needed) OVER (PARTITION BY n.entity_type, n.siorg_code, n.work) AS needed_at
    FROM (
        SELECT q.*, {{work}} AS work, least(q.asked_at, now()) AS needed
        FROM unnest(%(entity_types)s::siorg_entity_type_enum[], %(codes)s::integer[], %(operations)s::siorg_change_type_enum[],
                    %(priorities)s::integer[], %(payloads)b::jsonb[], %(delays)s::float8[], %(needed_ats)s::timestamptz[])
             WITH ORDINALITY AS q (entity_type, siorg_code, operation, priority, payload, delay_seconds, asked_at, position)
    ) AS n
    ORDER BY n.entity_type, n.siorg_code, n.work, n.position
), found AS MATERIALIZED (
    SELECT q.id, {{waiting}} AS waits, n.position, n.needed_at
    FROM wanted AS n JOIN siorg_sync_queue AS q ON q.entity_type OPERATOR(pg_catalog.=) n.entity_type
        AND q.siorg_code = n.siorg_code AND {{work}} = n.work
    WHERE {{open}}
    ORDER BY q.id
    FOR NO KEY UPDATE OF q
), noted AS (
    UPDATE siorg_sync_queue AS q SET needed_at = f.needed_at FROM found AS f WHERE q.id = f.id AND {{needed}} < f.needed_at
)
INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, priority, payload, max_attempts, scheduled_for, needed_at)
SELECT n.entity_type, n.siorg_code, n.operation, n.priority, n.payload, %(max_attempts)s,
       clock_timestamp() + make_interval(secs => n.delay_seconds), n.needed_at
FROM wanted AS n
WHERE NOT EXISTS (SELECT FROM found AS f WHERE f.position = n.position AND f.waits)
ORDER BY n.position
RETURNING id

-- name: note
-- An answer asked for at %(asked_at)s told of these units, and of all of %(organization)s where one is given, whether it has
-- them or not: for what is open about one of them, an older answer will not do. Whose unit a row is about that is not local,
-- its payload says; a row in work that does not say is taken for one of them. Each part has an index of its own.
WITH told AS (
    SELECT unnest(%(codes)s::integer[]) AS code
    UNION
    SELECT u.siorg_code FROM organizational_units AS u JOIN organizations AS o ON o.id = u.organization_id
    WHERE o.siorg_code = %(organization)s
), about AS MATERIALIZED (
    SELECT q.id FROM siorg_sync_queue AS q
    WHERE q.entity_type OPERATOR(pg_catalog.=) ANY ('{UNIT,ORGANIZATION}'::siorg_entity_type_enum[])
        AND q.siorg_code = ANY (ARRAY(SELECT told.code FROM told)) AND ({{open}}) IS TRUE
    UNION
    SELECT q.id FROM siorg_sync_queue AS q WHERE {{open_unit}} AND {{organization}} = %(organization)s::text
    UNION
    SELECT q.id FROM siorg_sync_queue AS q
    WHERE q.status OPERATOR(pg_catalog.=) 'PROCESSING' AND q.entity_type OPERATOR(pg_catalog.=) 'UNIT'
        AND {{organization}} IS NULL AND %(organization)s::text IS NOT NULL
), found AS MATERIALIZED (
    SELECT q.id FROM about JOIN siorg_sync_queue AS q ON q.id = about.id WHERE {{open}} ORDER BY q.id FOR NO KEY UPDATE OF q
)
UPDATE siorg_sync_queue AS q SET needed_at = least(%(asked_at)s, now()) FROM found AS f
WHERE q.id = f.id AND {{needed}} < least(%(asked_at)s, now())
RETURNING q.id

-- name: note_table
-- An answer asked for at %(asked_at)s told of all categories, or of all types: the same for them.
WITH found AS MATERIALIZED (
    SELECT q.id FROM siorg_sync_queue AS q WHERE q.entity_type OPERATOR(pg_catalog.=) %(entity_type)s AND {{open}}
    ORDER BY q.id FOR NO KEY UPDATE OF q
)
UPDATE siorg_sync_queue AS q SET needed_at = least(%(asked_at)s, now()) FROM found AS f
WHERE q.id = f.id AND {{needed}} < least(%(asked_at)s, now())
