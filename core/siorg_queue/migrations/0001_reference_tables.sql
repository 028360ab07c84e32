-- The tables, types and functions that a Waterswamp database has. Each is made only where it is missing: an existing
-- installation keeps its own, untouched.

DO $$
BEGIN
    IF to_regtype('activity_area_enum') IS NULL THEN
        CREATE TYPE activity_area_enum AS ENUM ('SUPPORT', 'CORE');
    END IF;
    IF to_regtype('siorg_entity_type_enum') IS NULL THEN
        CREATE TYPE siorg_entity_type_enum AS ENUM ('ORGANIZATION', 'UNIT', 'CATEGORY', 'TYPE');
    END IF;
    IF to_regtype('siorg_change_type_enum') IS NULL THEN
        CREATE TYPE siorg_change_type_enum AS ENUM ('CREATION', 'UPDATE', 'EXTINCTION', 'HIERARCHY_CHANGE', 'MERGE', 'SPLIT');
    END IF;
    IF to_regtype('sync_status_enum') IS NULL THEN
        CREATE TYPE sync_status_enum AS ENUM ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CONFLICT', 'SKIPPED');
    END IF;
    IF to_regtype('mapping_status_enum') IS NULL THEN
        CREATE TYPE mapping_status_enum AS ENUM ('ACTIVE', 'DEPRECATED', 'MERGED', 'UNMAPPED');
    END IF;
    IF to_regprocedure('update_updated_at_column()') IS NULL THEN
        CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $body$
        BEGIN
            NEW.updated_at = now();
            RETURN NEW;
        END $body$;
    END IF;
END $$;

