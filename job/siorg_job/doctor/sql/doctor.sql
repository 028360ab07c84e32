-- name: schemas
-- Where the tables stand, whether this user may look there, and whether it looks there first.
SELECT n.nspname AS name, quote_ident(n.nspname) AS quoted, has_schema_privilege(n.oid, 'USAGE') AS usable,
       c.oid = to_regclass('siorg_sync_queue') AS is_found, quote_ident(current_user) AS role,
       quote_ident(current_database()) AS database
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname = 'siorg_sync_queue' AND c.relkind IN ('r', 'p')
ORDER BY is_found DESC NULLS LAST, usable DESC, name

-- name: missing_rights
-- One right at a time: has_table_privilege with a list is true where any of them is held. A right on columns is tried, not
-- looked at.
SELECT c.oid::regclass::text AS "table", string_agg(w."right", ', ' ORDER BY w.position) AS rights, quote_ident(current_user) AS role
FROM unnest(%(tables)s::text[], %(rights)s::text[]) WITH ORDINALITY AS w ("table", "right", position)
JOIN pg_class AS c ON c.oid = to_regclass(w."table")
WHERE NOT has_table_privilege(c.oid, w."right")
  AND (w."right" = 'DELETE' OR NOT has_any_column_privilege(c.oid, w."right"))
GROUP BY c.oid
ORDER BY min(w.position)

-- name: row_security
-- Tables of which policies decide what this user sees, and which kinds of statements no permissive policy is for.
SELECT c.oid::regclass::text AS "table", quote_ident(current_user) AS role,
       array_remove(array_agg(DISTINCT CASE WHEN NOT EXISTS (
           SELECT FROM pg_policy AS p
           WHERE p.polrelid = c.oid AND p.polpermissive
             AND p.polcmd IN ('*', CASE w."right" WHEN 'SELECT' THEN 'r' WHEN 'INSERT' THEN 'a' WHEN 'UPDATE' THEN 'w' ELSE 'd' END)
             AND EXISTS (SELECT FROM unnest(p.polroles) AS r (oid) WHERE CASE r.oid WHEN 0 THEN true ELSE pg_has_role(r.oid, 'USAGE') END)
       ) THEN w."right" END), NULL) AS without
FROM unnest(%(tables)s::text[], %(rights)s::text[]) AS w ("table", "right")
JOIN pg_class AS c ON c.oid = to_regclass(w."table")
WHERE row_security_active(c.oid)
GROUP BY c.oid
ORDER BY 1

-- name: add_item
INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, priority, payload, max_attempts, scheduled_for, needed_at)
VALUES ('UNIT', 0, 'UPDATE', 10, '{}', 3, '-infinity', now())
RETURNING id

-- name: see_item
SELECT {{due}} AS is_due FROM siorg_sync_queue AS q WHERE q.id = %(item)s

-- name: work_item
UPDATE siorg_sync_queue AS q
SET status = 'PROCESSING', lease_token = q.lease_token + 1, lease_expires_at = now() + interval '1 minute', attempts = 1
WHERE q.id = %(item)s
RETURNING q.id

-- name: fail_item
UPDATE siorg_sync_queue AS q
SET status = 'FAILED', lease_expires_at = NULL, processed_at = now(), last_error = 'siorg-job doctor', error_details = '{}'
WHERE q.id = %(item)s
RETURNING q.id

-- name: reopen_item
UPDATE siorg_sync_queue AS q SET status = 'PENDING', scheduled_for = now(), processed_at = NULL WHERE q.id = %(item)s
RETURNING q.id

-- name: delete_item
DELETE FROM siorg_sync_queue AS q WHERE q.id = %(item)s RETURNING q.id

-- name: add_history
INSERT INTO siorg_history (entity_type, siorg_code, change_type, previous_data, new_data, affected_fields, source, requires_review)
VALUES ('UNIT', 0, 'UPDATE', '{}', '{}', '{name}', 'SYNC', false)
RETURNING id

-- name: unlink_history
UPDATE siorg_history AS h SET sync_queue_id = NULL WHERE h.id = %(history)s RETURNING h.id

