-- name: claim
-- Takes at most %(limit)s claimable rows, best priority first, and leases them.
-- MATERIALIZED and the LIMIT inside: joined freely, the planner may run the locking select more than once and claim more
-- than asked. One index range per priority: future, finished and dead rows are never walked. No ORDER BY above the lateral:
-- it would lock every candidate of every priority to return a few. The UPDATE checks the row again: a candidate may have
-- changed between its snapshot and its lock; it finds its rows by key and by nothing else: as an array, and with
-- a condition that no index can serve (IS TRUE), for with statistics from before a bulk insert the planner would rather
-- read every due row.
-- What has to be worked on alone is left to claim_alone.
WITH candidate AS MATERIALIZED (
    SELECT found.id
    FROM generate_series(1, 10) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT due.id FROM (
            SELECT q.id FROM siorg_sync_queue AS q
            WHERE {{priority}} = p.priority AND {{due}} AND NOT {{alone}}
            ORDER BY {{scheduled}}
            LIMIT %(limit)s
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS due
        UNION ALL
        SELECT abandoned.id FROM (
            SELECT q.id FROM siorg_sync_queue AS q
            WHERE {{priority}} = p.priority AND {{abandoned}} AND NOT {{alone}}
            LIMIT %(limit)s
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS abandoned
    ) AS found
    LIMIT %(limit)s
), {{lease}}

-- name: claim_alone
-- The same for a worker that holds nothing, when there is nothing else: one row whose workers were lost, the fewest times first.
WITH candidate AS MATERIALIZED (
    SELECT q.id FROM siorg_sync_queue AS q
    WHERE {{alone}} AND {{claimable}}
    ORDER BY q.losses, {{priority}}, {{scheduled}}
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
), {{lease}}

-- name: lease
-- Of both. That a worker was lost proves nothing against what it held: the attempt is given back. A row that was alone with its
-- worker when that died, as often as attempts allow, is not handed out again but ended here, and returned so that it is counted.
-- A needed_at beyond the clock (another clock wrote it) is now: else no answer would ever do.
claimed AS (
    UPDATE siorg_sync_queue AS q
    SET status = CASE WHEN {{abandoned}} AND {{killer}} THEN 'FAILED' ELSE 'PROCESSING' END::sync_status_enum,
        attempts = CASE
            WHEN {{abandoned}} THEN greatest(least(coalesce(q.attempts, 1), coalesce(q.max_attempts, 3)), 1)
            WHEN {{attempts_counted}} THEN coalesce(q.attempts, 0) + 1
            ELSE 1  -- opened again by a person: it starts afresh
        END,
        losses = CASE WHEN NOT {{abandoned}} THEN q.losses WHEN {{killer}} THEN 2 ELSE least(q.losses, 1000) + 1 END,
        lease_token = CASE WHEN q.lease_token < 9223372036854775807 THEN q.lease_token + 1 ELSE 1 END,  -- no other row pays for it
        last_attempt_at = now(),
        lease_expires_at = CASE WHEN {{abandoned}} AND {{killer}} THEN NULL
            ELSE now() + make_interval(secs => %(lease_seconds)s) END,
        claimed_by = CASE WHEN {{abandoned}} AND {{killer}} THEN NULL ELSE %(worker)s END,
        processed_at = CASE WHEN {{abandoned}} AND {{killer}} THEN now() END,
        last_error = CASE WHEN {{abandoned}} THEN {{loss}} ELSE q.last_error END,
        error_details = CASE WHEN {{abandoned}} AND {{killer}}
            THEN coalesce(CASE jsonb_typeof(q.error_details) WHEN 'object' THEN q.error_details END, '{}')
                || '{"kind": "worker_lost", "retryable": false}'
            ELSE q.error_details END
    WHERE q.id = ANY (ARRAY(SELECT c.id FROM candidate AS c)) AND ({{claimable}}) IS TRUE
    RETURNING q.*
)
SELECT q.id, q.entity_type, q.siorg_code, q.local_id, q.operation, {{priority}} AS priority, q.payload, q.attempts,
       coalesce(q.max_attempts, 3) AS max_attempts, q.error_details, q.detected_changes, q.lease_token,
       least({{needed}}, now()) AS needed_at, q.status::text = 'FAILED' AS ended, q.losses > 1 AS alone,
       q.last_error
FROM claimed AS q
ORDER BY {{priority}}, {{scheduled}}, q.id
