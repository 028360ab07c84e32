-- name: depth
-- What a claim could take right now, and how long the oldest of it has been due. The operator scales on this.
SELECT count(*) AS claimable,
       extract(epoch FROM now() - min(q.since) FILTER (WHERE isfinite(q.since)))::float8 AS oldest_due_seconds
FROM (
    -- An item may be due since -infinity, which is no time to count from.
    SELECT coalesce(q.scheduled_for, q.created_at) AS since FROM siorg_sync_queue AS q WHERE {{due}}
    UNION ALL
    SELECT q.lease_expires_at FROM siorg_sync_queue AS q WHERE {{abandoned}}
) AS q

-- name: claimable_exists
SELECT EXISTS (SELECT FROM siorg_sync_queue AS q WHERE {{due}}) OR EXISTS (SELECT FROM siorg_sync_queue AS q WHERE {{abandoned}}) AS found

-- name: next_due
-- Seconds until the next waiting row falls due; null when none waits. 0 when one is due already. One look a priority.
SELECT CASE WHEN min(first.scheduled) <= now() THEN 0
    ELSE extract(epoch FROM min(first.scheduled) FILTER (WHERE isfinite(first.scheduled)) - now()) END::float8 AS seconds
FROM generate_series(1, 10) AS p (priority)
CROSS JOIN LATERAL (
    SELECT {{scheduled}} AS scheduled FROM siorg_sync_queue AS q
    WHERE {{priority}} = p.priority AND {{waiting}}
    ORDER BY {{scheduled}}
    LIMIT 1
) AS first

-- name: counts
SELECT
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{due}}) + (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{abandoned}}) AS claimable,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{due}}) AS due,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{waiting}} AND NOT {{due}}) AS scheduled,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'PROCESSING') AS processing,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'COMPLETED') AS completed,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'FAILED') AS failed,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{conflict}}) AS conflict,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{held}}) AS held,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'SKIPPED') AS skipped,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{pending}} AND NOT {{unexpired}}) AS expired,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{pending}} AND {{unexpired}} AND NOT {{attempts_left}}) AS spent,
    (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{abandoned}}) AS abandoned,
    (SELECT extract(epoch FROM now() - min(since) FILTER (WHERE isfinite(since)))::float8
     FROM (SELECT coalesce(q.scheduled_for, q.created_at) AS since FROM siorg_sync_queue AS q WHERE {{due}}) AS q) AS oldest_due_seconds