DO $$
BEGIN
    IF to_regclass('system_settings') IS NULL THEN
        CREATE TABLE system_settings (
            key varchar(100) PRIMARY KEY,
            value jsonb NOT NULL,
            value_type varchar(20) DEFAULT 'string' CHECK (value_type::text IN ('string', 'number', 'boolean', 'json')),
            description text,
            category varchar(50),
            is_sensitive boolean DEFAULT false,
            updated_at timestamptz NOT NULL DEFAULT now(),
            updated_by uuid
        );
        CREATE TRIGGER set_system_settings_updated_at BEFORE UPDATE ON system_settings
            FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
        INSERT INTO system_settings (key, value, value_type, description, category) VALUES
            ('siorg.sync_enabled', 'true', 'boolean', 'false: siorg-job run and discover do nothing, and say so', 'siorg'),
            ('siorg.auto_approve_updates', 'false', 'boolean', 'kept for the API server; the job does not read it', 'siorg'),
            ('siorg.hierarchy_strict_mode', 'false', 'boolean', 'true: a unit that moves in SIORG becomes a conflict', 'siorg'),
            ('units.max_hierarchy_depth', '10', 'number', 'deepest level a unit may have', 'units');
    END IF;

    IF to_regclass('organizations') IS NULL THEN
        CREATE TABLE organizations (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            acronym varchar(50) NOT NULL,
            name varchar(255) NOT NULL,
            cnpj char(14) NOT NULL UNIQUE,
            ug_code integer NOT NULL,
            siorg_code integer NOT NULL UNIQUE,
            address varchar(500),
            city varchar(100),
            state char(2),
            zip_code varchar(10),
            phone varchar(50),
            email varchar(255),
            website varchar(255),
            logo_url text,
            is_main boolean DEFAULT true,
            is_active boolean DEFAULT true,
            siorg_synced_at timestamptz,
            siorg_raw_data jsonb,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT chk_cnpj_format CHECK (cnpj ~ '^\d{14}$'::text),
            CONSTRAINT chk_state_code CHECK (state IS NULL OR state ~ '^[A-Z]{2}$'::text)
        );
        CREATE TRIGGER set_organizations_updated_at BEFORE UPDATE ON organizations
            FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
        INSERT INTO organizations (acronym, name, cnpj, ug_code, siorg_code, website)
        VALUES ('UFMT', 'Fundação Universidade Federal de Mato Grosso', '33004540000100', 154045, 471, 'https://www.ufmt.br');
    END IF;

    IF to_regclass('organizational_unit_categories') IS NULL THEN
        CREATE TABLE organizational_unit_categories (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            name varchar(100) NOT NULL UNIQUE,
            description text,
            siorg_code integer UNIQUE,
            siorg_name varchar(255),
            is_siorg_managed boolean DEFAULT false,
            display_order integer DEFAULT 0,
            is_active boolean DEFAULT true,
            siorg_synced_at timestamptz,
            siorg_sync_status sync_status_enum DEFAULT 'PENDING',
            siorg_raw_data jsonb,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TRIGGER update_unit_categories_updated_at BEFORE UPDATE ON organizational_unit_categories
            FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
    END IF;

    IF to_regclass('organizational_unit_types') IS NULL THEN
        CREATE TABLE organizational_unit_types (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            code varchar(100) NOT NULL UNIQUE,
            name varchar(100) NOT NULL,
            description text,
            siorg_code integer UNIQUE,
            siorg_name varchar(255),
            is_siorg_managed boolean DEFAULT false,
            is_active boolean DEFAULT true,
            siorg_synced_at timestamptz,
            siorg_sync_status sync_status_enum DEFAULT 'PENDING',
            siorg_raw_data jsonb,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TRIGGER update_unit_types_updated_at BEFORE UPDATE ON organizational_unit_types
            FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
    END IF;

    IF to_regclass('organizational_units') IS NULL THEN
        CREATE TABLE organizational_units (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE RESTRICT,
            parent_id uuid REFERENCES organizational_units (id) ON DELETE RESTRICT,
            category_id uuid NOT NULL REFERENCES organizational_unit_categories (id) ON DELETE RESTRICT,
            unit_type_id uuid NOT NULL REFERENCES organizational_unit_types (id) ON DELETE RESTRICT,
            name varchar(255) NOT NULL,
            formal_name varchar(500),
            acronym varchar(50),
            siorg_code integer UNIQUE,
            siorg_parent_code integer,
            siorg_url text,
            siorg_last_version varchar(50),
            is_siorg_managed boolean DEFAULT false,
            activity_area activity_area_enum NOT NULL,
            contact_info jsonb DEFAULT '{"phones": [], "emails": [], "websites": [], "address": null}',
            level integer NOT NULL DEFAULT 1,
            path_ids uuid[] DEFAULT '{}',
            path_names text,
            is_active boolean NOT NULL DEFAULT true,
            deactivated_at timestamptz,
            deactivation_reason text,
            siorg_synced_at timestamptz,
            siorg_sync_status sync_status_enum DEFAULT 'PENDING',
            siorg_raw_data jsonb,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT chk_org_units_no_self_parent CHECK (parent_id IS DISTINCT FROM id)
        );
        CREATE INDEX idx_org_units_organization ON organizational_units (organization_id);
        CREATE INDEX idx_org_units_parent ON organizational_units (parent_id);
        CREATE INDEX idx_org_units_category ON organizational_units (category_id);
        CREATE INDEX idx_org_units_type ON organizational_units (unit_type_id);
        CREATE INDEX idx_org_units_name ON organizational_units (name);
        CREATE INDEX idx_org_units_acronym ON organizational_units (acronym) WHERE acronym IS NOT NULL;
        CREATE INDEX idx_org_units_path ON organizational_units USING gin (path_ids);
        CREATE TRIGGER update_org_units_updated_at BEFORE UPDATE ON organizational_units
            FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

        -- Level and path of the row itself. Its descendants are refreshed by whoever moves or renames it.
        CREATE FUNCTION fn_org_unit_integrity() RETURNS trigger LANGUAGE plpgsql AS $body$
        DECLARE
            parent organizational_units%ROWTYPE;
            max_depth integer;
        BEGIN
            IF NEW.parent_id IS NULL THEN
                NEW.level := 1;
                NEW.path_ids := ARRAY[NEW.id];
                NEW.path_names := (SELECT o.name FROM organizations o WHERE o.id = NEW.organization_id) || ' > ' || NEW.name;
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
            NEW.path_ids := parent.path_ids || NEW.id;
            NEW.path_names := parent.path_names || ' > ' || NEW.name;
            max_depth := coalesce((SELECT (value #>> '{}')::integer FROM system_settings WHERE key = 'units.max_hierarchy_depth'), 10);
            IF NEW.level > max_depth THEN
                RAISE EXCEPTION 'hierarchy depth % exceeds units.max_hierarchy_depth (%)', NEW.level, max_depth;
            END IF;
            RETURN NEW;
        END $body$;
        CREATE TRIGGER trg_org_unit_integrity BEFORE INSERT OR UPDATE OF parent_id, name ON organizational_units
            FOR EACH ROW EXECUTE FUNCTION fn_org_unit_integrity();
    END IF;

    IF to_regprocedure('fn_update_descendant_paths(uuid)') IS NULL THEN
        CREATE FUNCTION fn_update_descendant_paths(p_unit_id uuid) RETURNS integer LANGUAGE sql AS $body$
            WITH RECURSIVE tree AS (
                SELECT u.id, u.level, u.path_ids, u.path_names FROM organizational_units u WHERE u.id = p_unit_id
                UNION ALL
                SELECT u.id, t.level + 1, t.path_ids || u.id, t.path_names || ' > ' || u.name
                FROM organizational_units u JOIN tree t ON u.parent_id = t.id
            ), changed AS (
                UPDATE organizational_units u SET level = t.level, path_ids = t.path_ids, path_names = t.path_names
                FROM tree t WHERE u.id = t.id AND u.id <> p_unit_id
                RETURNING u.id
            )
            SELECT count(*)::integer FROM changed
        $body$;
    END IF;

    IF to_regclass('siorg_mappings') IS NULL THEN
        CREATE TABLE siorg_mappings (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            entity_type siorg_entity_type_enum NOT NULL,
            local_id uuid NOT NULL,
            siorg_code integer NOT NULL,
            siorg_parent_code integer,
            siorg_hierarchy_path integer[],
            mapping_status mapping_status_enum DEFAULT 'ACTIVE',
            divergence_notes text,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            created_by uuid,
            CONSTRAINT uq_siorg_mapping_local UNIQUE (entity_type, local_id),
            CONSTRAINT uq_siorg_mapping_siorg UNIQUE (entity_type, siorg_code)
        );
        CREATE TRIGGER update_siorg_mappings_updated_at BEFORE UPDATE ON siorg_mappings
            FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
    END IF;

    IF to_regclass('siorg_sync_queue') IS NULL THEN
        CREATE TABLE siorg_sync_queue (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            entity_type siorg_entity_type_enum NOT NULL,
            siorg_code integer NOT NULL,
            local_id uuid,
            operation siorg_change_type_enum NOT NULL,
            priority integer DEFAULT 5,
            payload jsonb NOT NULL,
            detected_changes jsonb,
            status sync_status_enum DEFAULT 'PENDING',
            attempts integer DEFAULT 0,
            max_attempts integer DEFAULT 3,
            last_attempt_at timestamptz,
            last_error text,
            error_details jsonb,
            processed_at timestamptz,
            processed_by uuid,
            resolution_notes text,
            scheduled_for timestamptz DEFAULT now(),
            expires_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT chk_sync_queue_priority CHECK (priority BETWEEN 1 AND 10)
        );
        CREATE INDEX idx_sync_queue_pending ON siorg_sync_queue (priority, scheduled_for) WHERE status OPERATOR(pg_catalog.=) 'PENDING';
        CREATE INDEX idx_sync_queue_status ON siorg_sync_queue (status);
        CREATE INDEX idx_sync_queue_entity ON siorg_sync_queue (entity_type, siorg_code);
        CREATE INDEX idx_sync_queue_conflicts ON siorg_sync_queue (created_at DESC) WHERE status OPERATOR(pg_catalog.=) 'CONFLICT';
        CREATE INDEX idx_sync_queue_processing ON siorg_sync_queue (last_attempt_at) WHERE status OPERATOR(pg_catalog.=) 'PROCESSING';
    END IF;

    IF to_regclass('siorg_history') IS NULL THEN
        CREATE TABLE siorg_history (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            entity_type siorg_entity_type_enum NOT NULL,
            siorg_code integer NOT NULL,
            local_id uuid,
            change_type siorg_change_type_enum NOT NULL,
            previous_data jsonb,
            new_data jsonb,
            affected_fields text[],
            siorg_version varchar(50),
            source varchar(50) DEFAULT 'SYNC',
            sync_queue_id uuid REFERENCES siorg_sync_queue (id),
            requires_review boolean DEFAULT false,
            reviewed_at timestamptz,
            reviewed_by uuid,
            review_notes text,
            created_at timestamptz NOT NULL DEFAULT now(),
            created_by uuid
        );
        CREATE INDEX idx_siorg_history_entity ON siorg_history (entity_type, siorg_code);
        CREATE INDEX idx_siorg_history_date ON siorg_history (created_at DESC);
        CREATE INDEX idx_siorg_history_pending_review ON siorg_history (created_at DESC)
            WHERE requires_review = true AND reviewed_at IS NULL;
    END IF;
END $$;

DO $$
DECLARE
    domain text;
BEGIN
    FOREACH domain IN ARRAY ARRAY['siorg_natureza_juridica', 'siorg_poder', 'siorg_esfera'] LOOP
        IF to_regclass(domain) IS NULL THEN
            EXECUTE format($ddl$
                CREATE TABLE %I (
                    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                    siorg_code integer NOT NULL UNIQUE,
                    name varchar(255) NOT NULL,
                    is_active boolean NOT NULL DEFAULT true,
                    created_at timestamptz NOT NULL DEFAULT now(),
                    updated_at timestamptz NOT NULL DEFAULT now()
                )$ddl$, domain);
            EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()',
                'update_' || domain || '_updated_at', domain);
        END IF;
    END LOOP;
END $$;
