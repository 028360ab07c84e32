-- name: renew
-- Prolongs the leases that are still ours, and tells which those are. Rows that our own applying transaction holds are
-- skipped, not waited for: the other leases must not run out behind them.
WITH held AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(tokens)s::bigint[]) AS h (id, lease_token)
), free AS MATERIALIZED (
    SELECT q.id FROM siorg_sync_queue AS q JOIN held AS h ON h.id = q.id AND h.lease_token = q.lease_token
    WHERE q.status OPERATOR(pg_catalog.=) 'PROCESSING' AND q.lease_expires_at > clock_timestamp()
    FOR NO KEY UPDATE OF q SKIP LOCKED
), renewed AS (
    UPDATE siorg_sync_queue AS q
    SET lease_expires_at = greatest(q.lease_expires_at, clock_timestamp() + make_interval(secs => %(lease_seconds)s))
    FROM free WHERE q.id = free.id
)
SELECT q.id FROM siorg_sync_queue AS q JOIN held AS h ON h.id = q.id AND h.lease_token = q.lease_token
WHERE q.status OPERATOR(pg_catalog.=) 'PROCESSING' AND q.lease_expires_at > clock_timestamp()

-- name: fence
-- Locks those of our rows whose lease still holds: only what this returns may be applied in this transaction, and only from
-- answers that were asked for at needed_at or later: what was needed at the claim, or has been noted since. From here on a lock
-- is waited for no longer than half of what is left of these leases, for renewing them waits for us.
WITH ours AS MATERIALIZED (
    SELECT q.id, q.lease_expires_at,
           greatest(h.needed_at, CASE WHEN q.needed_at <= clock_timestamp() THEN q.needed_at END) AS needed_at
    FROM siorg_sync_queue AS q
    JOIN unnest(%(ids)s::uuid[], %(tokens)s::bigint[], %(needed_ats)s::timestamptz[]) AS h (id, lease_token, needed_at)
        ON h.id = q.id AND h.lease_token = q.lease_token
    WHERE q.status OPERATOR(pg_catalog.=) 'PROCESSING' AND q.lease_expires_at > clock_timestamp()
    ORDER BY q.id
    FOR NO KEY UPDATE OF q
), hurried AS (
    SELECT set_config('lock_timeout', greatest(least(%(lock_seconds)s::float8,
        extract(epoch FROM min(o.lease_expires_at) - clock_timestamp())::float8 / 2::float8) * 1000::float8, 1)::integer::text, true)
    FROM ours AS o
)
SELECT o.id, o.needed_at, hurried.* FROM ours AS o, hurried

-- name: settled
-- What became of rows under our very token: tells a commit whose answer was lost from a lease that was lost.
SELECT q.id, q.status FROM siorg_sync_queue AS q
JOIN unnest(%(ids)s::uuid[], %(tokens)s::bigint[]) AS h (id, lease_token) ON h.id = q.id AND h.lease_token = q.lease_token
WHERE q.status OPERATOR(pg_catalog.<>) 'PROCESSING'

-- name: release_unknown
-- After a lost connection a claim may have been committed without its answer reaching us: those rows go back unharmed.
UPDATE siorg_sync_queue AS q
SET status = 'PENDING', attempts = greatest(coalesce(q.attempts, 0) - 1, 0), lease_expires_at = NULL, claimed_by = NULL
WHERE q.status OPERATOR(pg_catalog.=) 'PROCESSING' AND q.claimed_by = %(worker)s AND q.id <> ALL (%(known)s::uuid[])
RETURNING q.id

