-- transaction: none
-- Units that wait at the top of their organization for a parent that is elsewhere: asked for whenever a unit comes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS organizational_units_parent_code_idx
    ON organizational_units (siorg_parent_code) WHERE parent_id IS NULL;
