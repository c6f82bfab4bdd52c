//! The database's side of a checkup.

use super::{Notes, Reached, without};
use crate::config::Config;
use crate::mapping::Mapping;
use crate::postgres::catalog::{self, Shape};
use crate::postgres::control::Control;
use crate::postgres::examine::{self, Facts};
use crate::postgres::rows::Reader;
use crate::postgres::schema::{self, State};
use crate::postgres::{Address, Error, ErrorKind, Inspection, Problem, Session, advice, connect, inventory};
use crate::sync::checkup::Finding;
use crate::sync::report::chain;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The oldest and the newest PostgreSQL that this program is tested with, by major version.
const VERSIONS: (i32, i32) = (14, 18);

const SETUP: &str = "run `hubsyncd setup` as a role that owns the tables";
const URL_FORM: &str =
    "its form is postgres://user:password@host:5432/database?sslmode=verify-full&sslrootcert=FILE";

/// Looks at the database; `None` if it cannot be reached, or not in a way that the daemon can work with.
pub(super) async fn look(
    notes: &mut Notes<'_>,
    config: &Config,
    mapping: Option<&Mapping>,
) -> Option<Reached> {
    let address = match Address::parse(config.database.url.expose_secret()) {
        Ok(address) => address,
        Err(error) => {
            notes.note(Finding::problem("database.address", error.to_string(), URL_FORM));
            return unreached(notes, "the database's URL cannot be used");
        }
    };
    notes.note(encryption(&address));
    let session = match connect::connect(&address, "check").await {
        Ok(session) => session,
        Err(error) => {
            let hint = advice::on_connection(&address, &error).await;
            notes.note(Finding::problem("database.connection", chain(&error), hint));
            return unreached(notes, "the database cannot be reached");
        }
    };
    if !doorbell(notes, &address).await {
        return unreached(notes, "behind a transaction pooler nothing can be told");
    }
    let before = now();
    let facts = match examine::facts(&session).await {
        Ok(facts) => facts,
        Err(error) => {
            notes.note(failed("database.connection", &error));
            return unreached(notes, "the database does not answer");
        }
    };
    let ahead = facts.clock - (before + now()) / 2;
    server(notes, &facts);
    let mut reached = Reached {
        address,
        session,
        shapes: None,
        is_set_up: false,
        ahead,
    };
    match mapping {
        Some(mapping) => compare(notes, &mut reached, mapping).await,
        None => notes.note(Finding::skipped(
            "tables",
            "not looked at: the mapping has problems",
        )),
    }
    Some(reached)
}

fn unreached(notes: &mut Notes<'_>, why: &str) -> Option<Reached> {
    notes.note(Finding::skipped(
        "tables",
        format!("tables, triggers and rights are not looked at: {why}"),
    ));
    None
}

/// Microseconds since the Unix epoch by this machine's clock.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn failed(check: &'static str, error: &Error) -> Finding {
    let hint = match error.kind {
        ErrorKind::Unreachable => {
            "the connection was lost: look at the network and at Postgres' log, then check again"
        }
        ErrorKind::Busy => "a lock or a limit was in the way: check again",
        ErrorKind::Denied => SETUP,
        _ => "the message says what does not fit; correct the mapping, or run `hubsyncd setup`",
    };
    Finding::problem(check, chain(error), hint)
}

fn encryption(address: &Address) -> Finding {
    let place = format!(
        "{}, port {}, database {}",
        address.host(),
        address.port(),
        address.database()
    );
    if address.is_unverified() && !address.is_local() {
        return Finding::warning(
            "database.address",
            format!("{place}: whoever answers there is believed, since nothing is verified"),
            "sslmode=verify-full&sslrootcert=FILE; at Supabase FILE is from Dashboard → Database → SSL configuration",
        );
    }
    let how = match (address.is_local(), address.is_unverified()) {
        (true, _) => "on this machine",
        _ => "with TLS that is verified",
    };
    Finding::ok("database.address", format!("{place}, {how}"))
}

