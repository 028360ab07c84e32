-- name: missing
-- The rights that a run needs and this role lacks, as the statements that give them. Asked one at a time: with a list,
-- has_table_privilege is true if any of them is held.
SELECT 'GRANT ' || string_agg(needed.privilege, ', ' ORDER BY needed.privilege) || ' ON ' || needed.name
    || ' TO ' || quote_ident(current_user) AS statement
FROM (
    SELECT t.name, p.privilege
    FROM unnest(ARRAY['siorg_sync_queue', 'siorg_history', 'siorg_mappings', 'organizations', 'organizational_units',
        'organizational_unit_types', 'organizational_unit_categories', 'system_settings', 'siorg_request_pace']) AS t (name)
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS p (privilege)
) AS needed
WHERE NOT has_table_privilege(to_regclass(needed.name), needed.privilege)
GROUP BY needed.name
ORDER BY needed.name
