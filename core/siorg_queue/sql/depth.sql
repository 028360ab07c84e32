-- name: depth
-- What a claim could take right now, and how long the oldest of it has been due. The operator scales on this.
SELECT ready.claimable, ready.at_least, {{oldest_due_seconds}} AS oldest_due_seconds FROM {{ready}} AS ready CROSS JOIN {{first}} AS first

-- name: claimable_exists
SELECT EXISTS (SELECT FROM siorg_sync_queue AS q WHERE {{due}}) OR EXISTS (SELECT FROM siorg_sync_queue AS q WHERE {{abandoned}}) AS found

-- name: next_due
-- Seconds until the next waiting row falls due; null when none waits. 0 when one is due already.
SELECT CASE WHEN first.is_due THEN 0 ELSE extract(epoch FROM first.at - now()) END::float8 AS seconds FROM {{first}} AS first

-- name: counts
-- The same of every state. What waits for somebody is counted, by indexes of just that; of what is done, which may be millions, no
-- more than "most": where there are more, it is what their index had when it was last vacuumed or analyzed, by its size now.
WITH ended AS MATERIALIZED (
    SELECT (SELECT count(*) FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'FAILED') AS failed,
           (SELECT count(*) FROM (SELECT FROM siorg_sync_queue AS q WHERE {{completed}} LIMIT {{most}}) AS counted) AS completed,
           (SELECT count(*) FROM (
               SELECT FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'SKIPPED' LIMIT {{most}}
           ) AS counted) AS skipped
)
SELECT ready.claimable, ready.at_least, ready.due, {{scheduled_later}} AS scheduled, {{oldest_due_seconds}} AS oldest_due_seconds,
       (SELECT count(*) FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'PROCESSING') AS processing,
       (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{conflict}}) AS conflict,
       (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{held}}) AS held,
       (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{pending}} AND q.expires_at <= now()) AS expired,
       (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{pending}} AND {{unexpired}} AND NOT {{attempts_left}}) AS spent,
       (SELECT count(*) FROM siorg_sync_queue AS q WHERE {{abandoned}}) AS abandoned,
       ended.failed,
       CASE WHEN ended.completed < {{most}} THEN ended.completed ELSE greatest(ended.completed, size.completed) END AS completed,
       CASE WHEN ended.skipped < {{most}} THEN ended.skipped ELSE greatest(ended.skipped, size.others - ended.failed) END AS skipped,
       ended.completed >= {{most}} OR ended.skipped >= {{most}} AS estimated
FROM {{ready}} AS ready
CROSS JOIN {{first}} AS first
CROSS JOIN ended
CROSS JOIN (
    SELECT max(rows.number) FILTER (WHERE rows.name = 'siorg_sync_queue_completed_idx') AS completed,
           max(rows.number) FILTER (WHERE rows.name = 'siorg_sync_queue_ended_idx') AS others
    FROM unnest('{siorg_sync_queue_completed_idx,siorg_sync_queue_ended_idx}'::text[]) AS i (name)
    JOIN pg_class AS c ON c.oid = to_regclass(i.name) AND c.relpages > 0
    CROSS JOIN LATERAL (
        SELECT i.name, (c.reltuples::float8 / c.relpages::float8 * pg_relation_size(c.oid)::float8
            / current_setting('block_size')::float8)::bigint AS number
    ) AS rows
) AS size
