-- name: observe
-- All that the operator decides on, of one moment: the queue by the claim's own predicate, the switch, SIORG's pause, and
-- the room for connections. It is asked again and again, so it never walks finished rows, and counts no more than "most" of those
-- that wait. No per cent sign: it is sent without parameters.
SELECT ready.claimable, ready.at_least, ready.due, {{scheduled_later}} AS scheduled,
       (SELECT count(*) FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'PROCESSING') AS processing,
       (SELECT count(*) FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'FAILED') AS failed,
       person.conflict, person.held, extract(epoch FROM now() - person.held_since)::float8 AS held_oldest_seconds,
       {{oldest_due_seconds}} AS oldest_due_seconds,
       CASE WHEN ready.due > 0 THEN 0 ELSE extract(epoch FROM first.at - now()) END::float8 AS next_due_seconds,
       (SELECT s.value FROM system_settings AS s WHERE s.key::text = 'siorg.sync_enabled') AS sync_enabled,
       coalesce((
           SELECT extract(epoch FROM least(p.paused_until, now() + interval '1 year') - now())
           FROM siorg_request_pace AS p WHERE p.name = 'siorg' AND p.paused_until > now()
       ), 0)::float8 AS siorg_paused_seconds,
       -- Who got answers from SIORG, and how many seconds ago: of the newest items that were completed, by the host of the process.
       -- Told by their own index, or not at all (before migration 0020).
       CASE WHEN (SELECT i.indisvalid FROM pg_index AS i WHERE i.indexrelid = to_regclass('siorg_sync_queue_completed_idx')) THEN (
           SELECT jsonb_object_agg(of_a_host.host, of_a_host.seconds) FROM (
               SELECT split_part(newest.claimed_by, ':', 1) AS host, extract(epoch FROM now() - max(newest.processed_at))::float8 AS seconds
               FROM (
                   SELECT q.claimed_by, q.processed_at FROM siorg_sync_queue AS q
                   WHERE {{completed}} AND q.processed_at > now() - interval '1 day' AND q.processed_at <= now()
                   ORDER BY q.processed_at DESC LIMIT 50
               ) AS newest
               WHERE newest.claimed_by IS NOT NULL GROUP BY 1
           ) AS of_a_host
       ) END AS completed_by,
       -- Three limits, each with its own users. The server is known by the moment of its start, which every role may ask:
       -- poolers and names give one server many addresses, and a copy has the system identifier of the original.
       extract(epoch FROM pg_postmaster_start_time())::text AS server,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
           - coalesce(current_setting('reserved_connections', true)::integer, 0) AS max_connections,
       here.datname::text AS database, mine.rolname::text AS role,
       -- Neither of these binds a superuser. A negative one is none.
       CASE WHEN here.datconnlimit >= 0 AND NOT mine.rolsuper THEN here.datconnlimit END AS database_most,
       CASE WHEN mine.rolconnlimit >= 0 AND NOT mine.rolsuper THEN mine.rolconnlimit END AS role_most,
       client.connections, pg_backend_pid() AS backend
FROM {{ready}} AS ready
CROSS JOIN {{first}} AS first
CROSS JOIN (
    -- "held" of predicates.sql, before its migration too: where the table has no such column, the name is that of the other one.
    SELECT count(*) - count(c.held_at) AS conflict, count(c.held_at) AS held,
           min(c.held_at) FILTER (WHERE isfinite(c.held_at)) AS held_since
    FROM (SELECT NULL::timestamptz AS held_at) AS not_migrated
    CROSS JOIN LATERAL (SELECT held_at FROM siorg_sync_queue AS q WHERE q.status OPERATOR(pg_catalog.=) 'CONFLICT') AS c
) AS person
-- What limits it is counted by whom a session began as, and not by what it has become since.
JOIN pg_database AS here ON here.datname = current_database()
JOIN pg_roles AS mine ON mine.rolname = session_user
CROSS JOIN LATERAL (
    SELECT jsonb_agg(to_jsonb(of_a_name)) AS connections
    FROM (
        SELECT CASE WHEN starts_with(a.application_name, 'siorg-') THEN a.application_name ELSE '' END AS application,
               a.datid OPERATOR(pg_catalog.=) here.oid AS database, a.usesysid OPERATOR(pg_catalog.=) mine.oid AS role, count(*) AS count
        FROM pg_stat_activity AS a
        WHERE a.datid IS NOT NULL AND a.usesysid IS NOT NULL AND coalesce(a.backend_type, 'client backend') = 'client backend'
        GROUP BY 1, 2, 3
    ) AS of_a_name
) AS client

-- name: observe_all
-- The same, and beside it the newest complete verification and the newest one that is not complete; null: there is none.
SELECT queue.*, whole.finished_at AS verified_at, extract(epoch FROM now() - whole.finished_at)::float8 AS verified_seconds,
       whole.organizations AS verified_organizations, whole.compared AS verified_rows, whole.drift, whole.enqueued, whole.departures,
       extract(epoch FROM now() - part.finished_at)::float8 AS incomplete_seconds, part.reason AS incomplete_reason
FROM ({{observe}}) AS queue
LEFT JOIN LATERAL (
    SELECT v.* FROM siorg_verifications AS v WHERE v.complete AND isfinite(v.finished_at) ORDER BY v.finished_at DESC LIMIT 1
) AS whole ON true
LEFT JOIN LATERAL (
    SELECT v.* FROM siorg_verifications AS v WHERE NOT v.complete AND isfinite(v.finished_at) ORDER BY v.finished_at DESC LIMIT 1
) AS part ON true
