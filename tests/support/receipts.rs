//! A database with contacts and the writers of receipts, for the tests of receipts.

use super::postgres::{Database, Server};
use super::tables;
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::catalog::inspect;
use hubsyncd::postgres::receipt::{Entry, Receipt, Writer, Written};
use hubsyncd::sync::change::Key;
use hubsyncd::sync::linking::{Found, Note, Remembered, State};

pub const CONTACTS: usize = 0;
pub const BOOKINGS: usize = 1;
/// 2026-01-02 03:04:05.678901 UTC.
pub const READ_AT: i64 = 1_767_323_045_678_901;
pub const READ_AT_TEXT: &str = "2026-01-02 03:04:05.678901+00";

/// A database with contacts, and the writers of all objects.
pub struct World {
    pub database: Database,
    pub daemon: Session,
    pub application: Session,
    pub owner: Session,
    pub writers: Vec<Writer>,
}

impl World {
    pub async fn new(server: &Server, contacts: usize) -> World {
        let (database, daemon, application) = tables::database(server, "receipt").await;
        let mapping = Mapping::built_in();
        let shapes = inspect(&daemon, &mapping).await.unwrap();
        let writers = (0..3)
            .map(|object| Writer::new(&mapping, object, &shapes))
            .collect();
        let owner = database.session().await;
        let world = World {
            database,
            daemon,
            application,
            owner,
            writers,
        };
        for number in 0..contacts {
            let sql = "INSERT INTO hubspot_sync.hubspot_contact_credits (id, student_id, email) VALUES ($1::text::uuid, $2, $2)";
            let student = number.to_string();
            world
                .application
                .execute(sql, &[&&*key(number), &student])
                .await
                .unwrap();
        }
        world
    }

    pub async fn write(&mut self, object: usize, entries: Vec<Entry>) -> Vec<Written> {
        let receipt = receipt(object, entries);
        let written = self.writers[object].write(&mut self.daemon, &receipt).await;
        let written =
            written.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        let left = self.text("SELECT pg_current_xact_id_if_assigned()::text").await;
        assert_eq!(left, None, "no transaction is left open");
        written
    }

    /// The first value of the first row, as the owner sees it.
    pub async fn text(&self, sql: &str) -> Option<String> {
        let sql = format!("SELECT v::text FROM ({sql}) AS q (v)");
        self.owner
            .query(&sql, &[])
            .await
            .unwrap()
            .first()
            .and_then(|row| row.get(0))
    }

    pub async fn id(&self, number: usize) -> Option<String> {
        let sql = format!(
            "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits WHERE id = '{}'",
            key(number)
        );
        self.text(&sql).await
    }

    pub async fn synced_at(&self, number: usize) -> Option<String> {
        let sql = "SELECT hubspot_last_sync_at FROM hubspot_sync.hubspot_contact_credits WHERE id";
        self.text(&format!("{sql} = '{}'", key(number))).await
    }

    /// `object key op` of every change, in order.
    pub async fn changes(&self) -> Vec<String> {
        let sql = "SELECT concat_ws(' ', object, key, op) FROM hubsyncd.change ORDER BY seq";
        self.owner
            .query(sql, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Appends a change for a contact and answers its number.
    pub async fn change(&self, number: usize) -> i64 {
        let sql = "INSERT INTO hubsyncd.change (object, key, op) VALUES ('contacts', $1, 'U') RETURNING seq";
        self.owner.query_one(sql, &[&&*key(number)]).await.unwrap().get(0)
    }

    pub async fn entry_id(&self, number: usize) -> i64 {
        let sql = "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation) \
                   VALUES ('hubspot_contact_credits', $1::text::uuid, 'UPDATE') RETURNING id";
        self.application
            .query_one(sql, &[&&*key(number)])
            .await
            .unwrap()
            .get(0)
    }

    pub async fn unmarked(&self) -> Vec<i64> {
        let sql =
            "SELECT id FROM hubspot_sync.supabase_audit_log WHERE synced_to_hubspot_at IS NULL ORDER BY id";
        self.owner
            .query(sql, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Makes a trigger of the application's on the contacts.
    pub async fn trigger(&self, when: &str, body: &str) {
        let sql = format!(
            "CREATE FUNCTION hubspot_sync.app_trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$;
             CREATE {when} ON hubspot_sync.hubspot_contact_credits FOR EACH ROW EXECUTE FUNCTION hubspot_sync.app_trigger()"
        );
        self.owner.batch_execute(&sql).await.unwrap();
    }
}

pub fn key(number: usize) -> Key {
    Key::from(format!("00000000-0000-4000-8000-{number:012}"))
}

pub fn receipt(object: usize, entries: Vec<Entry>) -> Receipt {
    Receipt {
        generation: 0,
        object,
        read_at: READ_AT,
        entries,
    }
}

/// A contact that HubSpot has just created.
pub fn created(number: usize) -> Entry {
    Entry {
        hubspot_id: Some(format!("9{number}")),
        synced: true,
        intent_over: true,
        ..seen(number)
    }
}

/// A contact that was updated in HubSpot.
pub fn updated(number: usize) -> Entry {
    Entry {
        read_id: Some(format!("9{number}")),
        ..created(number)
    }
}

/// A contact of which nothing is to be written.
pub fn seen(number: usize) -> Entry {
    Entry {
        key: key(number),
        read_id: None,
        hubspot_id: None,
        synced: false,
        audit: Vec::new(),
        seqs: Vec::new(),
        failure: None,
        clear_failure: false,
        full_record: false,
        links: Vec::new(),
        rename: false,
        found: false,
        archived: Vec::new(),
        left: Vec::new(),
        unarchived: Vec::new(),
        row_gone: false,
        intent_over: false,
        due: None,
    }
}

/// A link of the record `from` that stands.
pub fn linked(link: &str, from: &str, to: &str) -> Note {
    Note {
        link: link.to_owned(),
        to: to.to_owned(),
        row: Some(Remembered {
            to: to.to_owned(),
            from: Some(from.to_owned()),
            state: State::Made,
            found: Found::Nothing,
            unsettled: None,
        }),
    }
}

pub fn category(written: &Written) -> &str {
    match written {
        Written::Refused(refusal) => &refusal.category,
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn shared(contacts: usize) -> World {
    World::new(Server::shared().await, contacts).await
}
