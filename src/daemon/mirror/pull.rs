//! One pull: its kinds one after the other, its run written down, and everybody who waits told.

use super::ask::{Cut, Pass};
use super::request::{Asked, Extent};
use super::state::Pulling;
use super::{AGAIN, Puller, micros};
use crate::mapping::Mirrored;
use crate::postgres::{self, runs};
use crate::sync::mirror::{Pulled, Tally};
use crate::sync::report::{Counts, LIMITED, Run, Summary, chain};
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// How long a pull waits for the token to be taken again before it is cut short.
const TOKEN_PATIENCE: Duration = Duration::from_secs(10);

impl Puller {
    /// Pulls what was asked for.
    pub(super) async fn pull(&self, asked: Asked) {
        let mut run = Run {
            id: asked.id.clone(),
            kind: "mirror".to_owned(),
            reason: asked.reason.word().to_owned(),
            started_at: asked.carried.started_at.unwrap_or_else(micros),
            finished_at: None,
            outcome: None,
            error: None,
            summary: Summary::default(),
        };
        self.keep(&run).await;
        self.wait_for_token().await;
        let mut done = asked.carried;
        done.started_at = Some(run.started_at);
        let mut left = asked.kinds.as_slice();
        let mut stopped = None;
        while let Some(((kind, extent), rest)) = left.split_first() {
            let mut tally = Tally::default();
            self.begins(&run, *kind, *extent);
            let ended = self.pass(*kind, *extent, &mut tally).await;
            let cut = matches!(ended, Err(Cut::Stopped));
            let why = ended.err().map(Cut::words);
            self.report(&run, *kind, *extent, &tally, why.as_deref());
            // What is begun from its beginning again is told of then.
            if !(cut && matches!(extent, Extent::First(_))) {
                done.add(*kind, tally);
            }
            if cut {
                stopped = why.map(|why| (*kind, why));
                break;
            }
            done.errors.extend(why.map(|why| (*kind, why)));
            left = rest;
        }
        let cut_off = stopped.is_some();
        if !cut_off {
            self.pulls.closing();
        }
        let mut errors = done.errors.clone();
        errors.extend(stopped);
        let again = || Instant::now() + AGAIN.min(self.config.every);
        self.pulls.rest_until((!errors.is_empty()).then(again));
        self.close(&mut run, &asked.kinds, &done.tallies, &errors).await;
        if cut_off && !self.end.is_cancelled() {
            // A reload: whoever waits, waits for the next term's.
            self.pulls.put_back(left, done);
            return;
        }
        self.pulls.ended(Pulled {
            id: asked.id,
            tallies: done.tallies,
            errors,
            started_at: run.started_at,
            finished_at: run.finished_at.unwrap_or(run.started_at),
        });
    }

    /// Ends a run: writes it down, and shows it as the last one.
    async fn close(
        &self,
        run: &mut Run,
        asked: &[(Mirrored, Extent)],
        tallies: &[(Mirrored, Tally)],
        errors: &[(Mirrored, String)],
    ) {
        run.finished_at = Some(micros());
        let limited = asked.iter().any(|(_, extent)| matches!(extent, Extent::First(_)));
        let outcome = match errors.is_empty() {
            true if limited => LIMITED,
            true => "complete",
            false => "incomplete",
        };
        run.outcome = Some(outcome.to_owned());
        let words: Vec<String> = errors
            .iter()
            .map(|(kind, why)| format!("{}: {why}", kind.name()))
            .collect();
        run.error = (!words.is_empty()).then(|| words.join("; "));
        run.summary = Summary(
            tallies
                .iter()
                .map(|(kind, tally)| (kind.name().to_owned(), counts(tally)))
                .collect(),
        );
        self.keep(run).await;
        self.board.with_mirror(|mirror| {
            mirror.running = None;
            mirror.last = Some(run.clone());
        });
    }

    /// Waits while HubSpot refuses the token, which it may take again in a moment; not for `give-up`, since whoever asked
    /// for the pull is to be told.
    async fn wait_for_token(&self) {
        let begun = Instant::now();
        while self.client.pace().halted().is_some() && begun.elapsed() < TOKEN_PATIENCE {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn pass(&self, kind: Mirrored, extent: Extent, tally: &mut Tally) -> Result<(), Cut> {
        if !self.config.objects.contains(&kind) {
            let words = "mirror.objects in the configuration leaves them out now";
            return Err(Cut::Because(words.to_owned()));
        }
        let generation = self.lease.pushing().ok_or_else(|| {
            Cut::Because("the lease is not confirmed; whoever holds it next pulls".to_owned())
        })?;
        if let Some(halt) = self.client.pace().halted() {
            return Err(Cut::Because(halt.reason));
        }
        let pass = Pass {
            puller: self,
            kind,
            generation,
        };
        match extent {
            Extent::Full => pass.full(tally).await,
            Extent::Incremental => pass.incremental(tally).await,
            Extent::First(count) => pass.first(count, tally).await,
        }
    }

    fn begins(&self, run: &Run, kind: Mirrored, extent: Extent) {
        info!(run = %run.id, reason = %run.reason, kind = kind.name(), pass = extent.word(), "the mirror pulls");
        self.board.with_mirror(|mirror| {
            mirror.running = Some(Pulling {
                id: run.id.clone(),
                reason: run.reason.clone(),
                started_at: run.started_at,
                kind,
                pass: extent.word(),
                records: 0,
            });
        });
    }

    fn report(&self, run: &Run, kind: Mirrored, extent: Extent, tally: &Tally, why: Option<&str>) {
        let trouble = &self.troubles[kind as usize];
        let (kind, pass) = (kind.name(), extent.word());
        let Tally {
            synced,
            updated,
            errors,
            removed,
            ..
        } = tally;
        let Some(why) = why else {
            if let Some(past) = trouble.succeeded() {
                info!(kind, "the mirror's passes are not cut any more, {past}");
            }
            info!(run = %run.id, kind, pass, "mirrored: {synced} new, {updated} known, {removed} gone, {errors} errors");
            return;
        };
        let words = format!(
            "the mirror's pass is cut, and goes on later: {synced} new, {updated} known, {errors} errors; {why}"
        );
        match trouble.failed() {
            Some(still) => warn!(run = %run.id, kind, pass, "{still}{words}"),
            None => debug!(run = %run.id, kind, pass, "{words}"),
        }
    }

    /// Writes the run down, if the database is there.
    async fn keep(&self, run: &Run) {
        let kept = async {
            let session = self.pool.get().await?;
            runs::keep(&session, run).await
        };
        let kept: Result<(), postgres::Error> = kept.await;
        if let Err(error) = kept {
            warn!(run = %run.id, "the run cannot be written to hubsyncd.run now: {}", chain(&error));
        }
    }
}

/// A tally as `hubsyncd.run` has it.
fn counts(tally: &Tally) -> Counts {
    Counts {
        created: tally.synced,
        updated: tally.updated,
        failed: tally.errors,
    }
}
