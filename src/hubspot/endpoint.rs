//! The endpoints: their paths, names and calls.
//!
//! Paths are those of the date-based versions (`2026-03`, `2026-09`), which differ in the date alone.

use reqwest::Url;

use super::client::{Answer, Client};
use super::error::{Disposition, Failed};
use super::pace::Slot;
use super::reply::{self, Unreadable};
use super::wire::{
    self, Account, Associated, AssociationKind, AssociationPage, AssociationType, BatchReply, CreateInput,
    Dissociated, Done, Found, PropertyInfo, ReadLinks, ReadReply, UpdateInput, UpsertInput,
};

/// What is asked of HubSpot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Create,
    List,
    Search,
    Upsert,
    Update,
    Read,
    Archive,
    Get,
    AssociateDefault,
    AssociateLabelled,
    Dissociate,
    Unlabel,
    ReadAssociations,
    Labels,
    Properties,
    Account,
    Token,
}

impl Endpoint {
    /// The name in metrics and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Endpoint::Create => "objects/batch/create",
            Endpoint::List => "objects/list",
            Endpoint::Search => "objects/search",
            Endpoint::Upsert => "objects/batch/upsert",
            Endpoint::Update => "objects/batch/update",
            Endpoint::Read => "objects/batch/read",
            Endpoint::Archive => "objects/batch/archive",
            Endpoint::Get => "objects/get",
            Endpoint::AssociateDefault => "associations/batch/associate/default",
            Endpoint::AssociateLabelled => "associations/batch/create",
            Endpoint::Dissociate => "associations/batch/archive",
            Endpoint::Unlabel => "associations/batch/labels/archive",
            Endpoint::ReadAssociations => "associations/batch/read",
            Endpoint::Labels => "associations/labels",
            Endpoint::Properties => "properties",
            Endpoint::Account => "account",
            Endpoint::Token => "token",
        }
    }

    /// Whether it changes anything in HubSpot.
    pub(super) fn writes(self) -> bool {
        matches!(
            self,
            Endpoint::Create
                | Endpoint::Upsert
                | Endpoint::Update
                | Endpoint::Archive
                | Endpoint::AssociateDefault
                | Endpoint::AssociateLabelled
                | Endpoint::Dissociate
                | Endpoint::Unlabel
        )
    }
}

/// One request, ready to be sent.
pub(super) struct Call<'a> {
    pub endpoint: Endpoint,
    /// The segments of its path.
    pub path: Vec<&'a str>,
    /// The parameters of its query.
    pub query: Vec<(&'a str, String)>,
    /// With a body it is a POST, else a GET.
    pub body: Option<Vec<u8>>,
    /// How many records it is about.
    pub records: usize,
    /// What they are records of.
    pub of: &'a str,
}

impl Call<'_> {
    /// What we are doing, for people.
    pub(super) fn doing(&self) -> String {
        let Call {
            endpoint,
            records,
            of,
            ..
        } = self;
        match (endpoint, records) {
            (Endpoint::Account, _) => "asking HubSpot for the portal".to_owned(),
            (Endpoint::Token, _) => "asking HubSpot for the token's scopes".to_owned(),
            (Endpoint::Labels, _) => format!("asking HubSpot for the association types of {of}"),
            (Endpoint::Properties, _) => format!("asking HubSpot for the properties of {of}"),
            (Endpoint::List, _) => format!("listing the records of {of} in HubSpot"),
            (_, 1) => format!("{} of 1 record of {of}", endpoint.name()),
            (_, many) => format!("{} of {many} records of {of}", endpoint.name()),
        }
    }

    /// The address; segments are encoded, so that none can add another.
    pub(super) fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&self.path);
        }
        for (name, value) in &self.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        // A list of names is longer than a URL may be soon enough; a comma in a query needs no escape.
        if let Some(query) = url.query().filter(|query| query.contains("%2C")) {
            let query = query.replace("%2C", ",");
            url.set_query(Some(&query));
        }
        url
    }
}

