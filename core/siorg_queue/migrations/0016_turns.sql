-- Processes take turns by locking rows that only who may write our tables can lock. They stand in a table into which every Job may
-- write already: a new one would want a GRANT at the upgrade, without which nothing would be applied. The others are made when they
-- are first wanted; this one is shared, and has to be there.
INSERT INTO siorg_request_pace (name) VALUES ('domains') ON CONFLICT DO NOTHING;

COMMENT ON TABLE siorg_request_pace IS 'What all processes of one database take turns at: a row each, locked while it is somebody''s turn. Of siorg, requests to SIORG, also the pace';