/// Whether sessions keep their backends, and notifications arrive; false behind a transaction pooler.
async fn doorbell(notes: &mut Notes<'_>, address: &Address) -> bool {
    let control = match Control::try_out(address).await {
        Ok(control) => control,
        Err(error) if error.kind == ErrorKind::Schema => {
            let hint =
                "give the daemon the direct address, or a pooler that pools by session (pool_mode = session)";
            notes.note(Finding::problem("database.pooler", chain(&error), hint));
            return false;
        }
        Err(error) => {
            notes.note(failed("database.listen", &error));
            return true;
        }
    };
    notes.note(Finding::ok("database.pooler", "a session keeps its backend"));
    notes.note(if !control.listen_proven() {
        Finding::warning(
            "database.listen",
            "a notification to ourselves did not arrive: the daemon looks for changes several times a second instead",
            "use the direct address; a pooler between has to hand notifications on",
        )
    } else if !control.can_arm() {
        Finding::warning(
            "database.listen",
            "notifications arrive, but max_prepared_transactions is above 0, so triggers never ring: the daemon looks for \
             changes several times a second instead",
            "set max_prepared_transactions = 0 if nothing here uses PREPARE TRANSACTION",
        )
    } else {
        Finding::ok("database.listen", "a notification to ourselves arrived")
    });
    true
}

fn server(notes: &mut Notes<'_>, facts: &Facts) {
    let Facts {
        role, version_text, ..
    } = facts;
    let wire = if facts.encrypted {
        "encrypted"
    } else {
        "not encrypted"
    };
    let message = format!("connected as {role} to PostgreSQL {version_text}, {wire}");
    let major = facts.version / 10_000;
    notes.note(if major < VERSIONS.0 {
        let hint = format!("PostgreSQL {} is the oldest that works", VERSIONS.0);
        Finding::problem("database.connection", message, hint)
    } else if major > VERSIONS.1 {
        let hint = format!(
            "PostgreSQL {} is the newest that this version was tested with",
            VERSIONS.1
        );
        Finding::warning("database.connection", message, hint)
    } else {
        Finding::ok("database.connection", message)
    });
    if !facts.powers.is_empty() {
        let message = format!(
            "role {role} has {}, which the daemon does not need",
            facts.powers.join(", ")
        );
        let hint = "let the daemon connect as a role of its own: CREATE ROLE hubsyncd LOGIN, then run `hubsyncd setup`";
        notes.note(Finding::warning("rights.excess", message, hint));
    }
}

/// Compares tables, triggers and rights with the mapping.
async fn compare(notes: &mut Notes<'_>, reached: &mut Reached, mapping: &Mapping) {
    let (fitting, shapes) = match catalog::inspect(&reached.session, mapping).await {
        Ok(shapes) => (mapping.clone(), Some(shapes)),
        Err(Inspection::Problems(problems)) => {
            problems
                .iter()
                .for_each(|problem| notes.note(of("tables", problem)));
            (without(mapping, &problems), None)
        }
        Err(Inspection::Database(error)) => {
            notes.note(failed("tables", &error));
            return;
        }
    };
    for object in &fitting.objects {
        let message = format!("{} has the columns that the mapping names", object.table);
        notes.note(Finding::ok("tables", message).about(&object.name));
    }
    match &shapes {
        Some(shapes) => reached.is_set_up = capture(notes, &reached.session, mapping, shapes).await,
        None => notes.note(Finding::skipped(
            "capture",
            "triggers are not looked at: the tables do not fit the mapping",
        )),
    }
    let may = rights(notes, &reached.session, &fitting).await;
    if let Some(shapes) = &shapes
        && may
        && reached.is_set_up
    {
        statements(notes, &reached.session, mapping, shapes).await;
    }
    reached.shapes = shapes;
}

fn of(check: &'static str, problem: &Problem) -> Finding {
    Finding::problem(check, &problem.message, &problem.hint).about(&problem.key)
}

