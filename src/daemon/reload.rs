//! Reload: a changed configuration is taken without a restart.
//!
//! The file is read and checked as at a start; if anything is wrong with it, or what is installed does not fit a changed
//! mapping, all of it is told and nothing changes. Else the present term ends as a daemon does, with what is under way
//! finished first, and the next begins with the new settings. Sockets, requests for sweeps and counters go on through it.

use super::Shared;
use super::board::Lease;
use super::exit::Exit;
use super::learn;
use super::prepare::{self, Unprepared};
use super::sweep::request::Reason;
use super::term::Term;
use crate::config::Config;
use crate::hubspot::Client;
use crate::mapping::Mapping;
use crate::sync::report::chain;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// How long both ends may take to say whether they fit a changed mapping.
const FIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the configuration anew; else what is wrong with it, a problem an entry.
pub type Loader = Box<dyn Fn() -> Result<Config, Vec<String>> + Send + Sync>;

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// The settings that were taken, by name.
    pub changed: Vec<String>,
    /// The settings that differ and that only a restart takes.
    pub restart: Vec<String>,
}

/// Who asks for a reload wants to know what it came to; a signal does not.
pub(super) type Ask = Option<oneshot::Sender<Result<Reloaded, Vec<String>>>>;

impl Shared {
    /// Takes the configuration as it stands now, and tells whoever asked and the log how that went.
    pub(super) async fn reload(&self, term: &mut Term, load: &Loader, ask: Ask) {
        self.tell(|systemd| systemd.reloading());
        let reloaded = self.try_reload(term, load).await;
        self.tell(|systemd| systemd.ready());
        match &reloaded {
            Ok(Reloaded { changed, restart }) => {
                if changed.is_empty() {
                    info!("reloaded: nothing has changed");
                } else {
                    info!("reloaded: {}", changed.join(", "));
                }
                if !restart.is_empty() {
                    warn!(
                        "only a restart takes what else has changed: {}",
                        restart.join(", ")
                    );
                }
            }
            Err(problems) => {
                for problem in problems {
                    error!("not reloaded, the configuration of before goes on: {problem}");
                }
            }
        }
        if let Some(ask) = ask {
            // Who asked may be gone.
            let _ = ask.send(reloaded);
        }
    }

    async fn try_reload(&self, term: &mut Term, load: &Loader) -> Result<Reloaded, Vec<String>> {
        let next = load()?;
        let present = Arc::clone(&self.live.borrow());
        let changes = present.changes(&next);
        let reloaded = Reloaded {
            changed: changes.taken,
            restart: changes.restart,
        };
        if reloaded.changed.is_empty() {
            if let Some(door) = self.doorway.door() {
                door.try_paused(None);
            }
            return Ok(reloaded);
        }
        let next = Arc::new(present.reloaded(next));
        let client = if changes.hubspot {
            let client = self.client(&next).map_err(|exit| problems(&exit))?;
            Arc::new(client)
        } else {
            Arc::clone(&term.client)
        };
        if changes.mapping {
            self.fits(&next.mapping, &client).await?;
        }
        info!("a changed configuration is taken; what is under way is finished first");
        let cut = term.end(&self.board).await;
        self.board.set_mapping(&next.mapping);
        self.live.send_replace(Arc::clone(&next));
        *term = Term::begin(self, client, Some(term));
        if cut || changes.mapping {
            let ticket = self.requests.ask(Reason::Reload);
            info!(run = %ticket.id, "a sweep follows the reload");
        }
        Ok(reloaded)
    }

    /// HubSpot says of an object what it did not say before: the next term begins with it, and a sweep, since nobody knows
    /// what of the object was never pushed.
    pub(super) async fn renew(&self, term: &mut Term) {
        info!("HubSpot says what was not known of a paused object; what is under way is finished first");
        term.end(&self.board).await;
        self.board.set_mapping(&self.live.borrow().mapping);
        *term = Term::begin(self, Arc::clone(&term.client), Some(term));
        let ticket = self.requests.ask(Reason::Reload);
        info!(run = %ticket.id, "a sweep follows");
    }

    /// Whether both ends fit a mapping. HubSpot is asked only by who holds the lease.
    async fn fits(&self, mapping: &Mapping, client: &Client) -> Result<(), Vec<String>> {
        let asked = async {
            let session = self.pool.get().await.map_err(|error| vec![chain(&error)])?;
            match prepare::database(&session, mapping).await {
                Ok(_) => {}
                Err(Unprepared::Database(error)) => return Err(vec![chain(&error)]),
                Err(Unprepared::Exit(exit)) => return Err(problems(&exit)),
            }
            if self.board.lease() != Lease::Held {
                return Ok(());
            }
            match learn::ask(client, mapping).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(exit)) => Err(problems(&exit)),
                Err(failed) => Err(vec![chain(&failed)]),
            }
        };
        match tokio::time::timeout(FIT_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(vec![
                "the mapping has changed, and the database or HubSpot does not say whether it fits; try again".to_owned(),
            ]),
        }
    }
}

/// What an end of the daemon would have said.
fn problems(exit: &Exit) -> Vec<String> {
    let mut problems: Vec<String> = exit.error.to_string().lines().map(str::to_owned).collect();
    problems.extend(exit.hint.iter().cloned());
    problems
}
