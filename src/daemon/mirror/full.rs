//! Full and limited passes: the list from its beginning, or from where it was cut, to its end.

use super::ask::{Cut, Limit, Pass};
use super::fetch::{Names, PAGE};
use super::micros;
use crate::hubspot::Question;
use crate::postgres::mirror;
use crate::sync::mirror::{LISTED, OVERLAP_MS, Standing, Tally, Trail};
use futures::FutureExt;
use tracing::{info, warn};

/// A list that was short, or does not go on, is listed once more before it is believed, or given up.
const ATTEMPTS: usize = 2;

impl Pass<'_> {
    /// Lists everything; answers by `tally` what was stored, also if it is cut.
    pub(super) async fn full(&self, tally: &mut Tally) -> Result<(), Cut> {
        let names = self.names().await?;
        let mut standing = self.standing();
        let mut total = None;
        if standing.modified_from.is_none() {
            total = self.find_begin().await?;
            standing = self.standing();
        }
        let mut resumed = standing.goes_on(micros(), self.puller.periods());
        for attempt in 1..=ATTEMPTS {
            let carried = tally.synced;
            *tally = Tally {
                synced: tally.synced,
                ..Tally::default()
            };
            if resumed {
                info!(
                    kind = self.kind.name(),
                    listed = standing.listed,
                    "the mirror's full pass goes on where it was cut"
                );
            } else {
                standing = self.begin().await?;
            }
            resumed = false;
            let listed = match self.listing(&names, &standing, tally).await {
                Ok(()) => {
                    // In this attempt known, and new to the pull all the same.
                    tally.updated = tally.updated.saturating_sub(carried);
                    self.absent(&names, tally).await
                }
                Err(cut) => Err(cut),
            };
            match listed {
                Ok(left_out) => {
                    let listed = self.standing().listed.unsigned_abs();
                    let unlisted = total
                        .filter(|total| listed < total / 2)
                        .map(|total| total - listed);
                    // Those that stood in the list without their ids were not left out.
                    let nameless = tally.complaints.iter().filter(|complaint| complaint.id.is_none());
                    let left_out = left_out.saturating_sub(nameless.count() as u64);
                    let left_out = left_out.max(unlisted.unwrap_or_default());
                    if left_out == 0 || attempt == ATTEMPTS {
                        return self.complete().await;
                    }
                    warn!(
                        kind = self.kind.name(),
                        left_out,
                        "HubSpot's list leaves out records that it has; it is listed once more before that is believed"
                    );
                }
                Err(Cut::Anew(why)) if attempt < ATTEMPTS => {
                    warn!(kind = self.kind.name(), "the list begins anew: {why}");
                }
                Err(Cut::Anew(why)) => {
                    let (kind, generation) = (self.kind, self.generation);
                    let state = self.write(move |session| {
                        async move { mirror::give_up(&session, generation, kind).await }.boxed()
                    });
                    self.puller.show(state.await?);
                    return Err(Cut::Because(why));
                }
                Err(cut) => return Err(cut),
            }
        }
        Ok(())
    }

    /// Lists the first so many.
    pub(super) async fn first(&self, count: u64, tally: &mut Tally) -> Result<(), Cut> {
        let names = self.names().await?;
        match self.list_first(&names, count, tally).await {
            Err(Cut::Anew(why)) => {
                warn!(kind = self.kind.name(), "the list begins anew: {why}");
                let carried = tally.synced;
                *tally = Tally {
                    synced: carried,
                    ..Tally::default()
                };
                let listed = self.list_first(&names, count, tally).await;
                tally.updated = tally.updated.saturating_sub(carried);
                listed
            }
            listed => listed,
        }
    }

    async fn list_first(&self, names: &Names, count: u64, tally: &mut Tally) -> Result<(), Cut> {
        let mut trail = Trail::default();
        let mut after: Option<String> = None;
        let mut left = count;
        while left > 0 {
            let limit = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
            let page = self.page(names, after.as_deref(), limit).await?;
            trail.follow(
                after.as_deref(),
                page.ids.iter().flatten().map(String::as_str),
                page.next.as_deref(),
            )?;
            tally.add(self.store(names, &page, None).await?);
            left = left.saturating_sub(page.ids.len() as u64);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(())
    }

    /// Where the kind stands.
    pub(super) fn standing(&self) -> Standing {
        let standings = self.puller.standings().into_iter();
        let mut of_kind = standings.filter(|standing| standing.kind == self.kind);
        of_kind.next().unwrap_or_else(|| Standing::empty(self.kind))
    }

    /// Before the first pass: from when on changes are to be followed once it has ended. Answers how many records HubSpot
    /// has, where it says so.
    async fn find_begin(&self) -> Result<Option<u64>, Cut> {
        let (client, kind, generation) = (&self.puller.client, self.kind, self.generation);
        let newest = self
            .ask(Limit::Search, move |slot| {
                async move {
                    let modified = kind.modified();
                    client
                        .modified(slot, kind.object_type(), modified, Question::Newest, &[modified])
                        .await
                }
                .boxed()
            })
            .await?;
        if let Some(at) = newest.modified.iter().flatten().max() {
            let from = at.saturating_sub(OVERLAP_MS);
            let state = self.write(move |session| {
                async move { mirror::caught_up(&session, generation, kind, from, None).await }.boxed()
            });
            self.puller.show(state.await?);
        }
        Ok(newest.total)
    }

    async fn begin(&self) -> Result<Standing, Cut> {
        let (kind, generation) = (self.kind, self.generation);
        let state =
            self.write(move |session| async move { mirror::begin(&session, generation, kind).await }.boxed());
        let standing = state.await?;
        self.puller.show(standing.clone());
        Ok(standing)
    }

    async fn complete(&self) -> Result<(), Cut> {
        let (kind, generation) = (self.kind, self.generation);
        let state = self
            .write(move |session| async move { mirror::complete(&session, generation, kind).await }.boxed());
        self.puller.show(state.await?);
        Ok(())
    }

    /// Follows the list to its end, unless it was read to its end before; the next page is asked for while the one before
    /// is stored.
    async fn listing(&self, names: &Names, standing: &Standing, tally: &mut Tally) -> Result<(), Cut> {
        if standing.is_listed() {
            return Ok(());
        }
        let mut trail = Trail::default();
        let mut after = standing.cursor.clone();
        let mut page = self.page(names, after.as_deref(), PAGE).await?;
        loop {
            trail.follow(
                after.as_deref(),
                page.ids.iter().flatten().map(String::as_str),
                page.next.as_deref(),
            )?;
            let next = page.next.clone();
            let following = async {
                match &next {
                    Some(next) => self.page(names, Some(next), PAGE).await.map(Some),
                    None => Ok(None),
                }
            };
            let place = Some(next.as_deref().unwrap_or(LISTED));
            let (stored, following) = futures::join!(self.store(names, &page, Some(place)), following);
            tally.add(stored?);
            match following? {
                None => return Ok(()),
                Some(following) => (page, after) = (following, next),
            }
        }
    }
}