-- name: touch_organization
-- Of one that nobody works on; none: there is nothing to try on.
UPDATE organizations AS o SET siorg_synced_at = o.siorg_synced_at, name = o.name
WHERE o.id = (SELECT f.id FROM organizations AS f ORDER BY f.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING o.id

-- name: add_category
INSERT INTO organizational_unit_categories (name, siorg_code, is_siorg_managed, is_active, siorg_sync_status)
VALUES ('siorg-job doctor', -1, true, true, 'COMPLETED')
RETURNING id

-- name: touch_category
UPDATE organizational_unit_categories AS c SET siorg_name = 'siorg-job doctor' WHERE c.id = %(category)s RETURNING c.id

-- name: add_type
INSERT INTO organizational_unit_types (code, name, siorg_code, is_siorg_managed, is_active, siorg_sync_status)
VALUES ('siorg-job-doctor', 'siorg-job doctor', -1, true, true, 'COMPLETED')
RETURNING id

-- name: touch_type
UPDATE organizational_unit_types AS t SET siorg_name = 'siorg-job doctor' WHERE t.id = %(type)s RETURNING t.id

-- name: add_unit
INSERT INTO organizational_units (organization_id, parent_id, category_id, unit_type_id, name, acronym, is_siorg_managed, activity_area)
VALUES (%(organization_id)s, %(parent)s, %(category)s, %(type)s, 'siorg-job doctor', 'DOCTOR', true, 'SUPPORT')
RETURNING id, level, path_ids

-- name: touch_unit
UPDATE organizational_units AS u SET name = 'siorg-job doctor 2', is_active = false WHERE u.id = %(unit)s RETURNING u.id

-- name: add_mapping
INSERT INTO siorg_mappings (entity_type, local_id, siorg_code, mapping_status) VALUES ('UNIT', %(unit)s, -1, 'ACTIVE') RETURNING id

-- name: touch_mapping
UPDATE siorg_mappings AS m SET mapping_status = 'DEPRECATED' WHERE m.id = %(mapping)s RETURNING m.id

-- name: add_setting
INSERT INTO system_settings (key, value, value_type, description, category)
VALUES ('siorg-job doctor', 'null', 'string', 'siorg-job doctor', 'siorg')
RETURNING key

-- name: touch_setting
UPDATE system_settings AS s SET value = 'true' WHERE s.key::text = 'siorg-job doctor' RETURNING s.key

-- name: add_verification
INSERT INTO siorg_verifications (started_at, finished_at, complete, organizations, compared, drift, departures, reason)
VALUES (now(), now(), false, 0, 0, 0, '{}', 'siorg-job doctor')
RETURNING id

-- name: pace
SELECT EXISTS (SELECT FROM siorg_request_pace AS p WHERE p.name = 'siorg') AS is_there

-- name: touch_pace
UPDATE siorg_request_pace AS p SET next_at = p.next_at
WHERE p.name = (SELECT f.name FROM siorg_request_pace AS f WHERE f.name = 'siorg' FOR NO KEY UPDATE SKIP LOCKED)

-- name: keep_dead_rows
-- What keeps VACUUM from removing dead versions of this database's rows: its own transactions, and what keeps those of all
-- databases. Of others' sessions a role sees times only with pg_read_all_stats. A replica and a slot have no time, but an age.
SELECT holder.who, holder.seconds, holder.transactions, holder.ends_it
FROM (
    SELECT 'session ' || a.pid::text || ' of ' || coalesce(a.usename::text, 'the server') || ' ('
               || coalesce(nullif(a.application_name::text, '') || ', ', '') || coalesce(a.state::text, a.backend_type::text, '') || ')' AS who,
           extract(epoch FROM now() - a.xact_start)::float8 AS seconds, NULL::integer AS transactions,
           'SELECT pg_terminate_backend(' || a.pid::text || ');' AS ends_it
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
      AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
    UNION ALL
    SELECT 'prepared transaction ' || p.gid::text || ' of ' || p.owner::text, extract(epoch FROM now() - p.prepared)::float8, NULL,
           'COMMIT PREPARED ' || quote_literal(p.gid::text) || '; or ROLLBACK PREPARED ' || quote_literal(p.gid::text) || ';'
    FROM pg_prepared_xacts AS p WHERE p.database = current_database()
    UNION ALL
    SELECT 'replication slot ' || s.slot_name::text || CASE WHEN s.active THEN '' ELSE ', which nobody uses,' END, NULL, age(s.xmin),
           CASE WHEN s.active THEN '' ELSE 'SELECT pg_drop_replication_slot(' || quote_literal(s.slot_name::text) || ');' END
    FROM pg_replication_slots AS s WHERE s.xmin IS NOT NULL
    UNION ALL
    SELECT 'replica ' || r.application_name::text || ', by its feedback,', NULL, age(r.backend_xmin), ''
    FROM pg_stat_replication AS r WHERE r.backend_xmin IS NOT NULL
) AS holder
ORDER BY holder.seconds DESC NULLS LAST, holder.transactions DESC NULLS LAST

-- name: sees_sessions
SELECT pg_has_role('pg_read_all_stats'::name, 'USAGE'::text) AS sees_all, quote_ident(current_user::text) AS role
