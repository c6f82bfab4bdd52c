-- The mirror: HubSpot's contacts, companies and deals, to be read here instead of being asked for there. Written by
-- the daemon alone, and only while the configuration has [mirror]; empty and idle otherwise.
--
-- `sync_status` in a table is what was last written: `synced`, `error` with `sync_error`, and `pending` once the
-- daemon has noticed that no pass has confirmed the record for `stale-after`. A daemon that is down notices nothing:
-- the views `mirrored_contacts`, `mirrored_companies` and `mirrored_deals` work it out at the moment they are read,
-- and leave archived records out. Applications read the views.
CREATE TABLE IF NOT EXISTS hubsyncd.mirror_contacts (
    hubspot_id          text        PRIMARY KEY,
    email               text,
    firstname           text,
    lastname            text,
    phone               text,
    company             text,
    lifecyclestage      text,
    properties          jsonb       NOT NULL DEFAULT '{}',   -- all of them, as HubSpot says them
    created_at          timestamptz,
    hubspot_updated_at  timestamptz,
    last_synced_at      timestamptz NOT NULL,                -- when a pass last saw the record in HubSpot
    sync_status         text        NOT NULL CHECK (sync_status IN ('synced', 'pending', 'error')),
    sync_error          text,                                -- with `error`: what could not be stored, without values
    archived            boolean     NOT NULL DEFAULT false,  -- in HubSpot's recycle bin
    pass                bigint      NOT NULL                 -- the full pass that last saw it
) WITH (fillfactor = 80);
CREATE TABLE IF NOT EXISTS hubsyncd.mirror_companies (
    hubspot_id          text        PRIMARY KEY,
    name                text,
    domain              text,
    industry            text,
    phone               text,
    city                text,
    properties          jsonb       NOT NULL DEFAULT '{}',
    created_at          timestamptz,
    hubspot_updated_at  timestamptz,
    last_synced_at      timestamptz NOT NULL,
    sync_status         text        NOT NULL CHECK (sync_status IN ('synced', 'pending', 'error')),
    sync_error          text,
    archived            boolean     NOT NULL DEFAULT false,
    pass                bigint      NOT NULL
) WITH (fillfactor = 80);
CREATE TABLE IF NOT EXISTS hubsyncd.mirror_deals (
    hubspot_id          text        PRIMARY KEY,
    dealname            text,
    amount              numeric,                             -- null if HubSpot's is no number: see `properties`
    dealstage           text,
    pipeline            text,
    closedate           timestamptz,                         -- null if HubSpot's is no moment: see `properties`
    properties          jsonb       NOT NULL DEFAULT '{}',
    created_at          timestamptz,
    hubspot_updated_at  timestamptz,
    last_synced_at      timestamptz NOT NULL,
    sync_status         text        NOT NULL CHECK (sync_status IN ('synced', 'pending', 'error')),
    sync_error          text,
    archived            boolean     NOT NULL DEFAULT false,
    pass                bigint      NOT NULL
) WITH (fillfactor = 80);

-- For the lists that leave archived records out, in HubSpot's order, which is that of the numbers that ids are; and for
-- finding a record by what it is known by. A hash index takes values of any length, so that none can be refused for
-- being long.
CREATE INDEX IF NOT EXISTS mirror_contacts_live ON hubsyncd.mirror_contacts
    ((length(hubspot_id)), (hubspot_id COLLATE "C")) WHERE NOT archived;
CREATE INDEX IF NOT EXISTS mirror_companies_live ON hubsyncd.mirror_companies
    ((length(hubspot_id)), (hubspot_id COLLATE "C")) WHERE NOT archived;
CREATE INDEX IF NOT EXISTS mirror_deals_live ON hubsyncd.mirror_deals
    ((length(hubspot_id)), (hubspot_id COLLATE "C")) WHERE NOT archived;
CREATE INDEX IF NOT EXISTS mirror_contacts_email ON hubsyncd.mirror_contacts USING hash (email);
CREATE INDEX IF NOT EXISTS mirror_companies_domain ON hubsyncd.mirror_companies USING hash (domain);

-- Which records are associated, as the record at the near end says; each pair stands here in both directions once
-- both kinds are mirrored. Labels are not mirrored.
CREATE TABLE IF NOT EXISTS hubsyncd.mirror_association (
    from_kind  text NOT NULL CHECK (from_kind IN ('contacts', 'companies', 'deals')),
    from_id    text NOT NULL,
    to_kind    text NOT NULL CHECK (to_kind IN ('contacts', 'companies', 'deals')),
    to_id      text NOT NULL,
    PRIMARY KEY (from_kind, from_id, to_kind, to_id)
);
CREATE INDEX IF NOT EXISTS mirror_association_to ON hubsyncd.mirror_association (to_kind, to_id);

