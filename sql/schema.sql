-- The tables of hubsyncd. All its state is here; the machine it runs on is disposable.
CREATE SCHEMA IF NOT EXISTS hubsyncd;

-- The queue: a row for every row of the application that was named. Written by the capture functions in the
-- application's own transactions, read and deleted by the daemon.
CREATE TABLE IF NOT EXISTS hubsyncd.change (
    object       text        NOT NULL,   -- the object's name in the mapping
    seq          bigserial   NOT NULL,   -- in the order of capture, which is not the order of commit
    key          text,                   -- the row's key; null for * and T
    op           "char"      NOT NULL,   -- I inserted, N updated without HubSpot id, U updated, D deleted,
                                         -- A a record to archive, since its row is gone or holds another id,
                                         -- T truncated, * something that could not be named: sweep the object
    hubspot_id   text,                   -- with D: the id the row held; with A: the record
    captured_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (object, seq)
) WITH (
    -- A queue dies as fast as it grows: vacuum by count, at full speed, and never truncate the file, because that
    -- takes a lock that the application's writers would wait for.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = false,
    toast.vacuum_truncate = false
);

-- What HubSpot has or may have done and the application's row does not show yet.
CREATE TABLE IF NOT EXISTS hubsyncd.intent (
    object       text        NOT NULL,
    key          text        NOT NULL,
    hubspot_id   text,                   -- the id that HubSpot gave and the row does not hold yet
    match_value  text,                   -- the natural key that a create was sent under
    trace        text,                   -- the trace id of that create
    due_at       timestamptz,            -- when the key is named once more, since an older request may still land
    noted_at     timestamptz NOT NULL DEFAULT clock_timestamp(),   -- of a create: just before it was started
    PRIMARY KEY (object, key)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, vacuum_truncate = false);
ALTER TABLE hubsyncd.intent
    ADD COLUMN IF NOT EXISTS due_full    boolean NOT NULL DEFAULT false,   -- create-only properties go along then
    ADD COLUMN IF NOT EXISTS named       boolean NOT NULL DEFAULT false,   -- it has been named for due_at
    ADD COLUMN IF NOT EXISTS update_only boolean NOT NULL DEFAULT false,   -- a record is taken over for updates only
    ADD COLUMN IF NOT EXISTS first_at    timestamptz;                      -- of a create: noted_at of its first attempt
CREATE INDEX IF NOT EXISTS intent_due_at ON hubsyncd.intent (due_at) WHERE due_at IS NOT NULL;

-- Records that HubSpot, Postgres or the mapping refuses. Never a value of the row.
CREATE TABLE IF NOT EXISTS hubsyncd.failure (
    object           text        NOT NULL,
    key              text        NOT NULL,
    archive          text        NOT NULL DEFAULT '',      -- the HubSpot record that is not archived though its row is
                                                           -- gone; empty: the row itself
    hubspot_id       text,
    category         text        NOT NULL,
    message          text        NOT NULL,
    properties       text[]      NOT NULL DEFAULT '{}',
    correlation_id   text,
    existing_id      text,                   -- the HubSpot record that stands in the way
    full_record      boolean     NOT NULL DEFAULT false,   -- create-only properties are still to be sent
    attempts         integer     NOT NULL DEFAULT 1,
    first_failed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_failed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (object, key, archive)
);

-- HubSpot records that were archived because their rows were deleted: written before HubSpot is asked to, counted by
-- the brake, kept as long as HubSpot can restore them, which is 90 days.
CREATE TABLE IF NOT EXISTS hubsyncd.archived (
    object       text        NOT NULL,
    hubspot_id   text        NOT NULL,
    key          text        NOT NULL,   -- of the row that was deleted
    released     boolean     NOT NULL,   -- somebody said so, knowing of the brake; it counts no more
    archived_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (object, hubspot_id)
);
CREATE INDEX IF NOT EXISTS archived_at ON hubsyncd.archived (object, archived_at);

-- The associations that rows asked for, committed before each request. What HubSpot held before is noted with them:
-- what people made is never touched.
CREATE TABLE IF NOT EXISTS hubsyncd.link (
    object  text NOT NULL,
    key     text NOT NULL,
    link    text NOT NULL,   -- the target's object, and the label if there is one
    to_id   text NOT NULL,   -- the target's HubSpot id
    state   text NOT NULL CHECK (state IN ('making', 'made', 'removing')),
    PRIMARY KEY (object, key, link, to_id)
);
ALTER TABLE hubsyncd.link
    ADD COLUMN IF NOT EXISTS from_id      text,          -- the HubSpot id of the record that is linked
    ADD COLUMN IF NOT EXISTS found        text NOT NULL DEFAULT 'nothing'
        CHECK (found IN ('nothing', 'pair', 'link')),    -- what HubSpot held of the pair before; 'link': not ours
    ADD COLUMN IF NOT EXISTS unsettled_at timestamptz;   -- when the last request about it began that may still land
CREATE INDEX IF NOT EXISTS link_pair ON hubsyncd.link (to_id, from_id);

-- Sweeps and other runs, kept 90 days.
CREATE TABLE IF NOT EXISTS hubsyncd.run (
    id           uuid        PRIMARY KEY,
    kind         text        NOT NULL,
    reason       text        NOT NULL,
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    outcome      text,
    error        text,
    summary      jsonb
);
CREATE INDEX IF NOT EXISTS run_started_at ON hubsyncd.run (started_at);

-- Who pushes; one row. Receipts hold it FOR KEY SHARE under the generation they were pushed under.
CREATE TABLE IF NOT EXISTS hubsyncd.lease (
    one         boolean     PRIMARY KEY DEFAULT true CHECK (one),
    holder      text,
    generation  bigint      NOT NULL DEFAULT 0,   -- grows whenever another daemon takes the lease
    renewed_at  timestamptz                       -- the holder's last ping
) WITH (fillfactor = 20);
-- When it was given back with nothing on its way to HubSpot; null while it is held, and after a holder that died.
ALTER TABLE hubsyncd.lease ADD COLUMN IF NOT EXISTS stopped_at timestamptz;
INSERT INTO hubsyncd.lease DEFAULT VALUES ON CONFLICT DO NOTHING;

-- What is installed (keys `setup:…`, with the hash of each piece), and what the daemon has to remember.
CREATE TABLE IF NOT EXISTS hubsyncd.meta (
    key    text PRIMARY KEY,
    value  text NOT NULL
);

-- What setup gave outside of this schema: exactly this is taken back by `setup --uninstall`.
CREATE TABLE IF NOT EXISTS hubsyncd.granted (
    grantee    text NOT NULL,
    schema     text NOT NULL,
    relation   text NOT NULL,   -- empty: the schema itself
    privilege  text NOT NULL,   -- USAGE, SELECT, UPDATE, or POLICY
    detail     text NOT NULL,   -- the column; the policy's name; empty: the whole relation
    PRIMARY KEY (grantee, schema, relation, privilege, detail)
);

GRANT USAGE ON SCHEMA hubsyncd TO hubsyncd_owner;
GRANT INSERT ON hubsyncd.change TO hubsyncd_owner;
GRANT USAGE ON SEQUENCE hubsyncd.change_seq_seq TO hubsyncd_owner;
