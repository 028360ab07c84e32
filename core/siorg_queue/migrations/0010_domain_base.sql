-- As 0007: categories and types are entities like the others.
ALTER TABLE organizational_unit_categories ADD COLUMN IF NOT EXISTS siorg_base jsonb;
ALTER TABLE organizational_unit_types ADD COLUMN IF NOT EXISTS siorg_base jsonb;

COMMENT ON COLUMN organizational_unit_categories.siorg_base IS 'What the sync last wrote into the row, by field; NULL where nothing is recorded. Written by siorg-job alone';
COMMENT ON COLUMN organizational_unit_types.siorg_base IS 'What the sync last wrote into the row, by field; NULL where nothing is recorded. Written by siorg-job alone';
