-- What we last wrote into a row, field by field: the base of its next merge. Nothing is recorded for rows that are here
-- already; siorg_raw_data stands in for them.
ALTER TABLE organizational_units ADD COLUMN IF NOT EXISTS siorg_base jsonb;
ALTER TABLE organizations ADD COLUMN IF NOT EXISTS siorg_base jsonb;

COMMENT ON COLUMN organizational_units.siorg_base IS 'What the sync last wrote into the row, by field; NULL where nothing is recorded. Written by siorg-job alone';
COMMENT ON COLUMN organizations.siorg_base IS 'What the sync last wrote into the row, by field; NULL where nothing is recorded. Written by siorg-job alone';
