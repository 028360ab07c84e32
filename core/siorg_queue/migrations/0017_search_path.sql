-- Functions of ours have a search path of their own, and name pg_catalog's operators: nothing that others plant is run by them.
ALTER FUNCTION siorg_sync_queue_notify_added() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION siorg_sync_queue_notify_reopened() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION siorg_sync_queue_needed_again() SET search_path = pg_catalog, pg_temp;

-- Those of the reference tables are ours where they have the body of migration 0001; an existing installation keeps its own.
DO $$
DECLARE
    home text := (SELECT quote_ident(n.nspname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                  WHERE c.oid = to_regclass('organizational_units'));
BEGIN
    IF (SELECT md5(prosrc) FROM pg_proc WHERE oid = to_regprocedure('update_updated_at_column()')) = '50ce4c0727d0e53b34ae6d4cbaa1bb81' THEN
        ALTER FUNCTION update_updated_at_column() SET search_path = pg_catalog, pg_temp;
    END IF;

    IF (SELECT md5(prosrc) FROM pg_proc WHERE oid = to_regprocedure('fn_org_unit_integrity()')) = 'deefa28b1609c8a435fe6ee5aaa2e272' THEN
        CREATE OR REPLACE FUNCTION fn_org_unit_integrity() RETURNS trigger LANGUAGE plpgsql AS $body$
        DECLARE
            parent organizational_units%ROWTYPE;
            max_depth integer;
        BEGIN
            IF NEW.parent_id IS NULL THEN
                NEW.level := 1;
                NEW.path_ids := ARRAY[NEW.id];
                NEW.path_names := (SELECT o.name::text FROM organizations o WHERE o.id = NEW.organization_id) || ' > ' || NEW.name::text;
                RETURN NEW;
            END IF;
            IF TG_OP = 'UPDATE' AND NEW.parent_id IS DISTINCT FROM OLD.parent_id AND EXISTS (
                WITH RECURSIVE ancestors AS (
                    SELECT u.id, u.parent_id FROM organizational_units u WHERE u.id = NEW.parent_id
                    UNION
                    SELECT u.id, u.parent_id FROM organizational_units u JOIN ancestors a ON u.id = a.parent_id
                )
                SELECT FROM ancestors WHERE id = NEW.id
            ) THEN
                RAISE EXCEPTION 'unit % cannot be moved below its own descendant', NEW.id;
            END IF;
            SELECT * INTO parent FROM organizational_units WHERE id = NEW.parent_id;
            NEW.level := parent.level + 1;
            NEW.path_ids := parent.path_ids OPERATOR(pg_catalog.||) NEW.id;
            NEW.path_names := parent.path_names || ' > ' || NEW.name::text;
            max_depth := coalesce(
                (SELECT (value #>> '{}')::integer FROM system_settings WHERE key::text = 'units.max_hierarchy_depth'), 10);
            IF NEW.level > max_depth THEN
                RAISE EXCEPTION 'hierarchy depth % exceeds units.max_hierarchy_depth (%)', NEW.level, max_depth;
            END IF;
            RETURN NEW;
        END $body$;
        EXECUTE format('ALTER FUNCTION fn_org_unit_integrity() SET search_path = pg_catalog, %s, pg_temp', home);
    END IF;

    IF (SELECT md5(prosrc) FROM pg_proc WHERE oid = to_regprocedure('fn_update_descendant_paths(uuid)')) = 'c898c924ae9b0d9192050b5fbdc1a9b5' THEN
        CREATE OR REPLACE FUNCTION fn_update_descendant_paths(p_unit_id uuid) RETURNS integer LANGUAGE sql AS $body$
            WITH RECURSIVE tree AS (
                SELECT u.id, u.level, u.path_ids, u.path_names FROM organizational_units u WHERE u.id = p_unit_id
                UNION ALL
                SELECT u.id, t.level + 1, t.path_ids OPERATOR(pg_catalog.||) u.id, t.path_names || ' > ' || u.name::text
                FROM organizational_units u JOIN tree t ON u.parent_id = t.id
            ), changed AS (
                UPDATE organizational_units u SET level = t.level, path_ids = t.path_ids, path_names = t.path_names
                FROM tree t WHERE u.id = t.id AND u.id <> p_unit_id
                RETURNING u.id
            )
            SELECT count(*)::integer FROM changed
        $body$;
        EXECUTE format('ALTER FUNCTION fn_update_descendant_paths(uuid) SET search_path = pg_catalog, %s, pg_temp', home);
    END IF;
END $$;
