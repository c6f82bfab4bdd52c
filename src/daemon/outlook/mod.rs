//! The outlook on both ends: what a push would do, found out by reads alone.
//!
//! [`plan`] asks for every row, page by page; [`explain`] for one row, with its whole story. Neither takes the lease,
//! needs the daemon, or writes anything anywhere. What a row would become is decided by what decides it in the door.

pub mod explain;
pub mod plan;
mod reading;

use super::checkup;
use super::door::{LinkKind, unreadable};
use super::exit::{CONFIGURATION, Exit, NOT_PERMITTED, SOFTWARE, TRY_AGAIN, UNAVAILABLE};
use super::learn::{self, Portal};
use super::prepare::{self, Unprepared};
use crate::config::Config;
use crate::hubspot::{Client, Disposition, Failed, Lane, Observed, Observer, Slot};
use crate::mapping::{Mapping, Object};
use crate::postgres::catalog::Shape;
use crate::postgres::rows::Reader;
use crate::postgres::{self, Address, ErrorKind, Session, advice, connect};
use crate::sync::change::ObjectIndex;
use crate::sync::guard::Guard;
use crate::sync::plan::Rules;
use crate::sync::report::chain;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a request may wait for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(60);

/// What is known of one object at both ends.
struct Known {
    reader: Reader,
    rules: Rules,
    links: Vec<LinkKind>,
    /// HubSpot's property types by name.
    types: BTreeMap<String, String>,
    /// Whether the natural key is unique in Postgres.
    match_unique: bool,
}

/// Both ends, to be asked.
struct Ends {
    config: Config,
    session: Session,
    client: Arc<Client>,
    shapes: Vec<Shape>,
    objects: Vec<Known>,
    lane: Lane,
    asked: Arc<Asked>,
}

/// What asking cost so far.
#[derive(Default)]
struct Asked {
    requests: AtomicU64,
    micros: AtomicU64,
}

/// Why a question has no answer.
enum Unanswered {
    Database(postgres::Error),
    HubSpot(Failed),
    /// HubSpot's limits leave no request.
    NoTurn,
}

impl From<postgres::Error> for Unanswered {
    fn from(error: postgres::Error) -> Unanswered {
        Unanswered::Database(error)
    }
}

impl From<Failed> for Unanswered {
    fn from(failed: Failed) -> Unanswered {
        Unanswered::HubSpot(failed)
    }
}

impl From<Unanswered> for Exit {
    fn from(unanswered: Unanswered) -> Exit {
        match unanswered {
            Unanswered::Database(error) => of_database(&error, None),
            Unanswered::HubSpot(failed) => {
                let code = match failed.disposition {
                    Disposition::Halt { .. } => NOT_PERMITTED,
                    _ => TRY_AGAIN,
                };
                Exit::new(code, chain(&failed)).hint(failed.advice)
            }
            Unanswered::NoTurn => {
                Exit::new(TRY_AGAIN, "HubSpot's limits leave no request for this at present")
                    .hint("see `hubsyncd status`, and try again later")
            }
        }
    }
}

fn of_database(error: &postgres::Error, advice: Option<String>) -> Exit {
    let code = match error.kind {
        ErrorKind::Unreachable => UNAVAILABLE,
        ErrorKind::Busy => TRY_AGAIN,
        ErrorKind::Denied => NOT_PERMITTED,
        ErrorKind::Schema => CONFIGURATION,
        ErrorKind::Rows | ErrorKind::Fenced | ErrorKind::Other => SOFTWARE,
    };
    let words = match error.kind {
        // Postgres' own words may hold values.
        ErrorKind::Rows => unreadable(error).message,
        _ => chain(error),
    };
    let exit = Exit::new(code, words);
    exit.hint(advice.unwrap_or_else(|| "`hubsyncd check` looks at everything".to_owned()))
}

