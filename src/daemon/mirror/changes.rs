//! Incremental passes: what was modified since, by HubSpot's search.

use super::ask::{Cut, Limit, Pass};
use super::fetch::{Names, PAGE};
use super::micros;
use crate::hubspot::{ModifiedPage, Question};
use crate::postgres::mirror;
use crate::sync::mirror::{Ask, Tally, Walk};
use futures::FutureExt;
use std::collections::{BTreeMap, HashSet};

/// Pages of a search that are stored together: as many records as one request reads the associations of.
const GROUP: usize = 5;
/// A modification that lies further ahead of HubSpot's clock than this is not believed, in milliseconds.
const AHEAD_MAX_MS: i64 = 3_600_000;

impl Pass<'_> {
    /// Follows what was modified since the last pass; answers by `tally` what was stored, also if it is cut.
    pub(super) async fn incremental(&self, tally: &mut Tally) -> Result<(), Cut> {
        let mut names = self.names().await?;
        let (kind, generation) = (self.kind, self.generation);
        let begun_at = self
            .write(move |session| async move { mirror::standings(&session).await }.boxed())
            .await?
            .1;
        let mut walk = Walk::new(self.standing().modified_from.unwrap_or_default());
        let (mut passed, mut first) = (None, true);
        while walk.ask().is_some() {
            let mut group = Vec::new();
            while let Some(ask) = walk.ask().cloned().filter(|_| group.len() < GROUP) {
                let page = match self.search(&names, &ask).await {
                    // Too much for one answer: only what was modified is searched for, and then read by id.
                    Err(Cut::Refused(failed)) if failed.is_too_large() && names.searched => {
                        names.searched = false;
                        self.search(&names, &ask).await?
                    }
                    page => page?,
                };
                let now = self.see(&page);
                if std::mem::take(&mut first) {
                    passed = self.puller.horizon(kind, |horizon, at| horizon.at(at));
                    // The `Date` of an answer has whole seconds.
                    walk.set_until(now + 1_000);
                }
                let number = |id: &Option<String>| id.as_deref().and_then(|id| id.parse().ok());
                let ids = page.records.ids.iter().map(number);
                let found: Vec<_> = ids.zip(page.modified.iter().copied()).collect();
                walk.heard(&found, page.more)?;
                group.push(page);
            }
            self.take(&names, group, tally).await?;
            let from = walk.next_from(passed);
            let ended = walk.ask().is_none().then_some(begun_at);
            let state = self.write(move |session| {
                async move { mirror::caught_up(&session, generation, kind, from, ended).await }.boxed()
            });
            self.puller.show(state.await?);
        }
        Ok(())
    }

    async fn search(&self, names: &Names, ask: &Ask) -> Result<ModifiedPage, Cut> {
        let (client, kind) = (&self.puller.client, self.kind);
        let above = match ask {
            Ask::Within(_, above) => above.map(|id| id.to_string()),
            _ => None,
        };
        let question = match ask {
            Ask::From(at) => Question::From(*at),
            Ask::After(at) => Question::After(*at),
            Ask::Within(at, _) => Question::Within(*at, above.as_deref()),
        };
        let properties = if names.searched {
            names.all()
        } else {
            vec![kind.modified()]
        };
        let properties = properties.as_slice();
        self.ask(Limit::Search, move |slot| {
            async move {
                client
                    .modified(slot, kind.object_type(), kind.modified(), question, properties)
                    .await
            }
            .boxed()
        })
        .await
    }

    /// Learns HubSpot's time from what was found; answers it by the clock of HubSpot's answers, milliseconds since the
    /// Unix epoch.
    fn see(&self, page: &ModifiedPage) -> i64 {
        let ahead = self.puller.client.pace().clock_ahead();
        let ahead = i64::try_from(ahead.as_millis()).unwrap_or_default();
        let now = (micros() / 1000).saturating_add(ahead);
        self.puller.horizon(self.kind, |horizon, at| {
            for modified in page.modified.iter().flatten() {
                horizon.see(*modified, at, now.saturating_add(AHEAD_MAX_MS));
            }
        });
        now
    }

    /// Stores what some pages found: the associations of what has changed first, so that nothing that is stored as it is
    /// lacks them.
    async fn take(&self, names: &Names, group: Vec<ModifiedPage>, tally: &mut Tally) -> Result<(), Cut> {
        let mut found: BTreeMap<&str, i64> = BTreeMap::new();
        for page in &group {
            for (id, at) in page.records.ids.iter().zip(&page.modified) {
                if let Some(id) = id {
                    let at = at.unwrap_or(i64::MIN / 1_000_000);
                    let newest = found.entry(id).or_insert(at);
                    *newest = at.max(*newest);
                }
            }
        }
        let (ids, modified): (Vec<&str>, Vec<i64>) = found.into_iter().unzip();
        let (kind, found, times) = (self.kind, ids.as_slice(), modified.as_slice());
        let changed = self
            .write(move |session| async move { mirror::changed(&session, kind, found, times).await }.boxed())
            .await?;
        let changed: Vec<&str> = changed.iter().map(String::as_str).collect();
        if !changed.is_empty() {
            for far in self.far() {
                self.link(far, &changed).await?;
            }
        }
        if names.searched {
            for page in &group {
                tally.add(
                    self.put(names, &page.records, false, None, &[], None)
                        .await?
                        .tally,
                );
            }
            return Ok(());
        }
        let changed: HashSet<&str> = changed.into_iter().collect();
        let changed: Vec<&str> = ids.iter().copied().filter(|id| changed.contains(id)).collect();
        for some in changed.chunks(PAGE) {
            for (records, bare) in self.read(names, some).await? {
                tally.add(self.put(names, &records, bare, None, &[], None).await?.tally);
            }
        }
        Ok(())
    }
}
