//! Reopening: objects of which the token may know nothing are asked for again.
//!
//! A closed object's rows wait unread, since what HubSpot must be told of them is not known. On the schedule of paused
//! objects, and at once when somebody asks for a trial, HubSpot is asked anew; as soon as it answers, the present term
//! ends and the next one begins with what it said. The task waits on its clock and the end of the term.

use super::door::Door;
use super::learn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How often it is looked whether an object is to be asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks again for what is closed.
pub(super) struct Reopener {
    pub(super) door: Arc<OnceLock<Arc<Door>>>,
    /// Told when a closed object is open.
    pub(super) reopened: Arc<Notify>,
    /// The end of the term.
    pub(super) stop: CancellationToken,
}

impl Reopener {
    /// Runs until the term ends.
    pub(super) async fn run(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.watch() => self.stop.cancelled().await,
        }
    }

    /// Waits until a closed object is open, or none is closed.
    async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(door) = self.door.get() else { continue };
            if door.objects.iter().all(|object| object.closed.is_none()) {
                return;
            }
            if ask(door).await {
                self.reopened.notify_one();
                return;
            }
        }
    }
}

/// Asks for every closed object whose turn it is; whether one is open.
async fn ask(door: &Door) -> bool {
    let mut opened = false;
    for object in 0..door.objects.len() {
        if !door.desk.backlog().is_asked_for(object, door.desk.now()) {
            continue;
        }
        match learn::is_open(&door.client, &door.mapping, object).await {
            Ok(()) => opened = true,
            Err(words) => {
                let name = &door.mapping.objects[object].name;
                debug!(object = %name, "what must be known of the object is still not to be had: {words}");
            }
        }
    }
    opened
}
