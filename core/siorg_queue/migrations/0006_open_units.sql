-- transaction: none
-- Open rows about units by the organization that their payload names: a discovery notes on those what its answer says of them,
-- and must not read the rows of hundreds of other organizations for it. Its words are those of predicates.sql.
CREATE INDEX CONCURRENTLY IF NOT EXISTS siorg_sync_queue_open_units_idx
    ON siorg_sync_queue (substring(payload ->> 'codigoOrgaoEntidade' FROM '0*([0-9]+)/?\s*$'))
    WHERE entity_type OPERATOR(pg_catalog.=) 'UNIT' AND coalesce(status, 'PENDING'::sync_status_enum) OPERATOR(pg_catalog.=) ANY ('{PENDING,PROCESSING}'::sync_status_enum[]);