-- name: finish
-- One outcome a row, all kinds at once. Only the holder of an unexpired lease is heard; ids that do not come back were
-- refused. The pause before a retry is full jitter on an exponential ceiling, by the database's clock and its randomness.
-- Where fewer than %(wanted)s are ours, it fails (a count is no uuid): for who sends COMMIT along.
WITH finished AS (
    UPDATE siorg_sync_queue AS q
    SET status = CASE
            WHEN f.outcome = 'RETRY' AND coalesce(q.attempts, 0) >= least(coalesce(q.max_attempts, 3), %(max_attempts)s) THEN 'FAILED'
            WHEN f.outcome IN ('RETRY', 'RELEASED') THEN 'PENDING'
            ELSE f.outcome
        END::sync_status_enum,
        attempts = CASE WHEN f.outcome = 'RELEASED' THEN greatest(coalesce(q.attempts, 0) - 1, 0) ELSE q.attempts END,
        scheduled_for = CASE
            WHEN f.outcome = 'RETRY' THEN clock_timestamp() + make_interval(secs => coalesce(f.delay_seconds,
                random() * least(%(retry_max_seconds)s::float8,
                    %(retry_base_seconds)s::float8 * 2::float8 ^ greatest(least(coalesce(q.attempts, 1) - 1, 30), 0)::float8)))
            WHEN f.outcome = 'RELEASED' AND f.delay_seconds > 0::float8 THEN clock_timestamp() + make_interval(secs => f.delay_seconds)
            ELSE q.scheduled_for
        END,
        last_error = CASE
            WHEN f.outcome = 'COMPLETED' THEN NULL
            WHEN f.outcome = 'RELEASED' THEN coalesce(f.error, q.last_error)
            ELSE f.error
        END,
        error_details = CASE
            WHEN f.outcome = 'RELEASED' THEN q.error_details
            WHEN f.outcome = 'CONFLICT' THEN f.details  -- an older decision of a person is spent
            ELSE nullif((coalesce(CASE jsonb_typeof(q.error_details) WHEN 'object' THEN q.error_details END, '{}')
                - '{kind,retryable,details}'::text[]) || coalesce(f.details, '{}'), '{}')
        END,
        detected_changes = CASE WHEN f.outcome = 'CONFLICT' THEN coalesce(f.changes, q.detected_changes) ELSE q.detected_changes END,
        held_at = CASE
            WHEN f.outcome <> 'CONFLICT' OR f.changes IS NULL THEN q.held_at  -- the decision cannot be used: the question is what it was
            WHEN f.held THEN coalesce(q.held_at, clock_timestamp())
        END,
        losses = CASE WHEN f.outcome = 'RELEASED' THEN q.losses ELSE 0 END,
        local_id = coalesce(f.local_id, q.local_id),
        needed_at = greatest(q.needed_at, f.needed_at),
        processed_at = CASE
            WHEN f.outcome IN ('COMPLETED', 'FAILED', 'SKIPPED') THEN clock_timestamp()
            WHEN f.outcome = 'RETRY' AND coalesce(q.attempts, 0) >= least(coalesce(q.max_attempts, 3), %(max_attempts)s) THEN clock_timestamp()
        END,
        lease_expires_at = NULL,
        claimed_by = CASE WHEN f.outcome = 'COMPLETED' THEN q.claimed_by END  -- by whom
    FROM unnest(%(ids)s::uuid[], %(tokens)s::bigint[], %(outcomes)s::text[], %(errors)s::text[], %(details)s::jsonb[],
                %(changes)s::jsonb[], %(delays)s::float8[], %(local_ids)s::uuid[], %(needed_ats)s::timestamptz[],
                %(holds)s::boolean[])
         AS f (id, lease_token, outcome, error, details, changes, delay_seconds, local_id, needed_at, held)
    WHERE q.id = f.id AND q.lease_token = f.lease_token AND q.status OPERATOR(pg_catalog.=) 'PROCESSING'
        AND q.lease_expires_at > clock_timestamp()
    RETURNING q.id, q.status, q.attempts,
        CASE WHEN q.status::text = 'PENDING' AND isfinite(q.scheduled_for)
            THEN extract(epoch FROM q.scheduled_for - clock_timestamp()) END::float8 AS delay_seconds
)
SELECT f.id, f.status, f.attempts, f.delay_seconds FROM finished AS f
UNION ALL
SELECT ('leases ran out: ' || count(*)::text || ' of ' || %(wanted)s::bigint::text || ' are ours')::uuid, NULL, NULL, NULL
FROM finished AS f HAVING count(*) <> %(wanted)s::bigint
