-- name: missing
-- Units of an organization that SIORG's structure of it does not have: those that are active here, and those that were
-- deactivated because SIORG had them in another organization.
SELECT u.siorg_code AS code
FROM organizations AS o {{units_of_organization}}
WHERE o.siorg_code = %(organization)s AND u.siorg_code IS NOT NULL AND u.siorg_code <> ALL (%(codes)s::integer[])
  AND (u.is_active OR (
      coalesce(u.siorg_raw_data ->> 'operacao', '') <> 'EXCLUSAO'
      AND substring(u.siorg_raw_data ->> 'codigoOrgaoEntidade' FROM '0*([0-9]+)/?\s*$') <> o.siorg_code::text))
ORDER BY 1

-- name: on_queue
-- What the queue has about these entities: open rows, those that wait for a person, and the newest row where that FAILED, or
-- where a person put off what it asks.
SELECT q.entity_type::text AS entity_type, q.siorg_code AS code,
       CASE WHEN {{open}} THEN 'open' WHEN {{held}} THEN 'held' WHEN q.status OPERATOR(pg_catalog.=) 'FAILED' THEN 'failed'
           ELSE 'conflict' END AS state,
       coalesce(q.held_at, CASE WHEN q.status::text = 'FAILED' THEN q.processed_at END, q.created_at) AS since,
       CASE WHEN jsonb_typeof(q.detected_changes) = 'object' THEN ARRAY(SELECT jsonb_object_keys(q.detected_changes))
            WHEN {{held}} THEN ARRAY['is_active'] ELSE '{}' END AS fields,
       coalesce(q.last_error, '') AS error
FROM (
    SELECT r.*, row_number() OVER (PARTITION BY r.entity_type, r.siorg_code ORDER BY r.created_at DESC, r.id DESC) AS newest
    FROM siorg_sync_queue AS r
    WHERE r.entity_type OPERATOR(pg_catalog.=) ANY ('{ORGANIZATION,UNIT,CATEGORY,TYPE}'::siorg_entity_type_enum[])
        AND r.siorg_code = ANY (%(codes)s::integer[])  -- the index
) AS q
WHERE {{open}} OR q.status OPERATOR(pg_catalog.=) 'CONFLICT'
   OR (q.newest = 1 AND (q.status OPERATOR(pg_catalog.=) 'FAILED'
       OR (q.status OPERATOR(pg_catalog.=) 'SKIPPED' AND q.error_details ->> 'kind' IS DISTINCT FROM 'superseded')))

-- name: moved
-- When units came to hang where they do, or were deactivated, as history has it.
SELECT h.siorg_code AS code, max(h.created_at) AS since
FROM siorg_history AS h
WHERE h.entity_type OPERATOR(pg_catalog.=) 'UNIT' AND h.siorg_code = ANY (%(codes)s::integer[])
  AND h.affected_fields OPERATOR(pg_catalog.&&) ARRAY['organization', 'parent', 'is_active']
GROUP BY 1

-- name: touched
-- Entities whose row, or about which an item, changed since then.
SELECT 'UNIT' AS entity_type, u.siorg_code AS code FROM organizational_units AS u
WHERE u.siorg_code = ANY (%(codes)s::integer[]) AND (u.siorg_synced_at >= %(asked_at)s OR u.updated_at >= %(asked_at)s)
UNION
SELECT 'ORGANIZATION', o.siorg_code FROM organizations AS o
WHERE o.siorg_code = ANY (%(codes)s::integer[]) AND (o.siorg_synced_at >= %(asked_at)s OR o.updated_at >= %(asked_at)s)
UNION
SELECT 'CATEGORY', c.siorg_code FROM organizational_unit_categories AS c
WHERE c.siorg_code = ANY (%(codes)s::integer[]) AND (c.siorg_synced_at >= %(asked_at)s OR c.updated_at >= %(asked_at)s)
UNION
-- A type has a number of ours where it has no code of its own.
SELECT 'TYPE', code FROM unnest(%(codes)s::integer[]) AS code
WHERE EXISTS (SELECT FROM organizational_unit_types AS t WHERE t.siorg_synced_at >= %(asked_at)s OR t.updated_at >= %(asked_at)s)
UNION
SELECT q.entity_type::text, q.siorg_code FROM siorg_sync_queue AS q
WHERE q.entity_type OPERATOR(pg_catalog.=) ANY ('{ORGANIZATION,UNIT,CATEGORY,TYPE}'::siorg_entity_type_enum[])
    AND q.siorg_code = ANY (%(codes)s::integer[])
  AND (q.created_at >= %(asked_at)s OR q.processed_at >= %(asked_at)s OR q.last_attempt_at >= %(asked_at)s)

-- name: may_store
SELECT has_table_privilege('siorg_verifications', 'INSERT') AS allowed

-- name: store
INSERT INTO siorg_verifications (started_at, finished_at, complete, organizations, compared, drift, enqueued, departures, reason)
VALUES (%(started_at)s, clock_timestamp(), %(complete)s, %(organizations)s, %(compared)s, %(drift)s, %(enqueued)s,
        %(departures)s, %(reason)s)
