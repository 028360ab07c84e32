-- name: reap
-- Rows that nothing else would ever end: attempts spent while waiting, expired, abandoned with or without a lease.
-- State is checked again in the UPDATE; rows that somebody works on are skipped. Three parts, each with an index of its own:
-- every run begins with this, and must not read the whole table for it.
WITH dangling AS MATERIALIZED (
    SELECT found.id FROM (
        SELECT spent.id FROM (
            SELECT q.id FROM siorg_sync_queue AS q WHERE {{pending}} AND NOT {{attempts_left}}
            LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
        ) AS spent
        UNION
        SELECT expired.id FROM (
            SELECT q.id FROM siorg_sync_queue AS q WHERE {{pending}} AND q.expires_at <= now()
            LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
        ) AS expired
        UNION
        SELECT abandoned.id FROM (
            SELECT q.id FROM siorg_sync_queue AS q WHERE {{abandoned}}
            LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
        ) AS abandoned
    ) AS found
    LIMIT %(limit)s
), judged AS (
    SELECT q.id,
        CASE
            WHEN {{pending}} AND NOT {{unexpired}} THEN 'SKIPPED'
            WHEN {{pending}} OR {{killer}} THEN 'FAILED'
            ELSE 'PENDING'
        END::sync_status_enum AS verdict,
        CASE
            WHEN {{pending}} AND NOT {{unexpired}} THEN 'expired at ' || q.expires_at::text || ' before it could be worked on'
            WHEN {{pending}} THEN coalesce(q.last_error,
                'no attempts left (' || q.attempts::text || ' of ' || coalesce(q.max_attempts, 3)::text || ')')
            ELSE {{loss}}
        END AS reason,
        CASE WHEN {{pending}} AND NOT {{unexpired}} THEN 'expired' WHEN {{pending}} THEN 'attempts_spent' ELSE 'worker_lost' END AS kind
    FROM siorg_sync_queue AS q JOIN dangling AS d ON d.id = q.id
)
UPDATE siorg_sync_queue AS q
SET status = j.verdict,
    attempts = CASE WHEN {{abandoned}} AND NOT {{killer}}
        THEN greatest(least(coalesce(q.attempts, 1), coalesce(q.max_attempts, 3)), 1) - 1 ELSE q.attempts END,
    losses = CASE WHEN NOT {{abandoned}} THEN q.losses WHEN {{killer}} THEN 2 ELSE least(q.losses, 1000) + 1 END,
    scheduled_for = CASE WHEN {{alone}} THEN now() ELSE q.scheduled_for END,  -- claims do not pass by it
    last_error = j.reason,
    error_details = coalesce(CASE jsonb_typeof(q.error_details) WHEN 'object' THEN q.error_details END, '{}')
        || jsonb_build_object('kind', j.kind, 'retryable', j.verdict::text = 'PENDING'),
    processed_at = CASE WHEN j.verdict::text <> 'PENDING' THEN now() END,
    lease_expires_at = NULL,
    claimed_by = NULL
FROM judged AS j
WHERE q.id = j.id AND (({{pending}} AND (NOT {{attempts_left}} OR NOT {{unexpired}})) OR {{abandoned}})
RETURNING q.id, q.status

-- name: cleanup
-- The next page of what may go, the oldest first: at %(after)s or later, by when it ended. Past its expiry, or finished and older
-- than the retention. Never PROCESSING, never CONFLICT: somebody still has to do something with those. What FAILED is asked again
-- within a day, and has to be known then. Each part is the beginning of a range of an index, whatever else is in the table; those
-- that do not look at %(after)s find hardly any row. History stays and loses its link (its foreign key has no ON DELETE).
WITH page AS MATERIALIZED (
    SELECT found.id, found.at FROM (
        (SELECT q.id, q.processed_at AS at FROM siorg_sync_queue AS q
         WHERE {{completed}} AND q.processed_at >= %(after)s::timestamptz AND q.processed_at < now() - make_interval(days => %(retention_days)s)
         ORDER BY q.processed_at LIMIT %(limit)s)
        UNION ALL
        (SELECT q.id, {{ended_at}} FROM siorg_sync_queue AS q
         WHERE q.status OPERATOR(pg_catalog.=) 'SKIPPED' AND {{ended_at}} >= %(after)s::timestamptz AND {{ended_at}} < now() - make_interval(days => %(retention_days)s)
         ORDER BY {{ended_at}} LIMIT %(limit)s)
        UNION ALL
        (SELECT q.id, {{ended_at}} FROM siorg_sync_queue AS q
         WHERE q.status OPERATOR(pg_catalog.=) 'FAILED' AND {{ended_at}} >= %(after)s::timestamptz AND {{ended_at}} < now() - make_interval(days => greatest(%(retention_days)s, 2))
         ORDER BY {{ended_at}} LIMIT %(limit)s)
        UNION ALL
        (SELECT q.id, %(after)s::timestamptz FROM siorg_sync_queue AS q
         WHERE {{completed}} AND q.processed_at IS NULL AND q.created_at < now() - make_interval(days => %(retention_days)s)
         ORDER BY q.processed_at LIMIT %(limit)s)
        UNION ALL
        (SELECT q.id, %(after)s::timestamptz FROM siorg_sync_queue AS q
         WHERE {{ended}} AND q.expires_at <= now() ORDER BY q.expires_at LIMIT %(limit)s)
        UNION ALL
        (SELECT q.id, %(after)s::timestamptz FROM siorg_sync_queue AS q
         WHERE {{pending}} AND q.expires_at <= now() ORDER BY q.expires_at LIMIT %(limit)s)
    ) AS found
    ORDER BY found.at LIMIT %(limit)s
), old AS MATERIALIZED (
    SELECT q.id FROM siorg_sync_queue AS q
    WHERE q.id = ANY (ARRAY(SELECT page.id FROM page)) AND (({{pending}} AND NOT {{unexpired}}) OR {{ended}}) IS TRUE
    FOR UPDATE SKIP LOCKED
), unlinked AS (
    UPDATE siorg_history AS h SET sync_queue_id = NULL WHERE h.sync_queue_id = ANY (ARRAY(SELECT old.id FROM old))
    RETURNING h.id
)
SELECT (SELECT max(page.at) FROM page)::text AS last, (SELECT count(*) FROM page) AS found,
       (SELECT count(*) FROM unlinked) AS unlinked, (SELECT array_agg(old.id) FROM old) AS old_ids

-- name: delete
-- After the links are gone: PostgreSQL checks foreign keys against the state before a statement's own other parts.
DELETE FROM siorg_sync_queue AS q WHERE q.id = ANY (%(ids)s::uuid[])
