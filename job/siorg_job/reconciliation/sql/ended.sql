-- name: remembers_an_end
SELECT EXISTS (
    SELECT FROM organizations AS o
    WHERE o.siorg_code = %(organization)s
      AND (o.siorg_base ->> 'x' = 'false' OR o.siorg_base #>> '{no,x}' = 'false' OR EXISTS (
          SELECT FROM (
              SELECT * FROM siorg_sync_queue AS x
              WHERE x.entity_type OPERATOR(pg_catalog.=) 'ORGANIZATION' AND x.siorg_code = o.siorg_code OFFSET 0
          ) AS q
          WHERE q.operation::text NOT IN ('CREATION', 'UPDATE', 'HIERARCHY_CHANGE')
            AND q.detected_changes #>> '{is_active,remote}' = 'false'
            AND (q.status OPERATOR(pg_catalog.=) 'CONFLICT' OR (q.status OPERATOR(pg_catalog.=) 'COMPLETED'
                AND NOT coalesce(q.error_details ? 'resolution', false)
                 AND coalesce(q.processed_at, q.last_attempt_at, q.created_at) > o.siorg_synced_at))))
) AS found

-- name: record_ended
WITH forgotten AS (
    UPDATE system_settings SET value = 'null' WHERE key::text = 'siorg_versao:' || %(organization)s::integer::text
        AND value <> 'null'
)
INSERT INTO system_settings (key, value, value_type, description, category)
VALUES ('siorg_em_dia:' || %(organization)s::integer::text, to_jsonb(%(at_rest)s::boolean), 'boolean',
        'Whether nothing differed when this organization was last compared with SIORG', 'siorg'),
       ('siorg_existe:' || %(organization)s::integer::text, 'false', 'boolean',
        'Whether SIORG has this organization, which it had ended; null: it has it as ever', 'siorg')
ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()

-- name: record_existence
INSERT INTO system_settings (key, value, value_type, description, category)
VALUES ('siorg_existe:' || %(organization)s::integer::text, %(exists)s::jsonb, 'boolean',
        'Whether SIORG has this organization, which it had ended; null: it has it as ever', 'siorg')
ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now() WHERE system_settings.value <> excluded.value

-- name: in_question
-- Units of an organization that is not active here, about which people are asked; not those that SIORG had in an active one then.
SELECT DISTINCT u.siorg_code AS code
FROM organizations AS o {{units_of_organization}} CROSS JOIN LATERAL {{items_of_unit}}
WHERE o.siorg_code = %(organization)s AND NOT coalesce(o.is_active, true) AND q.status OPERATOR(pg_catalog.=) 'CONFLICT' AND NOT EXISTS (
    SELECT FROM organizations AS other WHERE other.siorg_code::text = {{organization}} AND coalesce(other.is_active, true)
)
