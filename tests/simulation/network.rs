//! The network between the real client and the portal, and HubSpot's bad days.
//!
//! A request that has left is carried through whatever becomes of the daemon that sent it.

use super::dice::Dice;
use super::world::World;
use futures::FutureExt;
use futures::future::BoxFuture;
use hubsyncd::hubspot::transport::{Incoming, Lost, Outgoing, Transport};
use hubsyncd::sandbox::{Delivered, Fault, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The client's time-out.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A long way there, and back, milliseconds: longer than the client waits.
const LATE: u64 = 40_000;
/// The longest way: less than the settle time, and with the lag of a search more than it.
const LATEST: u64 = 115_000;

/// Carries requests to the portal.
pub struct Network {
    pub world: Arc<World>,
    /// Which daemon asks.
    pub daemon: u64,
}

/// HubSpot's words.
const REFUSED: &str = r#"{"status":"error","category":"VALIDATION_ERROR","message":"A record of the batch cannot be deleted."}"#;

/// What becomes of a request.
#[derive(Debug)]
enum Plan {
    /// It is answered, possibly after a fault of HubSpot's.
    Answered(Option<&'static str>),
    /// No connection can be made.
    Unconnected,
    /// It never arrives; who sent it waits in vain, or sees the connection break.
    Lost { silently: bool },
    /// It is carried out and the answer is lost.
    Unanswered { silently: bool },
}

/// What HubSpot may do to any request.
const ANY: &[&str] = &[
    "500",
    "502",
    "503",
    "504",
    "503-html",
    "truncated",
    "no-json",
    "half-json",
    "empty-2xx",
    "429-ten-secondly",
    "429-secondly",
    "423",
    "477",
];
/// What it may do to a batch besides.
const BATCH: &[&str] = &[
    "commit-then-500",
    "commit-then-502",
    "commit-then-504",
    "commit-then-524",
    "empty-results",
    "partial",
    "unreported",
    "error-without-trace",
    "ignore-traces",
    "shuffle",
];

fn plan(dice: &mut Dice, batch: bool) -> Plan {
    match dice.below(10) {
        0 => Plan::Unconnected,
        1 => Plan::Lost {
            silently: dice.permille(300),
        },
        2..5 => Plan::Unanswered {
            silently: dice.permille(300),
        },
        5..7 if batch => Plan::Answered(dice.pick(BATCH).copied()),
        _ => Plan::Answered(dice.pick(ANY).copied()),
    }
}

impl Network {
    async fn carry(world: Arc<World>, outgoing: Outgoing) -> Result<Incoming, Lost> {
        let query = outgoing
            .url
            .query()
            .map_or_else(String::new, |query| format!("?{query}"));
        let target = format!("{}{query}", outgoing.url.path());
        let batch = target.contains("/batch/");
        let (plan, there, back) = {
            let mut dice = world.network_dice.lock().expect("never held for long");
            let mut way = || match dice.below(24) {
                0..10 => 1,
                10..22 => dice.between(2, 120),
                22 => dice.between(2, LATE / 10),
                _ if dice.permille(800) => dice.between(2, LATE),
                _ => dice.between(LATE, LATEST),
            };
            let (there, back) = (way(), way());
            let spoiled = world.is_troubled() && dice.permille(world.trouble.network);
            let plan = if spoiled {
                plan(&mut dice, batch)
            } else {
                Plan::Answered(None)
            };
            let unseen = world.scene.search_lag > 20_000 && target.ends_with("/batch/create");
            let there = if unseen && target.contains("/objects/") && world.is_troubled() && dice.permille(200)
            {
                dice.between(LATEST - 15_000, LATEST)
            } else {
                there
            };
            let writes = ["upsert", "create", "update"]
                .iter()
                .any(|verb| target.ends_with(verb));
            if writes && target.contains("/objects/") && world.dawdles.swap(false, Ordering::Relaxed) {
                (plan, dice.between(18_000, 28_000), 1)
            } else {
                (plan, there, back)
            }
        };
        let broken = |what: &str| Box::new(std::io::Error::other(what.to_owned()));
        world.pause(there).await;
        match plan {
            Plan::Unconnected => {
                world.trace(format_args!("net {target}: no connection"));
                Err(Lost::Unconnected(broken("no connection")))
            }
            Plan::Lost { silently } => {
                world.trace(format_args!("net {target}: lost on the way"));
                world.silence(silently, back).await;
                Err(Lost::Broken(broken("reset")))
            }
            Plan::Unanswered { silently } => {
                let _ = deliver(&world, &target, outgoing, None);
                world.trace(format_args!("net {target}: answer lost"));
                world.silence(silently, back).await;
                Err(Lost::Broken(broken("reset")))
            }
            Plan::Answered(fault) => {
                let delivered = deliver(&world, &target, outgoing, fault);
                let status = delivered.as_ref().map_or(0, |answer| answer.status);
                world.trace(format_args!(
                    "net {target}: {status} {}",
                    fault.unwrap_or_default()
                ));
                world.pause(back).await;
                delivered
            }
        }
    }
}

/// Hands a request to the portal and notes what it wrote.
fn deliver(world: &World, target: &str, outgoing: Outgoing, fault: Option<&str>) -> Result<Incoming, Lost> {
    world.tick();
    let revoked = world.revoked.load(Ordering::Relaxed).then_some("401");
    if let Some(fault) = revoked.or(fault).and_then(Fault::named) {
        world.portal.fault(fault);
    }
    let method = if outgoing.body.is_some() { "POST" } else { "GET" };
    let mut headers = axum::http::HeaderMap::new();
    headers.insert("authorization", outgoing.authorization);
    let body = outgoing.body.unwrap_or_default();
    if std::env::var_os("HUBSYNCD_SIM_SEED").is_some() {
        println!("{target} {}", String::from_utf8_lossy(&body));
    }
    if let Some(refusal) = unarchivable(world, target, &body) {
        return Ok(refusal);
    }
    let delivered = world.portal.ask(method, target, headers, body.into());
    if std::env::var_os("HUBSYNCD_SIM_SEED").is_some() {
        println!("  -> {delivered:?}");
    }
    let (mut written, mut archived) = (Vec::new(), Vec::new());
    {
        let portal = world.portal.world();
        let last = portal.requests().next_back();
        for write in last.into_iter().flat_map(|request| &request.writes) {
            match write {
                Write::Record { object, id, .. } => written.push((object.clone(), id.clone())),
                Write::Archived { object, id } => archived.push((object.clone(), id.clone())),
                Write::Linked { .. } | Write::Unlinked { .. } => {}
            }
        }
    }
    world.accept(written.into_iter());
    world.archive(&archived);
    let ends = || Lost::Broken(Box::new(std::io::Error::other("the connection ends")));
    match delivered.map_err(|error| Lost::Broken(Box::new(error)))? {
        Delivered::Whole(answer) => {
            let (parts, text) = answer.into_parts();
            Ok(Incoming {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: text.into_bytes(),
            })
        }
        Delivered::Truncated(_) | Delivered::Cut | Delivered::Never => Err(ends()),
    }
}

/// HubSpot's refusal to archive a batch, which does not say because of which record.
fn unarchivable(world: &World, target: &str, body: &[u8]) -> Option<Incoming> {
    if !target.ends_with("/batch/archive") || !target.contains("/objects/") {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let mut inputs = body["inputs"].as_array()?.iter();
    let model = world.model();
    let refuses = |id: &str| model.ledger.unarchivable.contains(id);
    inputs
        .any(|input| input["id"].as_str().is_some_and(refuses))
        .then(|| Incoming {
            status: 400,
            headers: axum::http::HeaderMap::new(),
            body: REFUSED.as_bytes().to_vec(),
        })
}

impl Transport for Network {
    fn exchange(&self, request: Outgoing) -> BoxFuture<'_, Result<Incoming, Lost>> {
        let (world, daemon) = (Arc::clone(&self.world), self.daemon);
        async move {
            // A process that is stopped between its last look at the lease and its first byte is not played.
            world.under_way.fetch_add(1, Ordering::Relaxed);
            let on_its_way = Arc::clone(&world);
            let carried = tokio::spawn(async move {
                let carried = Network::carry(Arc::clone(&on_its_way), request).await;
                on_its_way.under_way.fetch_sub(1, Ordering::Relaxed);
                carried
            });
            let carried = tokio::time::timeout(TIMEOUT, carried).await;
            world.thaw(daemon).await;
            match carried {
                Ok(carried) => carried.expect("carrying a request neither panics nor is cancelled"),
                Err(late) => Err(Lost::TimedOut(Box::new(late))),
            }
        }
        .boxed()
    }
}
