-- The tables of an application that keeps students, their credits, mock exams and bookings (PostgreSQL 15): what
-- the built-in mapping is made for, and what the demo and the tests run on. hubsyncd does not own these tables; it
-- adds triggers to them and keeps a schema of its own beside them. May be applied twice.
--
-- They are as such applications really are:
--   * some timestamps carry no time zone (created_at, updated_at), the one hubsyncd writes does;
--   * updated_at is set by the application, and sometimes not at all: nothing may depend on it;
--   * an e-mail is unique only together with a student_id, so two rows may share one;
--   * mock exams are made in HubSpot by an administrator and therefore always have a hubspot_id;
--   * the booking of a brand-new student has no contact_id: the contact has no HubSpot id yet;
--   * is_active is text ('Active', 'Cancelled', 'Completed'), attendance is text or null;
--   * some deployments name three columns of the bookings otherwise: associated_contact_id for contact_id,
--     associated_mock_exam for mock_exam_id, name for student_name;
--   * row level security is on, and no policy lets ordinary roles in.

CREATE SCHEMA IF NOT EXISTS hubspot_sync;

CREATE TABLE IF NOT EXISTS hubspot_sync.hubspot_contact_credits (
  id                     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  hubspot_id             text UNIQUE,
  student_id             text NOT NULL,
  email                  text NOT NULL,
  firstname              text,
  lastname               text,
  sj_credits             integer DEFAULT 0,
  cs_credits             integer DEFAULT 0,
  sjmini_credits         integer DEFAULT 0,
  mock_discussion_token  integer DEFAULT 0,
  shared_mock_credits    integer DEFAULT 0,
  ndecc_exam_date        text,
  created_at             timestamp DEFAULT now(),
  updated_at             timestamp DEFAULT now(),
  synced_at              timestamp DEFAULT now(),
  hubspot_last_sync_at   timestamptz,
  UNIQUE (student_id, email)
);

CREATE TABLE IF NOT EXISTS hubspot_sync.hubspot_mock_exams (
  id                             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  hubspot_id                     text UNIQUE NOT NULL,
  mock_exam_name                 text,
  mock_type                      text,
  exam_date                      date,
  start_time                     text,
  end_time                       text,
  location                       text,
  capacity                       integer,
  total_bookings                 integer DEFAULT 0,
  is_active                      text,
  scheduled_activation_datetime  timestamptz,
  created_at                     timestamp,
  updated_at                     timestamp,
  synced_at                      timestamp DEFAULT now(),
  hubspot_last_sync_at           timestamptz
);

CREATE TABLE IF NOT EXISTS hubspot_sync.hubspot_bookings (
  id                    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  hubspot_id            text UNIQUE,
  booking_id            text UNIQUE NOT NULL,
  mock_exam_id          text NOT NULL,          -- the exam's id in HubSpot
  contact_id            text,                   -- the contact's id in HubSpot, once known
  student_id            text NOT NULL,
  student_name          text,
  student_email         text NOT NULL,
  booking_status        text,
  is_active             text,
  attendance            text,
  attending_location    text,
  exam_date             timestamp,
  dominant_hand         text,
  token_used            text,
  token_refunded        text,
  token_refunded_at     timestamptz,
  token_refund_admin    text,
  start_time            text,
  end_time              text,
  mock_type             text,
  ndecc_exam_date       date,
  idempotency_key       text UNIQUE,
  created_at            timestamp DEFAULT now(),
  updated_at            timestamp,
  synced_at             timestamp DEFAULT now(),
  hubspot_last_sync_at  timestamptz
);

CREATE TABLE IF NOT EXISTS hubspot_sync.supabase_audit_log (
  id                    bigserial PRIMARY KEY,
  table_name            text NOT NULL,          -- without schema: 'hubspot_bookings'
  record_id             uuid NOT NULL,          -- its id in that table
  record_hubspot_id     text,
  operation             text NOT NULL,          -- INSERT, UPDATE, DELETE
  changed_fields        jsonb,
  old_values            jsonb,
  new_values            jsonb,
  performed_by          text,
  performed_at          timestamptz DEFAULT now(),
  synced_to_hubspot_at  timestamptz
);

CREATE INDEX IF NOT EXISTS idx_bookings_student_id    ON hubspot_sync.hubspot_bookings (student_id);
CREATE INDEX IF NOT EXISTS idx_bookings_student_email ON hubspot_sync.hubspot_bookings (student_email);
CREATE INDEX IF NOT EXISTS idx_audit_log_table_record ON hubspot_sync.supabase_audit_log (table_name, record_id);
CREATE INDEX IF NOT EXISTS idx_audit_log_pending_sync ON hubspot_sync.supabase_audit_log (id)
  WHERE synced_to_hubspot_at IS NULL;

ALTER TABLE hubspot_sync.hubspot_contact_credits ENABLE ROW LEVEL SECURITY;
ALTER TABLE hubspot_sync.hubspot_bookings        ENABLE ROW LEVEL SECURITY;
ALTER TABLE hubspot_sync.hubspot_mock_exams      ENABLE ROW LEVEL SECURITY;
