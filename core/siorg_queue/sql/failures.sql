-- What FAILED is asked again: by the row itself, at the first discovery after a pause that doubles up to a day.

-- name: may_be_asked_again
-- A person may have ended it; a decision of a person that could not be carried out is no such end.
(q.status OPERATOR(pg_catalog.=) 'FAILED' AND (q.processed_by IS NULL OR coalesce(q.error_details ? 'resolution', false)))

-- name: newest
-- Whatever else was asked about the entity is older.
NOT EXISTS (
    SELECT FROM siorg_sync_queue AS n
    WHERE n.entity_type OPERATOR(pg_catalog.=) q.entity_type AND n.siorg_code = q.siorg_code
        AND (n.created_at, n.id) > (q.created_at, q.id)
)

-- name: pause_is_over
-- A little less than an hour at first, and than a day at last: who discovers each hour, or each day, asks the next time.
coalesce(q.processed_at, q.last_attempt_at, q.created_at)
    <= clock_timestamp()
        - least(interval '50 minutes' * 2::float8 ^ greatest(least(coalesce(q.failures, 0), 10), 0)::float8, interval '23 hours')

-- name: waits
-- For units that FAILED themselves, or are on the queue: it is opened when they come to their place. By key (OFFSET 0 keeps the
-- lookup inside), whatever the statistics say.
EXISTS (
    SELECT FROM jsonb_array_elements(CASE jsonb_typeof(q.error_details #> '{details,waits_for}')
        WHEN 'array' THEN q.error_details #> '{details,waits_for}' ELSE '[]' END) AS above (code)
    CROSS JOIN LATERAL (
        SELECT x.status FROM siorg_sync_queue AS x
        WHERE x.entity_type OPERATOR(pg_catalog.=) 'UNIT'
            AND x.siorg_code = substring(above.code #>> '{}' FROM '^[0-9]{1,9}$')::integer OFFSET 0
    ) AS w
    WHERE w.status::text IN ('FAILED', 'PENDING', 'PROCESSING')
)

-- name: opened
-- With all its attempts; a person's decision beside it stays.
status = 'PENDING', attempts = 0, scheduled_for = now(), processed_at = NULL, lease_expires_at = NULL, claimed_by = NULL,
expires_at = CASE WHEN q.expires_at > now() THEN q.expires_at END,
error_details = nullif((coalesce(CASE jsonb_typeof(q.error_details) WHEN 'object' THEN q.error_details END, '{}')
    - '{kind,retryable,details}'::text[]), '{}')

-- name: retry
-- A person asks again.
UPDATE siorg_sync_queue AS q SET {{opened}}, failures = NULL
WHERE q.status OPERATOR(pg_catalog.=) 'FAILED' AND (%(ids)s::uuid[] IS NULL OR q.id = ANY (%(ids)s::uuid[]))
  AND (%(codes)s::integer[] IS NULL OR q.siorg_code = ANY (%(codes)s::integer[]))
RETURNING q.id

-- name: retry_page
-- The next page of all that FAILED before %(began)s, the longest ago first: at %(after)s or later. What FAILED since is left; what
-- another clock dated ahead is not.
WITH page AS MATERIALIZED (
    SELECT q.id, {{ended_at}} AS at FROM siorg_sync_queue AS q
    WHERE q.status OPERATOR(pg_catalog.=) 'FAILED' AND {{ended_at}} >= %(after)s::timestamptz
        AND NOT {{ended_at}} BETWEEN %(began)s AND clock_timestamp()
    ORDER BY {{ended_at}} LIMIT %(limit)s
    FOR NO KEY UPDATE
), again AS (
    UPDATE siorg_sync_queue AS q SET {{opened}}, failures = NULL
    WHERE q.id = ANY (ARRAY(SELECT page.id FROM page)) AND (q.status OPERATOR(pg_catalog.=) 'FAILED') IS TRUE
    RETURNING q.id
)
SELECT (SELECT max(page.at) FROM page)::text AS last, (SELECT count(*) FROM page) AS found, (SELECT count(*) FROM again) AS opened

-- name: retry_due
WITH due AS MATERIALIZED (
    SELECT q.id FROM siorg_sync_queue AS q
    WHERE {{may_be_asked_again}} AND {{pause_is_over}} AND {{newest}} AND NOT {{waits}}
    ORDER BY q.id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE siorg_sync_queue AS q SET {{opened}}, failures = least(coalesce(q.failures, 0), 1000) + 1
FROM due WHERE q.id = due.id AND q.status OPERATOR(pg_catalog.=) 'FAILED'
RETURNING q.id

-- name: retry_found
-- What a comparison found, and what is the newest about it FAILED: that is opened where its pause is over, and at once where SIORG
-- says something else now, or the organization is registered, for else nothing was found, or where what it waits for is not above it
-- any more. Returns the positions of all of them.
WITH wanted AS (
    SELECT q.*, {{work}} AS work
    FROM unnest(%(entity_types)s::siorg_entity_type_enum[], %(codes)s::integer[], %(operations)s::siorg_change_type_enum[],
                %(payloads)b::jsonb[], %(above)b::jsonb[]) WITH ORDINALITY
        AS q (entity_type, siorg_code, operation, payload, above, position)
), failed AS MATERIALIZED (
    SELECT q.id, n.position, n.payload, news.is_new, news.is_new OR ({{pause_is_over}} AND NOT {{waits}}) AS is_due
    FROM wanted AS n JOIN siorg_sync_queue AS q ON q.entity_type OPERATOR(pg_catalog.=) n.entity_type
        AND q.siorg_code = n.siorg_code AND {{work}} = n.work
    CROSS JOIN LATERAL (
        SELECT q.payload IS DISTINCT FROM n.payload OR coalesce(q.error_details ->> 'kind' = 'unknown_organization', false)
            OR (coalesce(q.error_details ->> 'kind' = 'parent_failed', false) AND NOT coalesce(n.above ?| ARRAY(
                SELECT above.code FROM jsonb_array_elements_text(CASE jsonb_typeof(q.error_details #> '{details,waits_for}')
                    WHEN 'array' THEN q.error_details #> '{details,waits_for}' ELSE '[]' END) AS above (code)
            ), true)) AS is_new
    ) AS news
    WHERE {{may_be_asked_again}} AND {{newest}}
    ORDER BY q.id
    FOR NO KEY UPDATE OF q
), again AS (
    UPDATE siorg_sync_queue AS q
    SET {{opened}}, payload = f.payload, failures = CASE WHEN NOT f.is_new THEN least(coalesce(q.failures, 0), 1000) + 1 END
    FROM failed AS f WHERE q.id = f.id AND f.is_due
    RETURNING q.id
)
SELECT f.position, a.id IS NOT NULL AS opened FROM failed AS f LEFT JOIN again AS a ON a.id = f.id

-- name: retry_waiting
-- Units came to their place, or left it: what waited for one of them is asked again.
WITH due AS MATERIALIZED (
    SELECT q.id
    FROM unnest(%(codes)s::integer[]) AS n (code)
    CROSS JOIN LATERAL (
        SELECT x.id FROM siorg_sync_queue AS x
        WHERE x.status OPERATOR(pg_catalog.=) 'FAILED' AND x.error_details #> '{details,waits_for}' IS NOT NULL
          AND x.error_details #> '{details,waits_for}' @> jsonb_build_array(n.code)
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS q
)
UPDATE siorg_sync_queue AS q SET {{opened}}, failures = NULL
FROM due WHERE q.id = due.id AND q.status OPERATOR(pg_catalog.=) 'FAILED'
RETURNING q.id
