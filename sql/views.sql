-- The documents' two monitoring queries. They read through functions whose bodies are text: a view that named the
-- application's tables itself would stop the application from altering or dropping them. They run with the
-- reader's rights, row level security included.
CREATE OR REPLACE FUNCTION hubsyncd.awaiting_id_now()
RETURNS TABLE (table_name text, total_records bigint, awaiting_hubspot_id bigint, oldest_pending timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS {{tag}}
    {{awaiting}}
{{tag}};
CREATE OR REPLACE VIEW hubsyncd.awaiting_id AS
    SELECT table_name, total_records, awaiting_hubspot_id, oldest_pending FROM hubsyncd.awaiting_id_now();

CREATE OR REPLACE FUNCTION hubsyncd.last_sync_now()
RETURNS TABLE (table_name text, last_sync timestamptz, synced_recently bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS {{tag}}
    {{last}}
{{tag}};
CREATE OR REPLACE VIEW hubsyncd.last_sync AS
    SELECT table_name, last_sync, synced_recently FROM hubsyncd.last_sync_now();
