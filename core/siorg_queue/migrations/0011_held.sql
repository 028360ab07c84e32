-- transaction: none
-- What is counted and looked up before a unit ends, or a name is overwritten: ends and names of the last hours, ends that wait,
-- and what is held about a unit.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_history_ends_idx ON siorg_history (created_at)
    WHERE entity_type OPERATOR(pg_catalog.=) 'UNIT' AND (change_type OPERATOR(pg_catalog.=) 'EXTINCTION'
        OR (change_type OPERATOR(pg_catalog.=) 'HIERARCHY_CHANGE' AND 'is_active' = ANY (affected_fields)));
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_history_names_idx ON siorg_history (created_at)
    WHERE entity_type OPERATOR(pg_catalog.=) 'UNIT' AND change_type OPERATOR(pg_catalog.=) ANY ('{UPDATE,HIERARCHY_CHANGE}'::siorg_change_type_enum[]) AND 'name' = ANY (affected_fields);
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_open_ends_idx ON siorg_sync_queue (siorg_code)
    WHERE entity_type OPERATOR(pg_catalog.=) 'UNIT' AND operation OPERATOR(pg_catalog.=) 'EXTINCTION'
        AND coalesce(status, 'PENDING'::sync_status_enum) OPERATOR(pg_catalog.=) ANY ('{PENDING,PROCESSING}'::sync_status_enum[]);
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_held_idx ON siorg_sync_queue (siorg_code) WHERE held_at IS NOT NULL;
