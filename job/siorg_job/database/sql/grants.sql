-- name: missing
-- Of these rights, those that this role lacks, as the statements that give them. Asked one at a time: with a list,
-- has_table_privilege is true if any of them is held.
SELECT 'GRANT ' || string_agg(needed.privilege, ', ' ORDER BY needed.privilege) || ' ON ' || needed.name
    || ' TO ' || quote_ident(current_user) AS statement
FROM unnest(%(tables)s::text[], %(rights)s::text[]) AS needed (name, privilege)
WHERE NOT has_table_privilege(to_regclass(needed.name), needed.privilege)
GROUP BY needed.name
ORDER BY needed.name
