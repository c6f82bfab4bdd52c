-- What the operator of the application grants: to the daemon no more than it needs, to the application's own
-- writers everything on the tables, both through row level security.
GRANT USAGE ON SCHEMA hubspot_sync TO hubsyncd, app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hubspot_sync TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA hubspot_sync TO app;

GRANT SELECT ON ALL TABLES IN SCHEMA hubspot_sync TO hubsyncd;
GRANT UPDATE (hubspot_id, hubspot_last_sync_at) ON hubspot_sync.hubspot_contact_credits TO hubsyncd;
GRANT UPDATE (hubspot_id, hubspot_last_sync_at) ON hubspot_sync.hubspot_bookings TO hubsyncd;
GRANT UPDATE (hubspot_id, hubspot_last_sync_at) ON hubspot_sync.hubspot_mock_exams TO hubsyncd;
GRANT UPDATE (synced_to_hubspot_at) ON hubspot_sync.supabase_audit_log TO hubsyncd;

CREATE POLICY app ON hubspot_sync.hubspot_contact_credits TO app USING (true) WITH CHECK (true);
CREATE POLICY app ON hubspot_sync.hubspot_bookings TO app USING (true) WITH CHECK (true);
CREATE POLICY app ON hubspot_sync.hubspot_mock_exams TO app USING (true) WITH CHECK (true);

CREATE POLICY hubsyncd_read ON hubspot_sync.hubspot_contact_credits FOR SELECT TO hubsyncd USING (true);
CREATE POLICY hubsyncd_read ON hubspot_sync.hubspot_bookings FOR SELECT TO hubsyncd USING (true);
CREATE POLICY hubsyncd_read ON hubspot_sync.hubspot_mock_exams FOR SELECT TO hubsyncd USING (true);
CREATE POLICY hubsyncd_write ON hubspot_sync.hubspot_contact_credits FOR UPDATE TO hubsyncd USING (true);
CREATE POLICY hubsyncd_write ON hubspot_sync.hubspot_bookings FOR UPDATE TO hubsyncd USING (true);
CREATE POLICY hubsyncd_write ON hubspot_sync.hubspot_mock_exams FOR UPDATE TO hubsyncd USING (true);
