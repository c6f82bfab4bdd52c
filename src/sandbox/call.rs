//! From a route to the call: the world is locked, the call carried out, and the log told what it wrote.

use super::Shared;
use super::clock::instant_text;
use super::http::{Incoming, Query};
use super::reply::{Reply, parse_exactly};
use super::route::{Call, Route};
use super::write::Asked;
use serde::de::IgnoredAny;

impl Shared {
    /// Carries a call out on the world and notes in the log what it wrote.
    pub(super) fn call(&self, number: u64, route: &Route, request: &Incoming, omitted: usize) -> Reply {
        let now_ms = self.clock.now_ms();
        // Never both locks at once: a test may hold the world while it changes the limits.
        let account = match route.call {
            Call::Details => Some(self.limits().account(now_ms)),
            Call::Usage => Some(self.limits().usage(now_ms)),
            _ => None,
        };
        let mut world = self.world();
        let started = instant_text(now_ms);
        let mut asked = Asked {
            world: &mut world,
            version: route.version,
            inputs: 0,
            writes: Vec::new(),
            omitted,
            started,
        };
        let query = Query::of(&request.uri);
        let body = &request.body;
        let reply = match route.call {
            Call::Details => asked.details(account.unwrap_or_default()),
            Call::Usage => Ok(Reply::new(200, account.unwrap_or_default())),
            Call::TokenInfo => asked.token_info(body),
            Call::Schemas => asked.schemas(),
            _ => asked.on_type(route, &query, body),
        };
        let (inputs, writes) = (asked.inputs, asked.writes);
        world.log.wrote(number, inputs, writes);
        drop(world);
        self.changed();
        reply.unwrap_or_else(|refused| refused)
    }
}

impl Asked<'_> {
    /// A call on an object type, or on a pair of them.
    fn on_type(&mut self, route: &Route, query: &Query, body: &[u8]) -> Result<Reply, Reply> {
        if !body.is_empty() {
            parse_exactly::<IgnoredAny>(body)?;
        }
        let position = |named: &str| {
            self.world
                .type_position(named)
                .ok_or_else(|| Reply::no_type(named))
        };
        let kind = position(&route.object)?;
        let to = if route.to.is_empty() {
            kind
        } else {
            position(&route.to)?
        };
        match route.call {
            Call::Create => self.create(kind, body),
            Call::Get => self.get(kind, route, query),
            Call::Update => self.update(kind, route, query, body),
            Call::Archive => self.archive(kind, &route.id),
            Call::List => self.list(kind, route, query),
            Call::BatchCreate => self.batch_create(kind, body),
            Call::BatchUpdate => self.batch_update(kind, body),
            Call::BatchUpsert => self.batch_upsert(kind, body),
            Call::BatchRead => self.batch_read(kind, body, query),
            Call::BatchArchive => self.batch_archive(kind, body),
            Call::Merge => self.merge(kind, body),
            Call::Search => self.search(kind, body),
            Call::ListLinks => self.list_links(kind, to, route, query),
            Call::PutDefaultLink => self.put_default_link(kind, to, route),
            Call::PutLink => self.put_link(kind, to, route, body),
            Call::DeleteLink => self.delete_link(kind, to, route),
            Call::BatchLinkDefault => self.batch_link_default(kind, to, body),
            Call::BatchLink => self.batch_link(kind, to, body),
            Call::BatchReadLinks => self.batch_read_links(kind, to, body),
            Call::BatchArchiveLinks => self.batch_archive_links(kind, to, body),
            Call::BatchArchiveLabels => self.batch_archive_labels(kind, to, body),
            Call::Labels => self.labels(kind, to),
            Call::CreateLabel => self.create_label(kind, to, body),
            Call::Properties => self.properties(kind, query),
            Call::Property => self.property(kind, &route.id),
            Call::CreateProperty => self.create_property(kind, body),
            Call::UpdateProperty => self.update_property(kind, &route.id, body),
            Call::ArchiveProperty => self.archive_property(kind, &route.id),
            Call::BatchReadProperties => self.batch_read_properties(kind, body),
            Call::BatchCreateProperties => self.batch_create_properties(kind, body),
            Call::Schema => self.schema(kind),
            Call::CreateSchemaLink => self.create_schema_link(kind, body),
            Call::Schemas | Call::Details | Call::Usage | Call::TokenInfo => Err(Reply::not_found()),
        }
    }
}
