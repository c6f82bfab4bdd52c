-- What the operator of the application grants its own writers: everything on the tables, through row level security.
-- The daemon's rights are not here: setup grants them.
GRANT USAGE ON SCHEMA hubspot_sync TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hubspot_sync TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA hubspot_sync TO app;
CREATE POLICY app ON hubspot_sync.hubspot_contact_credits TO app USING (true) WITH CHECK (true);
CREATE POLICY app ON hubspot_sync.hubspot_bookings TO app USING (true) WITH CHECK (true);
CREATE POLICY app ON hubspot_sync.hubspot_mock_exams TO app USING (true) WITH CHECK (true);
