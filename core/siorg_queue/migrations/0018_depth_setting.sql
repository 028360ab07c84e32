-- The trigger of 0001 casts units.max_hierarchy_depth: a value that is no number would refuse every unit. It counts as unset, as the
-- job has it. A function of this name that reads the setting in another way is somebody else's, and stays.
DO $$
DECLARE
    trigger_function oid := to_regprocedure('fn_org_unit_integrity()');
    cast_of_it text := $sql$(SELECT (value #>> '{}')::integer FROM$sql$;
    careful text := $sql$(SELECT CASE WHEN value #>> '{}' ~ '^\s*[0-9]{1,9}\s*$' THEN nullif((value #>> '{}')::integer, 0) END FROM$sql$;
    definition text := pg_get_functiondef(trigger_function);
BEGIN
    IF strpos(definition, cast_of_it) > 0
        AND (SELECT pg_has_role(p.proowner, 'USAGE') FROM pg_proc AS p WHERE p.oid = trigger_function) THEN
        EXECUTE replace(definition, cast_of_it, careful);
    END IF;
END $$;
