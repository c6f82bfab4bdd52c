//! A glance at HubSpot's own records, for who does not want those of the mirror or cannot have them.
//!
//! It reads and writes nothing, so it needs no lease: where the database is away, this is what is left to answer with.

use super::operations::{MirrorPage, Refused};
use crate::hubspot::{Client, Disposition, Failed, Lane, Listing, Slot};
use crate::mapping::Mirrored;
use crate::retry::Schedule;
use crate::sync::report::chain;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};

/// How long somebody waits for a page: changes and sweeps come first, and HubSpot may be away.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a page is asked for in vain.
const ATTEMPTS: u32 = 3;
/// The most records of a listed page (HubSpot's OpenAPI files).
const LISTED_MAX: usize = 100;
/// How long the names of the properties are believed.
const NAMES_LAST: Duration = Duration::from_secs(600);

/// Who glances.
pub(super) struct Glance {
    /// Who speaks to HubSpot in the present term.
    pub(super) speaker: watch::Receiver<Option<Client>>,
    pub(super) names: Mutex<HashMap<Mirrored, (Instant, Vec<String>)>>,
}

/// A record as HubSpot tells it, of which nothing but the fields of an answer is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    updated_at: Option<&'a RawValue>,
    #[serde(borrow)]
    archived: Option<&'a RawValue>,
}

impl Told<'_> {
    fn id(&self) -> Option<String> {
        serde_json::from_str(self.id?.get()).ok()
    }

    /// The record as the API answers it.
    fn answer(&self) -> String {
        let text = |raw: Option<&RawValue>| raw.map_or("null", RawValue::get).to_owned();
        format!(
            "{{\"id\":{},\"properties\":{},\"createdAt\":{},\"updatedAt\":{},\"archived\":{},\
             \"lastSyncedAt\":null,\"syncStatus\":null,\"syncError\":null}}",
            text(self.id),
            text(self.properties),
            text(self.created_at),
            text(self.updated_at),
            text(self.archived)
        )
    }
}

impl Glance {
    /// At most `limit` records from the id `from` on.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] if HubSpot does not answer, with its reason; [`Refused::Unknown`] if it does not know
    /// `from`.
    pub(super) async fn page(
        &self,
        kind: Mirrored,
        from: Option<&str>,
        limit: usize,
    ) -> Result<MirrorPage, Refused> {
        let client = self.speaker.borrow().clone();
        let client = client.ok_or_else(|| Refused::Unavailable("the daemon starts".to_owned()))?;
        // Nobody has to wait for what will not come.
        let halted = || {
            client
                .pace()
                .halted()
                .map(|halt| Refused::Unavailable(halt.reason))
        };
        let withheld = || {
            client
                .pace()
                .withheld()
                .map(|withheld| Refused::Unavailable(withheld.to_string()))
        };
        if let Some(refused) = halted().or_else(withheld) {
            return Err(refused);
        }
        match timeout(PATIENCE, self.persistently(&client, kind, from, limit)).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(failed)) if from.is_some() && failed.status == Some(400) => Err(Refused::Unknown(
                "page in HubSpot's list that begins there".to_owned(),
            )),
            Ok(Err(failed)) => Err(Refused::Unavailable(chain(&failed))),
            Err(_) => {
                let words = format!("HubSpot has not answered within {} s", PATIENCE.as_secs());
                Err(halted().unwrap_or(Refused::Unavailable(words)))
            }
        }
    }

    /// Asks, and a little later again where that may help: somebody waits for the answer.
    async fn persistently(
        &self,
        client: &Client,
        kind: Mirrored,
        from: Option<&str>,
        mut limit: usize,
    ) -> Result<MirrorPage, Failed> {
        let mut pauses = Schedule::new(Duration::from_millis(200), Duration::from_secs(2));
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match self.asked(client, kind, from, limit).await {
                // A page of fewer records may be small enough, and costs no attempt.
                Err(failed) if failed.is_too_large() && limit > 1 => {
                    (limit, left) = (limit / 2, left + 1);
                }
                Err(failed) if left > 0 && matches!(failed.disposition, Disposition::Retry { .. }) => {
                    sleep(pauses.next()).await;
                }
                answered => return answered,
            }
        }
    }

    async fn asked(
        &self,
        client: &Client,
        kind: Mirrored,
        from: Option<&str>,
        limit: usize,
    ) -> Result<MirrorPage, Failed> {
        let of = kind.object_type();
        let names = self.names(client, kind).await?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut wanted = Listing {
            properties: &names,
            associations: &[],
            after: from,
            limit: limit.min(LISTED_MAX),
        };
        let mut whole = wanted.fits();
        let listed = loop {
            if !whole {
                wanted.properties = &[];
            }
            match client.list(turn(client).await, of, wanted).await {
                // Somebody between here and HubSpot takes shorter URLs only.
                Err(failed) if whole && failed.status == Some(414) => whole = false,
                listed => break listed?,
            }
        };
        let mut records = told(&listed.records.json);
        if !whole && !records.is_empty() {
            let ids: Vec<&str> = records.iter().map(|(id, _)| id.as_str()).collect();
            let read = client
                .records(turn(client).await, of, &ids, &names, false)
                .await?;
            let mut read: HashMap<String, String> = told(&read.records.json).into_iter().collect();
            // In the list's order; what is gone since the list was read is gone.
            let whole = records.into_iter().filter_map(|(id, _)| read.remove_entry(&id));
            records = whole.collect();
        }
        Ok(MirrorPage {
            records: records.into_iter().map(|(_, answer)| answer).collect(),
            next: listed.next,
            stale: false,
        })
    }

    /// The names of a kind's properties.
    async fn names(&self, client: &Client, kind: Mirrored) -> Result<Vec<String>, Failed> {
        let mut known = self.names.lock().await;
        let young = |at: &Instant| at.elapsed() < NAMES_LAST;
        if let Some((_, names)) = known.get(&kind).filter(|(at, _)| young(at)) {
            return Ok(names.clone());
        }
        let asked = client.properties(turn(client).await, kind.object_type()).await?;
        let names: Vec<String> = asked.into_iter().map(|property| property.name).collect();
        known.insert(kind, (Instant::now(), names.clone()));
        Ok(names)
    }
}

/// The next slot of the lowest lane.
async fn turn(client: &Client) -> Slot {
    client.pace().slot(Lane::Mirror).await
}

/// The records of an array that have an id, with their answers.
fn told(array: &str) -> Vec<(String, String)> {
    let records: Vec<&RawValue> = serde_json::from_str(array).unwrap_or_default();
    let told = records
        .into_iter()
        .filter_map(|record| serde_json::from_str::<Told<'_>>(record.get()).ok());
    told.filter_map(|told| Some((told.id()?, told.answer())))
        .collect()
}
