-- The words of DESIGN §2, written once. Every other statement names them in double braces.
-- `q` is always a row of siorg_sync_queue. The old table lets status, priority, attempts, max_attempts and scheduled_for
-- be null (its API server writes such rows), so each is read through its default.
-- Enums, varchars and arrays have no operators of their very own: one that somebody plants for exactly these types wins, wherever
-- its schema stands on the path. So pg_catalog's are named (where an index serves them), or both sides are cast to what has its own.

-- name: priority
coalesce(q.priority, 5)

-- name: scheduled
coalesce(q.scheduled_for, '-infinity'::timestamptz)

-- name: pending
coalesce(q.status, 'PENDING'::sync_status_enum) OPERATOR(pg_catalog.=) 'PENDING'::sync_status_enum

-- name: attempts_counted
coalesce(q.attempts, 0) < coalesce(q.max_attempts, 3)

-- name: attempts_left
-- A person's decision (the API server leaves attempts as they were) opens the row again.
(coalesce(q.attempts, 0) < coalesce(q.max_attempts, 3) OR coalesce(q.error_details ? 'resolution', false))

-- name: unexpired
(q.expires_at IS NULL OR q.expires_at > now())

-- name: waiting
-- Will be worked on, now or later.
({{pending}} AND {{attempts_left}} AND {{unexpired}})

-- name: due
({{waiting}} AND {{scheduled}} <= now())

-- name: abandoned
-- In work with nobody working on it: the lease ran out, or (a row of the first worker) there never was one.
(q.status OPERATOR(pg_catalog.=) 'PROCESSING' AND (q.lease_expires_at <= now() OR (
    q.lease_expires_at IS NULL AND coalesce(q.last_attempt_at, '-infinity'::timestamptz) <= now() - interval '10 minutes')))

-- name: alone
-- Workers that held it, and others beside it, were lost twice (the one it is abandoned by is counted): the next has nothing else.
(q.losses > 0 AND (q.losses > 1 OR q.status OPERATOR(pg_catalog.=) 'PROCESSING'))

-- name: deaths_allowed
greatest(coalesce(q.max_attempts, 3), 1)

-- name: killer
-- Of an abandoned row: it was alone with its worker, as often as attempts allow.
q.losses > {{deaths_allowed}}

-- name: loss
-- What is said of an abandoned row.
'worker ' || coalesce(q.claimed_by, '(unknown)') || ' was lost while it held ' || CASE
    WHEN q.losses < 2 THEN 'this item: no attempt is counted'
    ELSE 'nothing but this item (' || (q.losses - 1)::text || ' of ' || ({{deaths_allowed}})::text || ')' END

-- name: claimable
({{due}} OR {{abandoned}})

-- name: most
-- So many rows are counted, and no more: a row costs a page. It is more than decides anything.
25001

-- name: ready
-- What a claim could take now, one range a priority as in the claim: exact below "most", else at least so many.
(
    SELECT count(*) AS claimable, count(*) FILTER (WHERE found.due) AS due, count(*) >= {{most}} AS at_least,
           min(found.since) FILTER (WHERE isfinite(found.since)) AS oldest
    FROM (
        SELECT of_one.due, of_one.since
        FROM generate_series(1, 10) AS p (priority)
        CROSS JOIN LATERAL (
            (SELECT true AS due, coalesce(q.scheduled_for, q.created_at) AS since FROM siorg_sync_queue AS q
             WHERE {{priority}} = p.priority AND {{due}} ORDER BY {{scheduled}} LIMIT {{most}})
            UNION ALL
            (SELECT false, q.lease_expires_at FROM siorg_sync_queue AS q WHERE {{priority}} = p.priority AND {{abandoned}})
        ) AS of_one
        LIMIT {{most}}
    ) AS found
)

-- name: first
-- The first that is or falls due, one look a priority; of what is beyond those counted too. An item may be due since -infinity,
-- which is no time to count from.
(
    SELECT min(first.scheduled) FILTER (WHERE isfinite(first.scheduled)) AS at, min(first.scheduled) <= now() AS is_due
    FROM generate_series(1, 10) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT {{scheduled}} AS scheduled FROM siorg_sync_queue AS q
        WHERE {{priority}} = p.priority AND {{waiting}}
        ORDER BY {{scheduled}}
        LIMIT 1
    ) AS first
)

-- name: oldest_due_seconds
extract(epoch FROM now() - least(ready.oldest, CASE WHEN first.at <= now() THEN first.at END))::float8

-- name: scheduled_later
-- How many wait for later, up to "most". Where all that is due is counted, it is what else is open, of which the index alone is
-- read: "open" names no column that is not in the index's own condition.
CASE WHEN NOT ready.at_least THEN (
    SELECT least(open.rows - expired.rows - ready.due, {{most}})
    FROM (SELECT count(*) AS rows FROM siorg_sync_queue AS q WHERE {{pending}} AND {{attempts_left}} AND q.expires_at <= now()) AS expired
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows FROM (
            SELECT FROM siorg_sync_queue AS q WHERE {{pending}} AND {{attempts_left}} LIMIT ready.due + expired.rows + {{most}}
        ) AS counted
    ) AS open
) ELSE (
    SELECT count(*) FROM (
        SELECT FROM generate_series(1, 10) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT FROM siorg_sync_queue AS q WHERE {{priority}} = p.priority AND {{waiting}} AND {{scheduled}} > now()
            ORDER BY {{scheduled}} LIMIT {{most}}
        ) AS of_one
        LIMIT {{most}}
    ) AS counted
) END