fn warned(check: &'static str, problem: &Problem) -> Finding {
    Finding::warning(check, &problem.message, &problem.hint).about(&problem.key)
}

/// Whether what setup installs is there, current and in force; answers whether anything is.
async fn capture(notes: &mut Notes<'_>, session: &Session, mapping: &Mapping, shapes: &[Shape]) -> bool {
    let state = schema::installed(session, mapping, shapes).await;
    match &state {
        Ok(State::Current) => notes.note(Finding::ok(
            "capture",
            "schema hubsyncd is installed for this mapping",
        )),
        Ok(State::Missing) => {
            notes.note(Finding::problem(
                "capture",
                "schema hubsyncd is not installed in this database",
                SETUP,
            ));
            return false;
        }
        Ok(State::Outdated(parts)) => {
            let message = format!(
                "what is installed is older than the mapping: {}",
                parts.join(", ")
            );
            notes.note(Finding::problem("capture", message, SETUP));
        }
        Err(error) => {
            notes.note(failed("capture", error));
            return false;
        }
    }
    match inventory::triggers(session, mapping, shapes).await {
        Ok(problems) if problems.is_empty() => {
            notes.note(Finding::ok(
                "capture.triggers",
                "every trigger is there and fires",
            ));
        }
        Ok(problems) => problems
            .iter()
            .for_each(|problem| notes.note(of("capture.triggers", problem))),
        Err(error) => notes.note(failed("capture.triggers", &error)),
    }
    match examine::unseen(session, mapping).await {
        Ok(problems) => problems
            .iter()
            .for_each(|problem| notes.note(warned("capture.unseen", problem))),
        Err(error) => notes.note(failed("capture.unseen", &error)),
    }
    true
}

/// Whether the role has what it needs, and no more; answers whether it has.
async fn rights(notes: &mut Notes<'_>, session: &Session, mapping: &Mapping) -> bool {
    // Who has not run setup yet need not read sixty rights that it gives.
    let is_installed = examine::is_installed(session).await.unwrap_or(true);
    let lacking = inventory::rights(session, mapping, is_installed).await;
    let hidden = inventory::row_security(session, mapping).await;
    let mut enough = true;
    for (check, fine, asked) in [
        ("rights", "the role has every right that it needs", lacking),
        ("rows", "row level security hides no row from it", hidden),
    ] {
        match asked {
            Ok(problems) if problems.is_empty() => notes.note(Finding::ok(check, fine)),
            Ok(problems) => {
                enough &= check != "rights";
                problems.iter().for_each(|problem| notes.note(of(check, problem)));
            }
            Err(error) => notes.note(failed(check, &error)),
        }
    }
    match examine::excess(session, mapping).await {
        Ok(problems) => problems
            .iter()
            .for_each(|problem| notes.note(warned("rights.excess", problem))),
        Err(error) => notes.note(failed("rights.excess", &error)),
    }
    enough
}

/// Whether Postgres takes the statements that read the rows: `where`, lookups and views are in them.
async fn statements(notes: &mut Notes<'_>, session: &Session, mapping: &Mapping, shapes: &[Shape]) {
    for (at, object) in mapping.objects.iter().enumerate() {
        let reader = Reader::new(mapping, at, shapes, &BTreeMap::new());
        let [by_key, _] = reader.statements();
        let Err(error) = examine::accepts(session, by_key).await else {
            continue;
        };
        if error.kind == ErrorKind::Busy {
            let message = format!(
                "{} is locked at present, so its statement was not tried",
                object.table
            );
            notes.note(Finding::skipped("rows", message).about(&object.name));
        } else {
            let hint = "look at the object's `where`, at its lookups, and at the view it is read `from`";
            let message = format!(
                "Postgres refuses the statement that reads its rows: {}",
                chain(&error)
            );
            notes.note(Finding::problem("rows", message, hint).about(&object.name));
        }
    }
}
