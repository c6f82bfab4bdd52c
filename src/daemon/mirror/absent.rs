//! Records that a full pass did not see: asked for by id before anything is believed of them.

use super::ask::{Cut, Limit, Pass};
use super::fetch::{Names, PAGE};
use crate::hubspot::Records;
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
        let kind = self.kind;
        loop {
            let from = after.as_str();
            let ids = self
                .write(move |session| async move { mirror::unseen(&session, kind, from, PAGE).await }.boxed())
                .await?;
            let Some(last) = ids.last() else { break };
            after.clone_from(last);
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let (alive, silent) = self.look_up(names, &ids, tally).await?;
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
    async fn look_up(&self, names: &Names, ids: &[&str], tally: &mut Tally) -> Result<(u64, u64), Cut> {
        let all = names.all();
        let live = self.by_id(&all, ids, false).await?;
        let alive = self.put_found(names, &live.records, ids, tally).await?;
        let rest: Vec<&str> = ids.iter().copied().filter(|id| !alive.contains(id)).collect();
        if rest.is_empty() {
            return Ok((alive.len() as u64, 0));
        }
        let binned = self.by_id(&all, &rest, true).await?;
        let archived = self
            .put_found(names, &binned.records, &rest, &mut Tally::default())
            .await?;
        let denied_twice: HashSet<&str> = set(&live.missing, &rest)
            .intersection(&set(&binned.missing, &rest))
            .copied()
            .collect();
        let mut denied = denied_twice;
        let (kind, asked) = (self.kind, rest.as_slice());
        let named = self
            .write(move |session| async move { mirror::merged(&session, kind, asked).await }.boxed())
            .await?;
        let mut merged = set(&named, &rest);
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
        let generation = self.generation;
        let (_, standing) = self
            .write(move |session| {
                async move { mirror::remove(&session, generation, kind, taken, moved).await }.boxed()
            })
            .await?;
        self.puller.show(standing);
        tally.removed += (gone.len() + binned.len()) as u64;
        Ok((alive.len() as u64, of(Fate::Unknown).len() as u64))
    }

    /// Stores what was found; answers which of `ids` that are.
    async fn put_found<'a>(
        &self,
        names: &Names,
        found: &Records,
        ids: &[&'a str],
        tally: &mut Tally,
    ) -> Result<HashSet<&'a str>, Cut> {
        let there: HashSet<&str> = found.ids.iter().flatten().map(String::as_str).collect();
        if !there.is_empty() {
            tally.add(self.put(names, found, false, None, &[], None).await?.tally);
        }
        Ok(ids.iter().copied().filter(|id| there.contains(id)).collect())
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

fn set<'a>(said: &[String], of: &[&'a str]) -> HashSet<&'a str> {
    let said: HashSet<&str> = said.iter().map(String::as_str).collect();
    of.iter().copied().filter(|id| said.contains(id)).collect()
}