impl Client {
    /// Creates or updates up to 100 records by the unique property `match_on`. Idempotent.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed as a whole; records refused alone are in the reply.
    pub async fn upsert(
        &self,
        slot: Slot,
        object_type: &str,
        match_on: &str,
        inputs: &[UpsertInput<'_>],
    ) -> Result<BatchReply, Failed> {
        let body = wire::upsert_body(match_on, inputs);
        let call = self.batch_call(Endpoint::Upsert, "upsert", object_type, body, inputs.len());
        self.batch(slot, call, &[match_on]).await
    }

    /// Creates up to 100 records. Not idempotent: sent twice, it makes every record twice. Of what HubSpot returns,
    /// the property `keep` is kept.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed as a whole; records refused alone are in the reply.
    pub async fn create(
        &self,
        slot: Slot,
        object_type: &str,
        keep: &str,
        inputs: &[CreateInput<'_>],
    ) -> Result<BatchReply, Failed> {
        let body = wire::create_body(inputs);
        let call = self.batch_call(Endpoint::Create, "create", object_type, body, inputs.len());
        self.batch(slot, call, &[keep]).await
    }

    /// Searches for the records whose `property` is one of `values`, without regard to case: as many values as
    /// [`wire::searchable`] allows. The index lags behind the records by seconds, and knows no archived ones.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed.
    pub async fn search(
        &self,
        slot: Slot,
        object_type: &str,
        property: &str,
        values: &[&str],
    ) -> Result<Found, Failed> {
        let call = Call {
            endpoint: Endpoint::Search,
            path: vec!["crm", "objects", &self.api_version, object_type, "search"],
            query: Vec::new(),
            body: Some(wire::search_body(property, values)),
            records: values.len(),
            of: object_type,
        };
        let found = self
            .ask(slot, call, |body| reply::found(body, &[property]))
            .await?;
        Ok(found.0)
    }

    /// Updates up to 100 records by HubSpot id. Idempotent.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed as a whole; records refused alone are in the reply.
    pub async fn update(
        &self,
        slot: Slot,
        object_type: &str,
        inputs: &[UpdateInput<'_>],
    ) -> Result<BatchReply, Failed> {
        let body = wire::update_body(inputs);
        let call = self.batch_call(Endpoint::Update, "update", object_type, body, inputs.len());
        self.batch(slot, call, &[]).await
    }

    /// Reads up to 100 records by HubSpot id or by a unique property. Reads what was just written. What is in the reply
    /// exists; what is not, does not (or was merged into another record), if the reply is whole.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed as a whole, or if records are missing from the answer for
    /// another reason than that they do not exist.
    pub async fn read_by(
        &self,
        slot: Slot,
        object_type: &str,
        id_property: Option<&str>,
        ids: &[&str],
        properties: &[&str],
    ) -> Result<ReadReply, Failed> {
        let body = wire::read_body(id_property, ids, properties);
        let call = self.batch_call(Endpoint::Read, "read", object_type, body, ids.len());
        let reply = match self.batch(slot, call, properties).await {
            // All keys missing is told as 207 without results, or as 404.
            Err(failed) if failed.is_not_found() => {
                return Ok(ReadReply {
                    whole: true,
                    ..ReadReply::default()
                });
            }
            reply => reply?,
        };
        match reply.errors.iter().find(|error| !error.is_not_found()) {
            None => Ok(ReadReply::of(reply, ids)),
            Some(error) => Err(Failed::refused_read(
                object_type,
                ids.len(),
                error.clone(),
                reply.correlation_id,
            )),
        }
    }

    /// Archives up to 100 records by HubSpot id; what is archived already, or never was, counts as done. Idempotent. The
    /// reply names what was refused, if anything: HubSpot promises an empty one.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed as a whole.
    pub async fn archive(&self, slot: Slot, object_type: &str, ids: &[&str]) -> Result<BatchReply, Failed> {
        let body = wire::archive_body(ids);
        let call = self.batch_call(Endpoint::Archive, "archive", object_type, body, ids.len());
        let read = |body: &[u8]| {
            if body.trim_ascii().is_empty() {
                Ok(BatchReply::default())
            } else {
                reply::batch(body, &[])
            }
        };
        let (mut reply, id) = self.ask(slot, call, read).await?;
        reply.correlation_id = id;
        Ok(reply)
    }

    /// Reads one record by HubSpot id; after a merge, the surviving record under its own id. `None` if it
    /// does not exist.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed.
    pub async fn get(
        &self,
        slot: Slot,
        object_type: &str,
        id: &str,
        properties: &[&str],
    ) -> Result<Option<Done>, Failed> {
        let call = Call {
            endpoint: Endpoint::Get,
            path: vec!["crm", "objects", &self.api_version, object_type, id],
            query: Vec::from_iter((!properties.is_empty()).then(|| ("properties", properties.join(",")))),
            body: None,
            records: 1,
            of: object_type,
        };
        match self.ask(slot, call, |body| reply::one(body, properties)).await {
            Ok((done, _)) => Ok(Some(done)),
            Err(failed) if failed.status == Some(404) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Associates up to 100 pairs, given as (from, to). Idempotent.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed as a whole; refused pairs are in the reply.
    pub async fn associate(
        &self,
        slot: Slot,
        from_type: &str,
        to_type: &str,
        kind: AssociationKind<'_>,
        pairs: &[(&str, &str)],
    ) -> Result<Associated, Failed> {
        let mut path = vec![
            "crm",
            "associations",
            &self.api_version,
            from_type,
            to_type,
            "batch",
        ];
        let endpoint = match kind {
            AssociationKind::Default => {
                path.extend(["associate", "default"]);
                Endpoint::AssociateDefault
            }
            AssociationKind::Labelled(_) => {
                path.push("create");
                Endpoint::AssociateLabelled
            }
        };
        let call = Call {
            endpoint,
            path,
            query: Vec::new(),
            body: Some(wire::associate_body(kind, pairs)),
            records: pairs.len(),
            of: from_type,
        };
        let (mut reply, id) = self
            .ask(slot, call, |body| reply::associated(body, pairs))
            .await?;
        reply.correlation_id = id;
        Ok(reply)
    }

    /// Removes the associations of up to 100 pairs, given as (from, to), with all their labels; or, given a label, that
    /// label alone. Idempotent. HubSpot confirms no pair: ask with [`Client::read_associations`]. Answers what it refused.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed as a whole.
    pub async fn dissociate(
        &self,
        slot: Slot,
        from_type: &str,
        to_type: &str,
        label: Option<&AssociationType>,
        pairs: &[(&str, &str)],
    ) -> Result<Dissociated, Failed> {
        let (endpoint, verb): (Endpoint, &[&str]) = match label {
            None => (Endpoint::Dissociate, &["archive"]),
            Some(_) => (Endpoint::Unlabel, &["labels", "archive"]),
        };
        let mut path = vec![
            "crm",
            "associations",
            &self.api_version,
            from_type,
            to_type,
            "batch",
        ];
        path.extend(verb);
        let call = Call {
            endpoint,
            path,
            query: Vec::new(),
            body: Some(wire::dissociate_body(label, pairs)),
            records: pairs.len(),
            of: from_type,
        };
        let (errors, correlation_id) = self.ask(slot, call, |body| Ok(reply::dissociated(body))).await?;
        Ok(Dissociated {
            errors,
            correlation_id,
        })
    }

    /// Reads the associations of up to 1,000 records.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed as a whole.
    pub async fn read_associations(
        &self,
        slot: Slot,
        from_type: &str,
        to_type: &str,
        inputs: &[ReadLinks<'_>],
    ) -> Result<AssociationPage, Failed> {
        let call = Call {
            endpoint: Endpoint::ReadAssociations,
            path: vec![
                "crm",
                "associations",
                &self.api_version,
                from_type,
                to_type,
                "batch",
                "read",
            ],
            query: Vec::new(),
            body: Some(wire::read_links_body(inputs)),
            records: inputs.len(),
            of: from_type,
        };
        let (mut page, id) = match self.ask(slot, call, reply::association_page).await {
            Err(failed) if failed.is_not_found() => return Ok(AssociationPage::default()),
            answer => answer?,
        };
        page.correlation_id = id;
        Ok(page)
    }

    /// The association types from one object type to another; the unlabelled one has no label.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed.
    pub async fn labels(
        &self,
        slot: Slot,
        from_type: &str,
        to_type: &str,
    ) -> Result<Vec<AssociationType>, Failed> {
        let call = Call {
            endpoint: Endpoint::Labels,
            path: vec![
                "crm",
                "associations",
                &self.api_version,
                from_type,
                to_type,
                "labels",
            ],
            query: Vec::new(),
            body: None,
            records: 1,
            of: from_type,
        };
        Ok(self.ask(slot, call, reply::labels).await?.0)
    }

    /// The properties of an object type, without those of sensitive data.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed.
    pub async fn properties(&self, slot: Slot, object_type: &str) -> Result<Vec<PropertyInfo>, Failed> {
        let call = Call {
            endpoint: Endpoint::Properties,
            path: vec!["crm", "properties", &self.api_version, object_type],
            query: Vec::new(),
            body: None,
            records: 1,
            of: object_type,
        };
        Ok(self.ask(slot, call, reply::properties).await?.0)
    }

    /// The portal that the token belongs to. The pace learns from it when the portal's day ends.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed.
    pub async fn account(&self, slot: Slot) -> Result<Account, Failed> {
        let call = Call {
            endpoint: Endpoint::Account,
            path: vec!["account-info", &self.api_version, "details"],
            query: Vec::new(),
            body: None,
            records: 1,
            of: "",
        };
        let (account, _) = self.ask(slot, call, reply::account).await?;
        self.pace()
            .set_day(account.time_zone.as_deref(), account.utc_offset_seconds);
        Ok(account)
    }

    /// The scopes of the token. Not every place that stands in for HubSpot can be asked.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed.
    pub async fn scopes(&self, slot: Slot) -> Result<Vec<String>, Failed> {
        let call = Call {
            endpoint: Endpoint::Token,
            path: vec!["oauth", "v2", "private-apps", "get", "access-token-info"],
            query: Vec::new(),
            body: Some(self.token_body()),
            records: 1,
            of: "",
        };
        Ok(self.ask(slot, call, reply::scopes).await?.0)
    }

    /// A request about many records of a type.
    pub(super) fn batch_call<'a>(
        &'a self,
        endpoint: Endpoint,
        verb: &'static str,
        object_type: &'a str,
        body: Vec<u8>,
        records: usize,
    ) -> Call<'a> {
        Call {
            endpoint,
            path: vec!["crm", "objects", &self.api_version, object_type, "batch", verb],
            query: Vec::new(),
            body: Some(body),
            records,
            of: object_type,
        }
    }

    async fn batch(&self, slot: Slot, call: Call<'_>, keep: &[&str]) -> Result<BatchReply, Failed> {
        let (mut reply, id) = self.ask(slot, call, |body| reply::batch(body, keep)).await?;
        reply.correlation_id = id;
        Ok(reply)
    }

    /// Sends a call and reads its success.
    pub(super) async fn ask<T>(
        &self,
        slot: Slot,
        mut call: Call<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, Unreadable>,
    ) -> Result<(T, Option<String>), Failed> {
        let sent = call.body.take();
        let Answer { body, correlation_id } = self.send(slot, &call, sent).await?;
        match read(&body) {
            Ok(value) => Ok((value, correlation_id)),
            Err(unreadable) => Err(self.unreadable(&call, unreadable)),
        }
    }
}

impl Failed {
    /// A read that succeeded as a request and failed for some of its records.
    fn refused_read(
        object_type: &str,
        records: usize,
        error: wire::RecordError,
        correlation_id: Option<String>,
    ) -> Failed {
        let disposition = if records > 1 {
            Disposition::Split
        } else {
            Disposition::Reject
        };
        let doing = format!("{} of {records} records of {object_type}", Endpoint::Read.name());
        Failed::told(disposition, doing, error, correlation_id)
    }
}