-- name: ended
(q.status OPERATOR(pg_catalog.=) ANY ('{COMPLETED,FAILED,SKIPPED}'::sync_status_enum[]))

-- name: completed
-- Brought in line with SIORG, whose answer that took.
q.status OPERATOR(pg_catalog.=) 'COMPLETED'

-- name: ended_at
-- When a row ended; the index of what FAILED or was SKIPPED is in this order.
coalesce(q.processed_at, q.created_at)

-- name: held
-- An end or an overwrite beyond a limit: waits for a person, who releases or drops it.
(q.status OPERATOR(pg_catalog.=) 'CONFLICT' AND q.held_at IS NOT NULL)

-- name: conflict
-- Both sides changed: waits for a person's decision.
(q.status OPERATOR(pg_catalog.=) 'CONFLICT' AND q.held_at IS NULL)

-- name: open
-- Waits, or is in work.
({{waiting}} OR q.status OPERATOR(pg_catalog.=) 'PROCESSING')

-- name: open_unit
-- The same about a unit; a condition for the index of "organization", so it does not look at attempts and expiry.
(q.entity_type OPERATOR(pg_catalog.=) 'UNIT'
    AND coalesce(q.status, 'PENDING'::sync_status_enum) OPERATOR(pg_catalog.=) ANY ('{PENDING,PROCESSING}'::sync_status_enum[]))

-- name: await_older
-- Jobs of release 0.1.0 exclude each other, and us, by the advisory lock (k.class, k.object). It is waited for where its holder may
-- write the queue; any other role is no Job, and may hold it for ever. (The functions below pg_locks and pg_stat_activity: to plan
-- those views costs more than the rest.)
CASE WHEN NOT pg_try_advisory_xact_lock(k.class, k.object) THEN CASE WHEN EXISTS (
    SELECT FROM pg_lock_status() AS l, pg_stat_get_activity(l.pid) AS a
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.database = a.datid
      AND l.classid = (k.class::bigint & 4294967295)::oid AND l.objid = (k.object::bigint & 4294967295)::oid
      AND has_table_privilege(a.usesysid, 'siorg_sync_queue', 'UPDATE')
) THEN pg_advisory_xact_lock(k.class, k.object) END END

-- name: organization
-- The SIORG code, as text, of the organization that the payload names; null where it names none.
substring(q.payload ->> 'codigoOrgaoEntidade' FROM '0*([0-9]+)/?\s*$')

-- name: needed
-- An answer of SIORG that was asked for before this is too old for the row.
coalesce(q.needed_at, q.created_at)

-- name: work
-- CREATION, UPDATE and HIERARCHY_CHANGE are one and the same work: fetch, bring in line.
CASE WHEN q.operation::text IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE') THEN 'UPDATE' ELSE q.operation::text END

-- name: unit_of_code
-- By key, here and below: what joins on a row is looked for by that key, row by row, and by nothing else (OFFSET 0 keeps all other
-- conditions out). With statistics from before a bulk insert the planner would rather read the whole table, or all rows of a state
-- that few had then. This one: of w.code.
CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.siorg_code = w.code OFFSET 0) AS u

-- name: organization_of_unit
CROSS JOIN LATERAL (SELECT * FROM organizations AS x WHERE x.id = u.organization_id OFFSET 0) AS o

-- name: units_of_organization
-- Of o.id.
CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.organization_id = o.id OFFSET 0) AS u

-- name: units_below
-- Directly below p.id.
CROSS JOIN LATERAL (SELECT * FROM organizational_units AS x WHERE x.parent_id = p.id OFFSET 0) AS u

-- name: units_waiting_for
-- At the top of their organization, although SIORG has them below p.siorg_code.
CROSS JOIN LATERAL (
    SELECT * FROM organizational_units AS x WHERE x.siorg_parent_code = p.siorg_code AND x.parent_id IS NULL OFFSET 0
) AS u

-- name: mapping_of_code
-- Of unit w.code.
CROSS JOIN LATERAL (
    SELECT * FROM siorg_mappings AS x WHERE x.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND x.siorg_code = w.code OFFSET 0
) AS m

-- name: items_of_unit
-- All about u.siorg_code.
(SELECT * FROM siorg_sync_queue AS x WHERE x.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND x.siorg_code = u.siorg_code OFFSET 0) AS q

-- name: items_of_entity
-- All about the entity (w.entity_type, w.code).
CROSS JOIN LATERAL (
    SELECT * FROM siorg_sync_queue AS x
    WHERE x.entity_type OPERATOR(pg_catalog.=) w.entity_type::siorg_entity_type_enum AND x.siorg_code = w.code OFFSET 0
) AS q