-- Where the passes stand, and what the tables hold, kept up with every page so that nobody has to count.
CREATE TABLE IF NOT EXISTS hubsyncd.mirror_state (
    kind            text        PRIMARY KEY CHECK (kind IN ('contacts', 'companies', 'deals')),
    pass            bigint      NOT NULL DEFAULT 0,   -- the full pass that goes on, or went last
    begun_at        timestamptz,                      -- when the one that goes on began; null: none does
    cursor          text,                             -- where it goes on in HubSpot's list; null: at its beginning;
                                                      -- empty: all is listed, and what was not seen is asked for by id
    listed          bigint      NOT NULL DEFAULT 0,   -- records it has listed so far
    modified_from   bigint,                           -- from when on the next incremental pass asks for changes,
                                                      -- milliseconds since 1970 by HubSpot's clock
    complete_as_of  timestamptz,                      -- all that HubSpot held then is here: a full pass began then
    caught_up_at    timestamptz,                      -- the same of changes: an incremental or full pass began then
    stale_after     interval    NOT NULL DEFAULT '24 hours',
    last_synced_at  timestamptz,                      -- the newest of the table
    synced          bigint      NOT NULL DEFAULT 0,   -- records by status, archived ones left out
    pending         bigint      NOT NULL DEFAULT 0,
    error           bigint      NOT NULL DEFAULT 0,
    archived        bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 20);
INSERT INTO hubsyncd.mirror_state (kind) VALUES ('contacts'), ('companies'), ('deals') ON CONFLICT DO NOTHING;

CREATE OR REPLACE VIEW hubsyncd.mirrored_contacts AS
SELECT m.hubspot_id, m.email, m.firstname, m.lastname, m.phone, m.company, m.lifecyclestage, m.properties,
       m.created_at, m.hubspot_updated_at, m.last_synced_at,
       CASE WHEN m.sync_status = 'synced' AND m.last_synced_at < now() - s.stale_after THEN 'pending'
            ELSE m.sync_status END AS sync_status,
       m.sync_error
FROM hubsyncd.mirror_contacts m
CROSS JOIN (SELECT stale_after FROM hubsyncd.mirror_state WHERE kind = 'contacts') s
WHERE NOT m.archived;
CREATE OR REPLACE VIEW hubsyncd.mirrored_companies AS
SELECT m.hubspot_id, m.name, m.domain, m.industry, m.phone, m.city, m.properties,
       m.created_at, m.hubspot_updated_at, m.last_synced_at,
       CASE WHEN m.sync_status = 'synced' AND m.last_synced_at < now() - s.stale_after THEN 'pending'
            ELSE m.sync_status END AS sync_status,
       m.sync_error
FROM hubsyncd.mirror_companies m
CROSS JOIN (SELECT stale_after FROM hubsyncd.mirror_state WHERE kind = 'companies') s
WHERE NOT m.archived;
CREATE OR REPLACE VIEW hubsyncd.mirrored_deals AS
SELECT m.hubspot_id, m.dealname, m.amount, m.dealstage, m.pipeline, m.closedate, m.properties,
       m.created_at, m.hubspot_updated_at, m.last_synced_at,
       CASE WHEN m.sync_status = 'synced' AND m.last_synced_at < now() - s.stale_after THEN 'pending'
            ELSE m.sync_status END AS sync_status,
       m.sync_error
FROM hubsyncd.mirror_deals m
CROSS JOIN (SELECT stale_after FROM hubsyncd.mirror_state WHERE kind = 'deals') s
WHERE NOT m.archived;

-- A record as HubSpot told it; null if Postgres has no room for it: a U+0000 in a text, half a surrogate pair, a size
-- beyond what jsonb takes. So one such record does not refuse the page that it came in.
CREATE OR REPLACE FUNCTION hubsyncd.mirror_record(told json) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN told::pg_catalog.text::pg_catalog.jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR statement_too_complex THEN
    RETURN NULL;
END $$;
-- A moment as HubSpot writes it: ISO 8601, or milliseconds since 1970; null if it is none.
CREATE OR REPLACE FUNCTION hubsyncd.mirror_moment(told text) RETURNS timestamptz
    LANGUAGE plpgsql STABLE STRICT AS $$
BEGIN
    IF told OPERATOR(pg_catalog.~) '^-?[0-9]{1,14}$' THEN
        RETURN pg_catalog.to_timestamp(told::pg_catalog.float8 OPERATOR(pg_catalog./) 1000.0::pg_catalog.float8);
    ELSIF told OPERATOR(pg_catalog.~) '^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?$' THEN
        RETURN told::pg_catalog.timestamptz;
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;
-- A number as HubSpot writes it; null if it is none.
CREATE OR REPLACE FUNCTION hubsyncd.mirror_number(told text) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF told OPERATOR(pg_catalog.~) '^[+-]?([0-9]{1,200}(\.[0-9]{0,200})?|\.[0-9]{1,200})([eE][+-]?[0-9]{1,3})?$' THEN
        RETURN told::pg_catalog.numeric;
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;
GRANT EXECUTE ON FUNCTION hubsyncd.mirror_record(json), hubsyncd.mirror_moment(text), hubsyncd.mirror_number(text)
    TO PUBLIC;
