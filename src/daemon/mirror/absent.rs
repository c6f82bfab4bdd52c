//! Records that a full pass did not see: asked for by id before anything is believed of them.

use super::ask::{Cut, Limit, Pass};
use super::fetch::{Names, PAGE};
use crate::hubspot::ReadRecords;
use crate::postgres::mirror;
use crate::sync::mirror::{Fate, Tally, fates};
use futures::FutureExt;
use std::collections::HashSet;
use tracing::warn;

impl Pass<'_> {
    /// Finds out what became of the records that the list did not show. Answers how many of them HubSpot has all the
    /// same.
    pub(super) async fn absent(&self, names: &Names, tally: &mut Tally) -> Result<u64, Cut> {
        let (mut left_out, mut unknown) = (0, 0u64);
        let mut after = String::new();
        let mut merged: Option<HashSet<String>> = None;
        let kind = self.kind;
        loop {
            let from = after.as_str();
            let ids = self
                .write(move |session| async move { mirror::unseen(&session, kind, from, PAGE).await }.boxed())
                .await?;
            let Some(last) = ids.last() else { break };
            after.clone_from(last);
            let merged = match &mut merged {
                Some(merged) => merged,
                None => merged.insert(self.merged().await?),
            };
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let (alive, silent) = self.look_up(names, &ids, merged, tally).await?;
            left_out += alive;
            unknown += silent;
        }
        if unknown > 0 {
            warn!(
                kind = kind.name(),
                unknown, "HubSpot says nothing of records that its list does not show; they stay as they are"
            );
        }
        Ok(left_out)
    }

    /// Asks for some records by id. Answers how many are there, and of how many nothing is said.
    async fn look_up(
        &self,
        names: &Names,
        ids: &[&str],
        named: &HashSet<String>,
        tally: &mut Tally,
    ) -> Result<(u64, u64), Cut> {
        let live = self.found(names, ids, false).await?;
        // The list left those out: a pass that goes on after a cut lists all of it again.
        let alive = self.put_found(names, &live, ids, Some(None), tally).await?;
        let rest: Vec<&str> = ids.iter().copied().filter(|id| !alive.contains(id)).collect();
        if rest.is_empty() {
            return Ok((alive.len() as u64, 0));
        }
        let binned = self.found(names, &rest, true).await?;
        let archived = self
            .put_found(names, &binned, &rest, None, &mut Tally::default())
            .await?;
        let denied_once = denied(&live, &rest);
        let mut denied: HashSet<&str> = denied_once
            .intersection(&denied(&binned, &rest))
            .copied()
            .collect();
        let mut merged: HashSet<&str> = rest.iter().copied().filter(|id| named.contains(*id)).collect();
        for id in &rest {
            if archived.contains(id) || denied.contains(id) || merged.contains(id) {
                continue;
            }
            match self.alone(id).await? {
                None => denied.insert(id),
                Some(found) if found != *id => merged.insert(id),
                Some(_) => false,
            };
        }
        let fates = fates(&rest, &alive, &archived, &denied, &merged);
        let of = |fate: Fate| -> Vec<&str> {
            let pairs = rest.iter().zip(&fates).filter(|(_, of)| **of == fate);
            pairs.map(|(id, _)| *id).collect()
        };
        let (gone, binned) = (of(Fate::Gone), of(Fate::Archived));
        let (taken, moved) = (gone.as_slice(), binned.as_slice());
        let (kind, generation) = (self.kind, self.generation);
        let (_, standing) = self
            .write(move |session| {
                async move { mirror::remove(&session, generation, kind, taken, moved).await }.boxed()
            })
            .await?;
        self.puller.show(standing);
        let removed = Tally {
            removed: (gone.len() + binned.len()) as u64,
            ..Tally::default()
        };
        self.puller.board.mirror_pulled(kind, &removed);
        tally.add(removed);
        Ok((alive.len() as u64, of(Fate::Unknown).len() as u64))
    }

    /// Stores what was found; answers which of `ids` that are.
    async fn put_found<'a>(
        &self,
        names: &Names,
        found: &[(ReadRecords, bool)],
        ids: &[&'a str],
        next: Option<Option<&str>>,
        tally: &mut Tally,
    ) -> Result<HashSet<&'a str>, Cut> {
        let mut there: HashSet<&str> = HashSet::new();
        for (ReadRecords { records, .. }, bare) in found {
            let before = there.len();
            there.extend(records.ids.iter().flatten().map(String::as_str));
            if there.len() > before {
                tally.add(self.put(names, records, *bare, None, &[], next).await?.tally);
            }
        }
        Ok(ids.iter().copied().filter(|id| there.contains(id)).collect())
    }

    /// Of the records that the pass has not seen, those that others name as merged into them.
    async fn merged(&self) -> Result<HashSet<String>, Cut> {
        let kind = self.kind;
        let named = self.write(move |session| async move { mirror::merged(&session, kind).await }.boxed());
        Ok(named.await?.into_iter().collect())
    }

    /// The id of the record that one is a part of now, after a merge, or its own; `None` if HubSpot says that there is
    /// none.
    async fn alone(&self, id: &str) -> Result<Option<String>, Cut> {
        let (client, of) = (&self.puller.client, self.kind.object_type());
        let found = self.ask(Limit::Window, move |slot| {
            async move { client.get(slot, of, id, &[]).await }.boxed()
        });
        Ok(found.await?.map(|found| found.id))
    }
}

/// The records that HubSpot said it has not.
fn denied<'a>(said: &[(ReadRecords, bool)], of: &[&'a str]) -> HashSet<&'a str> {
    let missing = said.iter().flat_map(|(read, _)| &read.missing);
    let missing: HashSet<&str> = missing.map(String::as_str).collect();
    of.iter().copied().filter(|id| missing.contains(id)).collect()
}
