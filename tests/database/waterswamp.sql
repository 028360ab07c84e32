-- A database as an existing installation has it, written after the reference's tables. `uuid_generate_v4` stands in for the
-- extension uuid-ossp, which the embedded server does not ship.
CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';
CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at = NOW(); RETURN NEW; END $$;
CREATE TYPE activity_area_enum AS ENUM ('SUPPORT', 'CORE');
CREATE TYPE siorg_entity_type_enum AS ENUM ('ORGANIZATION', 'UNIT', 'CATEGORY', 'TYPE');
CREATE TYPE siorg_change_type_enum AS ENUM ('CREATION', 'UPDATE', 'EXTINCTION', 'HIERARCHY_CHANGE', 'MERGE', 'SPLIT');
CREATE TYPE sync_status_enum AS ENUM ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CONFLICT', 'SKIPPED');
CREATE TYPE mapping_status_enum AS ENUM ('ACTIVE', 'DEPRECATED', 'MERGED', 'UNMAPPED');

CREATE TABLE system_settings (
    key varchar(100) PRIMARY KEY, value jsonb NOT NULL, value_type varchar(20) DEFAULT 'string', description text,
    category varchar(50), is_sensitive boolean DEFAULT false, updated_at timestamptz NOT NULL DEFAULT now(), updated_by uuid
);
INSERT INTO system_settings (key, value, value_type) VALUES
    ('siorg.sync_enabled', 'true', 'boolean'), ('siorg.hierarchy_strict_mode', 'false', 'boolean'),
    ('units.max_hierarchy_depth', '10', 'number');

CREATE TABLE organizations (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), acronym varchar(50) NOT NULL, name varchar(255) NOT NULL,
    cnpj char(14) UNIQUE NOT NULL CHECK (cnpj ~ '^\d{14}$'), ug_code integer NOT NULL, siorg_code integer NOT NULL UNIQUE,
    address varchar(500), city varchar(100), state char(2), zip_code varchar(10), phone varchar(50), email varchar(255),
    website varchar(255), logo_url text, is_main boolean DEFAULT true, is_active boolean DEFAULT true,
    siorg_synced_at timestamptz, siorg_raw_data jsonb, created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO organizations (acronym, name, cnpj, ug_code, siorg_code)
VALUES ('UFMT', 'Fundação Universidade Federal de Mato Grosso', '33004540000100', 154045, 471);

CREATE TABLE organizational_unit_categories (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), name varchar(100) UNIQUE NOT NULL, description text,
    siorg_code integer UNIQUE, siorg_name varchar(255), is_siorg_managed boolean DEFAULT false, display_order integer DEFAULT 0,
    is_active boolean DEFAULT true, siorg_synced_at timestamptz, siorg_sync_status sync_status_enum DEFAULT 'PENDING',
    siorg_raw_data jsonb, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE organizational_unit_types (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), code varchar(100) UNIQUE NOT NULL, name varchar(100) NOT NULL,
    description text, siorg_code integer UNIQUE, siorg_name varchar(255), is_siorg_managed boolean DEFAULT false,
    is_active boolean DEFAULT true, siorg_synced_at timestamptz, siorg_sync_status sync_status_enum DEFAULT 'PENDING',
    siorg_raw_data jsonb, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE organizational_units (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE RESTRICT,
    parent_id uuid REFERENCES organizational_units (id) ON DELETE RESTRICT,
    category_id uuid NOT NULL REFERENCES organizational_unit_categories (id) ON DELETE RESTRICT,
    unit_type_id uuid NOT NULL REFERENCES organizational_unit_types (id) ON DELETE RESTRICT,
    name varchar(255) NOT NULL, formal_name varchar(500), acronym varchar(50), siorg_code integer UNIQUE,
    siorg_parent_code integer, siorg_url text, siorg_last_version varchar(50), is_siorg_managed boolean DEFAULT false,
    activity_area activity_area_enum NOT NULL,
    contact_info jsonb DEFAULT '{"phones": [], "emails": [], "websites": [], "address": null}'::jsonb,
    level integer NOT NULL DEFAULT 1, path_ids uuid[] DEFAULT '{}'::uuid[], path_names text,
    is_active boolean NOT NULL DEFAULT true, deactivated_at timestamptz, deactivation_reason text,
    siorg_synced_at timestamptz, siorg_sync_status sync_status_enum DEFAULT 'PENDING', siorg_raw_data jsonb,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chk_org_units_no_self_parent CHECK (parent_id IS DISTINCT FROM id)
);
CREATE TRIGGER update_org_units_updated_at BEFORE UPDATE ON organizational_units
    FOR EACH ROW EXECUTE PROCEDURE update_updated_at_column();

CREATE TABLE siorg_mappings (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), entity_type siorg_entity_type_enum NOT NULL, local_id uuid NOT NULL,
    siorg_code integer NOT NULL, siorg_parent_code integer, siorg_hierarchy_path integer[],
    mapping_status mapping_status_enum DEFAULT 'ACTIVE', divergence_notes text, created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(), created_by uuid,
    CONSTRAINT uq_siorg_mapping_local UNIQUE (entity_type, local_id),
    CONSTRAINT uq_siorg_mapping_siorg UNIQUE (entity_type, siorg_code)
);
CREATE TABLE siorg_sync_queue (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), entity_type siorg_entity_type_enum NOT NULL, siorg_code integer NOT NULL,
    local_id uuid, operation siorg_change_type_enum NOT NULL, priority integer DEFAULT 5, payload jsonb NOT NULL,
    detected_changes jsonb, status sync_status_enum DEFAULT 'PENDING', attempts integer DEFAULT 0,
    max_attempts integer DEFAULT 3, last_attempt_at timestamptz, last_error text, error_details jsonb,
    processed_at timestamptz, processed_by uuid, resolution_notes text, scheduled_for timestamptz DEFAULT now(),
    expires_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chk_sync_queue_priority CHECK (priority BETWEEN 1 AND 10)
);
CREATE INDEX idx_sync_queue_pending ON siorg_sync_queue (priority, scheduled_for) WHERE status = 'PENDING';
CREATE INDEX idx_sync_queue_status ON siorg_sync_queue (status);
CREATE INDEX idx_sync_queue_entity ON siorg_sync_queue (entity_type, siorg_code);
CREATE INDEX idx_sync_queue_conflicts ON siorg_sync_queue (created_at DESC) WHERE status = 'CONFLICT';
CREATE INDEX idx_sync_queue_processing ON siorg_sync_queue (last_attempt_at) WHERE status = 'PROCESSING';
CREATE TABLE siorg_history (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), entity_type siorg_entity_type_enum NOT NULL, siorg_code integer NOT NULL,
    local_id uuid, change_type siorg_change_type_enum NOT NULL, previous_data jsonb, new_data jsonb, affected_fields text[],
    siorg_version varchar(50), source varchar(50) DEFAULT 'SYNC', sync_queue_id uuid REFERENCES siorg_sync_queue (id),
    requires_review boolean DEFAULT false, reviewed_at timestamptz, reviewed_by uuid, review_notes text,
    created_at timestamptz NOT NULL DEFAULT now(), created_by uuid
);
CREATE TABLE siorg_natureza_juridica (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), siorg_code integer UNIQUE NOT NULL, name varchar(255) NOT NULL,
    is_active boolean NOT NULL DEFAULT true, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE siorg_poder (LIKE siorg_natureza_juridica INCLUDING ALL);
CREATE TABLE siorg_esfera (LIKE siorg_natureza_juridica INCLUDING ALL);
