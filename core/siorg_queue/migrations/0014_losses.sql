-- Workers that died with a row in their hands. A constant default: no rewrite, and who does not know it goes on as before.
ALTER TABLE siorg_sync_queue ADD COLUMN IF NOT EXISTS losses integer NOT NULL DEFAULT 0;

COMMENT ON COLUMN siorg_sync_queue.losses IS 'How often a worker was lost that held the row, since one last came to an outcome; from 2 on it is worked on alone';
