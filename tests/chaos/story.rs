//! What became of one row, for people: everything that was done to it at both ends, in the order of time.
//!
//! A run that finds something wrong is hard to make again, since the machine interleaves it as it likes. So it tells
//! what it knows while it is there.

use super::ledger::Kind;
use super::oracle::KINDS;
use crate::support::daemon::Stage;
use hubsyncd::postgres::Session;
use hubsyncd::sandbox::{World, Write};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

/// How many stories a run tells.
const STORIES_MAX: usize = 4;

/// Remembers every write to the daemon's intents and to the ids of rows.
pub(super) const MEMORY: &str = "
    CREATE TABLE chaos.memory (
        at timestamptz NOT NULL DEFAULT clock_timestamp(), xid text NOT NULL DEFAULT pg_current_xact_id()::text,
        what text NOT NULL, key text NOT NULL, held text);
    CREATE FUNCTION chaos.remember() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        DECLARE
            row jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END);
        BEGIN
            INSERT INTO chaos.memory (what, key, held)
            VALUES (TG_OP || ' ' || TG_TABLE_NAME, coalesce(row ->> 'key', row ->> 'id'),
                CASE WHEN row ? 'key' THEN row::text ELSE row ->> 'hubspot_id' END);
            RETURN NULL;
        END $$;
    CREATE TRIGGER chaos_memory AFTER INSERT OR UPDATE OR DELETE ON hubsyncd.intent
        FOR EACH ROW EXECUTE FUNCTION chaos.remember();
    CREATE TRIGGER chaos_memory AFTER INSERT OR UPDATE OR DELETE ON hubsyncd.failure
        FOR EACH ROW EXECUTE FUNCTION chaos.remember();
    CREATE TRIGGER chaos_memory AFTER UPDATE OF hubspot_id ON hubspot_sync.hubspot_contact_credits
        FOR EACH ROW WHEN (OLD.hubspot_id IS DISTINCT FROM NEW.hubspot_id) EXECUTE FUNCTION chaos.remember();
    CREATE TRIGGER chaos_memory AFTER UPDATE OF hubspot_id ON hubspot_sync.hubspot_bookings
        FOR EACH ROW WHEN (OLD.hubspot_id IS DISTINCT FROM NEW.hubspot_id) EXECUTE FUNCTION chaos.remember();
    CREATE TRIGGER chaos_memory AFTER UPDATE OF hubspot_id ON hubspot_sync.payments
        FOR EACH ROW WHEN (OLD.hubspot_id IS DISTINCT FROM NEW.hubspot_id) EXECUTE FUNCTION chaos.remember();";

/// Tells the stories of the first of these rows, each by its object and its identity.
pub(super) async fn tell(stage: &Stage, session: &Session, suspects: &[(&'static str, String)]) -> String {
    let mut told = String::new();
    let mut known = HashSet::new();
    for (object, identity) in suspects {
        if known.len() == STORIES_MAX || !known.insert(identity) {
            continue;
        }
        let (kind, type_id) = KINDS
            .iter()
            .find(|(kind, _)| kind.object == *object)
            .expect("suspects are of these kinds");
        writeln!(told, "\nthe story of {object} {identity}").unwrap();
        let (mut lines, keys) = in_postgres(session, kind, identity).await;
        lines.extend(in_hubspot(&stage.sandbox.world(), kind, type_id, identity));
        lines.extend(in_logs(stage, &keys));
        lines.sort();
        for (at, line) in lines {
            writeln!(told, "{at} {line}").unwrap();
        }
    }
    told
}

fn in_logs(stage: &Stage, keys: &[String]) -> Vec<Line> {
    let of_all = ["hubsyncd runs", "lease taken", "the lease was", "in doubt"];
    let logs = stage.logs();
    let told = logs.lines().filter(|line| {
        of_all.iter().any(|words| line.contains(words)) || keys.iter().any(|key| line.contains(key))
    });
    told.map(|line| {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let at = parsed["timestamp"].as_str().unwrap_or_default().to_owned();
        (at, format!("log      {line}"))
    })
    .collect()
}

type Line = (String, String);

/// What the ledger and the memory say, and the keys of the rows that had this identity.
async fn in_postgres(session: &Session, kind: &Kind, identity: &str) -> (Vec<Line>, Vec<String>) {
    let name = name(kind);
    let sql = format!(
        "WITH mine AS (SELECT DISTINCT key FROM chaos.ledger WHERE object = '{}' AND frozen ->> '{name}' = $1)
         SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), what, key FROM (
             SELECT at, 'ledger   ' || op || ' version ' || version || ' unborn ' || unborn || ' ' || frozen || ' ' || key AS what, key
             FROM chaos.ledger JOIN mine USING (key)
             UNION ALL
             SELECT at, 'memory   ' || what || ' xid ' || xid || ': ' || coalesce(held, 'null'), key FROM chaos.memory JOIN mine USING (key)
         ) AS told",
        kind.object
    );
    let rows = session.query(&sql, &[&identity]).await.unwrap();
    let keys: HashSet<String> = rows.iter().map(|row| row.get(2)).collect();
    let lines = rows.iter().map(|row| (row.get(0), row.get(1)));
    (lines.collect(), keys.into_iter().collect())
}

fn name(kind: &Kind) -> &'static str {
    kind.identity
        .expect("who has no identity is never a suspect for it")
}

fn in_hubspot(world: &World, kind: &Kind, type_id: &str, identity: &str) -> Vec<Line> {
    let name = name(kind);
    let of_identity = |write: &Write| match write {
        Write::Record {
            object,
            id,
            properties,
            ..
        } if object == type_id => properties
            .iter()
            .any(|(property, value)| property == name && value == identity)
            .then(|| id.clone()),
        _ => None,
    };
    let requests: Vec<_> = world.requests().collect();
    let ids: HashSet<String> = requests
        .iter()
        .flat_map(|request| request.writes.iter().filter_map(of_identity))
        .collect();
    let mut lines = Vec::new();
    for request in requests {
        for write in &request.writes {
            let (Write::Record { object, id, .. } | Write::Archived { object, id }) = write else {
                continue;
            };
            if object == type_id && ids.contains(id) {
                let arrived = UNIX_EPOCH + Duration::from_millis(request.arrived_ms.unsigned_abs());
                let (number, path, status) = (request.number, &request.path, request.status);
                lines.push((
                    humantime::format_rfc3339_micros(arrived).to_string(),
                    format!("request  {number} {path} answered {status:?}: {write:?}"),
                ));
            }
        }
    }
    lines
}
