-- How often discovery has asked again for what FAILED. Nullable and without a default: no rewrite, older Jobs go on as before.
ALTER TABLE siorg_sync_queue ADD COLUMN IF NOT EXISTS failures integer;

COMMENT ON COLUMN siorg_sync_queue.failures IS 'How often discovery opened the row again after it FAILED: the pause before the next time doubles with it';