impl Ends {
    /// Connects to the database and compares it with the mapping; HubSpot is not asked yet. A daemon's own `client` keeps
    /// its pace; without one, another is made.
    async fn open(config: Config, lane: Lane, client: Option<Arc<Client>>) -> Result<Ends, Exit> {
        let address = Address::parse(config.database.url.expose_secret())
            .map_err(|error| Exit::new(CONFIGURATION, error).hint("look at the database URL"))?;
        let session = match connect::connect(&address, "outlook").await {
            Ok(session) => session,
            Err(error) => {
                let advice = advice::on_connection(&address, &error).await;
                return Err(of_database(&error, Some(advice)));
            }
        };
        let shapes = match prepare::database(&session, &config.mapping).await {
            Ok(shapes) => shapes,
            Err(Unprepared::Database(error)) => return Err(of_database(&error, None)),
            Err(Unprepared::Exit(exit)) => return Err(exit),
        };
        let asked = Arc::<Asked>::default();
        let client = match client {
            Some(client) => client,
            None => {
                let client = checkup::client(&config, config.hubspot.in_flight, asked.observer());
                let client = client.map_err(|error| {
                    Exit::new(CONFIGURATION, error).hint("look at [hubspot] and the token")
                })?;
                client.pace().set_reserve(config.hubspot.daily_reserve);
                Arc::new(client)
            }
        };
        let objects = (0..config.mapping.objects.len())
            .map(|at| Known::before_hubspot(&config.mapping, at, &shapes))
            .collect();
        Ok(Ends {
            config,
            session,
            client,
            shapes,
            objects,
            lane,
            asked,
        })
    }

    /// Asks HubSpot for what only it knows of the mapping: property types, uniqueness, labels.
    async fn ask_portal(&mut self) -> Result<(), Exit> {
        let asked = tokio::time::timeout(TURN_PATIENCE, learn::ask(&self.client, &self.config.mapping)).await;
        let portal = match asked {
            Err(_) => return Err(Unanswered::NoTurn.into()),
            Ok(Err(failed)) => return Err(Unanswered::HubSpot(failed).into()),
            Ok(Ok(portal)) => portal?,
        };
        if let Some(words) = portal.any_closed() {
            return Err(Exit::new(NOT_PERMITTED, words));
        }
        let mapping = &self.config.mapping;
        for (at, known) in self.objects.iter_mut().enumerate() {
            known.learn(mapping, at, &self.shapes, &portal);
        }
        Ok(())
    }

    fn object(&self, at: ObjectIndex) -> &Object {
        &self.config.mapping.objects[at]
    }

    fn guard(&self, at: ObjectIndex) -> Guard<'_> {
        Guard {
            rules: &self.objects[at].rules,
            settle: i64::try_from(self.config.hubspot.settle.as_micros()).unwrap_or(i64::MAX),
            former: None,
        }
    }

    async fn turn(&self) -> Result<Slot, Unanswered> {
        let slot = self.client.pace().slot(self.lane);
        tokio::time::timeout(TURN_PATIENCE, slot)
            .await
            .map_err(|_| Unanswered::NoTurn)
    }

    async fn search_turn(&self) -> Result<Slot, Unanswered> {
        let slot = self.client.pace().search_slot(self.lane);
        tokio::time::timeout(TURN_PATIENCE, slot)
            .await
            .map_err(|_| Unanswered::NoTurn)
    }
}

impl Asked {
    fn observer(self: &Arc<Asked>) -> Observer {
        let asked = Arc::clone(self);
        Arc::new(move |seen: Observed| {
            asked.requests.fetch_add(1, Ordering::Relaxed);
            let micros = u64::try_from(seen.took.as_micros()).unwrap_or(u64::MAX);
            asked.micros.fetch_add(micros, Ordering::Relaxed);
        })
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How long a request took on average.
    fn latency(&self) -> Duration {
        let micros = self.micros.load(Ordering::Relaxed);
        Duration::from_micros(micros / self.requests().max(1))
    }
}

impl Known {
    fn before_hubspot(mapping: &Mapping, at: ObjectIndex, shapes: &[Shape]) -> Known {
        let shape = shapes.iter().find(|shape| shape.object == at);
        let match_unique = shape.is_some_and(|shape| shape.match_unique);
        Known {
            reader: Reader::new(mapping, at, shapes, &BTreeMap::new()),
            rules: Rules::new(&mapping.objects[at], match_unique),
            links: Vec::new(),
            types: BTreeMap::new(),
            match_unique,
        }
    }

    fn learn(&mut self, mapping: &Mapping, at: ObjectIndex, shapes: &[Shape], portal: &Portal) {
        self.types = portal.types(at);
        self.reader = Reader::new(mapping, at, shapes, &self.types);
        self.rules = portal.rules(&mapping.objects[at], at, self.match_unique);
        self.links = portal.link_kinds(mapping, at);
    }

    fn type_of(&self, property: &str) -> &str {
        self.types.get(property).map_or("string", String::as_str)
    }
}
