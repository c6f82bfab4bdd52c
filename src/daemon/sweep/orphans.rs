//! A sweep's last errand for an object: the HubSpot records of deleted rows that could not be archived so far.
//!
//! They have no row that a page could find, so their failures are walked. Those that the brake holds are left alone
//! unless whoever asked for the sweep said that they may go.

use super::object::Pass;
use crate::postgres::ErrorKind;
use crate::retry::Schedule;
use crate::sync::deletion::Orphan;
use crate::sync::report::chain;
use std::sync::Arc;
use std::time::Duration;

impl Pass<'_> {
    /// Tries to archive what is listed; what HubSpot does not answer is asked for again, until the pass gives up.
    pub(super) async fn orphans(&mut self) -> Result<(), String> {
        let door = Arc::clone(self.door);
        let mut after: Option<Orphan> = None;
        let mut pauses = Schedule::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            self.check()?;
            let listed =
                door.store
                    .listed_orphans(self.object, after.as_ref(), self.released, door.max_records);
            let orphans = match listed.await {
                Ok(orphans) => orphans,
                Err(error) if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Busy) => {
                    self.reason = Some(chain(&error));
                    self.wait(&mut pauses).await?;
                    continue;
                }
                Err(error) => return Err(chain(&error)),
            };
            let Some(last) = orphans.last().cloned() else {
                return Ok(());
            };
            let stop = self.patience.stop.clone();
            let tried = door.archive(self.object, &orphans, stop);
            let tally = self.patience.over(tried).await;
            if !self.take_in(tally).is_empty() {
                // What was archived is not listed any more.
                self.wait(&mut pauses).await?;
            } else {
                after = Some(last);
                pauses.reset();
            }
        }
    }
}
