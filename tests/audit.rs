//! Tests: the audit log, marked truthfully, by receipts and by the sweep's end.

use super::support::postgres::{Database, Server};
use super::support::tables;
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::audit::AuditLog;
use hubsyncd::postgres::catalog::inspect;
use hubsyncd::postgres::receipt::{Entry, Receipt, Writer, Written};
use hubsyncd::sync::change::Key;

const ROW: &str = "00000000-0000-4000-8000-00000000000a";

struct World {
    daemon: Session,
    application: Session,
    owner: Session,
    _database: Database,
}

impl World {
    /// With all triggers, and one contact.
    async fn captured(server: &Server) -> World {
        let (database, daemon, application) = tables::captured(server, "audit").await;
        let owner = database.session().await;
        let sql = format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (id, student_id, email) VALUES ('{ROW}', 's', 'e')"
        );
        application.batch_execute(&sql).await.unwrap();
        World {
            daemon,
            application,
            owner,
            _database: database,
        }
    }

    async fn column(&self, sql: &str) -> Vec<String> {
        let sql = format!("SELECT v::text FROM ({sql}) AS q (v)");
        self.owner
            .query(&sql, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    async fn changes(&self) -> Vec<String> {
        self.column("SELECT concat_ws(' ', object, op) FROM hubsyncd.change ORDER BY seq")
            .await
    }

    async fn unmarked(&self) -> Vec<String> {
        let sql = "SELECT coalesce(performed_by, operation) FROM hubspot_sync.supabase_audit_log \
                   WHERE synced_to_hubspot_at IS NULL ORDER BY id";
        self.column(sql).await
    }

    async fn forget_changes(&self) {
        self.owner
            .batch_execute("DELETE FROM hubsyncd.change")
            .await
            .unwrap();
    }

    async fn push(&mut self, entry: Entry) -> Written {
        let mapping = Mapping::built_in();
        let shapes = inspect(&self.daemon, &mapping).await.unwrap();
        let writer = Writer::new(&mapping, 0, &shapes);
        let receipt = Receipt {
            generation: 0,
            object: 0,
            read_at: 1_767_323_045_678_901,
            entries: vec![entry],
        };
        writer.write(&mut self.daemon, &receipt).await.unwrap().remove(0)
    }
}

fn created() -> Entry {
    Entry {
        key: Key::from(ROW),
        read_id: None,
        hubspot_id: Some("9".to_owned()),
        synced: true,
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
        intent_over: true,
        due: None,
    }
}

/// Makes the application audit its contacts by a trigger.
async fn audit_by_trigger(owner: &Session, when: &str, what: &str) {
    let sql = format!(
        "CREATE FUNCTION hubspot_sync.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN
           {what}
           INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
             VALUES ('hubspot_contact_credits', NEW.id, TG_OP);
           RETURN NULL;
         END$$;
         CREATE {when} FOR EACH ROW EXECUTE FUNCTION hubspot_sync.audit()"
    );
    owner.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_receipt_causes_no_change() {
    for server in Server::every_version().await {
        let mut world = World::captured(server).await;
        assert_eq!(world.changes().await, ["contacts I"]);
        world.forget_changes().await;
        assert_eq!(world.push(created()).await, Written::Done);
        assert_eq!(world.changes().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn entries_that_the_applications_triggers_write_during_a_receipt_are_marked_and_captured_by_nobody() {
    let immediate = "TRIGGER audit AFTER UPDATE ON hubspot_sync.hubspot_contact_credits";
    let deferred = "CONSTRAINT TRIGGER audit AFTER UPDATE ON hubspot_sync.hubspot_contact_credits DEFERRABLE INITIALLY DEFERRED";
    for server in Server::every_version().await {
        for when in [immediate, deferred] {
            let mut world = World::captured(server).await;
            audit_by_trigger(&world.owner, when, "").await;
            let update = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 1";
            world.application.batch_execute(update).await.unwrap();
            assert_eq!(world.unmarked().await, ["UPDATE"], "the application's own entry");
            world.forget_changes().await;
            assert_eq!(world.push(created()).await, Written::Done);
            assert_eq!(world.changes().await, Vec::<String>::new(), "{when}");
            assert_eq!(
                world.unmarked().await,
                ["UPDATE"],
                "nobody pushed that one: {when}"
            );
            let marked =
                "SELECT count(*) FROM hubspot_sync.supabase_audit_log WHERE synced_to_hubspot_at IS NOT NULL";
            assert_eq!(world.column(marked).await, ["1"], "{when}");
        }
    }
}

#[tokio::test]
async fn a_mapped_column_that_a_trigger_changes_in_our_receipt_still_counts() {
    let mut world = World::captured(Server::shared().await).await;
    let body = "NEW.sj_credits = coalesce(NEW.sj_credits, 0) + 1; RETURN NEW;";
    let sql = format!(
        "CREATE FUNCTION hubspot_sync.bump() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$;
         CREATE TRIGGER bump BEFORE UPDATE ON hubspot_sync.hubspot_contact_credits FOR EACH ROW
         WHEN (NEW.hubspot_id IS DISTINCT FROM OLD.hubspot_id) EXECUTE FUNCTION hubspot_sync.bump()"
    );
    world.owner.batch_execute(&sql).await.unwrap();
    world.forget_changes().await;
    assert_eq!(world.push(created()).await, Written::Done);
    assert_eq!(world.changes().await, ["contacts U"]);
}

/// The log of an application whose record_id is text, so that it can hold anything.
async fn with_any_record_id(world: &World) -> AuditLog {
    let sql = "ALTER TABLE hubspot_sync.supabase_audit_log ALTER record_id TYPE text, ALTER record_id DROP NOT NULL";
    world.owner.batch_execute(sql).await.unwrap();
    let mapping = Mapping::built_in();
    let shapes = inspect(&world.daemon, &mapping).await.unwrap();
    AuditLog::new(&mapping, &shapes).unwrap()
}

async fn entry(world: &World, name: &str, table: &str, record: Option<&str>) {
    let sql = "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation, performed_by) VALUES ($1, $2, 'UPDATE', $3)";
    world.owner.execute(sql, &[&table, &record, &name]).await.unwrap();
}

async fn walk(world: &mut World, log: &AuditLog, newest: i64, limit: usize) -> u64 {
    let (mut after, mut marked, mut pages) = (Some(0), 0, 0);
    while let Some(from) = after {
        let walked = log.walk(&mut world.daemon, from, newest, limit).await.unwrap();
        assert!(walked.next.is_none_or(|next| next > from));
        (after, marked, pages) = (walked.next, marked + walked.marked, pages + 1);
        assert!(pages < 100);
    }
    marked
}

#[tokio::test]
async fn a_sweeps_end_marks_entries_of_tables_that_are_not_mapped_and_of_rows_that_are_gone() {
    for server in Server::every_version().await {
        let mut world = World::captured(server).await;
        let log = with_any_record_id(&world).await;
        assert_eq!(log.newest(&world.daemon).await.unwrap(), None);
        let gone = "00000000-0000-4000-8000-0000000000ff";
        let upper = ROW.to_uppercase();
        let bare: String = ROW.chars().filter(|character| *character != '-').collect();
        let contacts = "hubspot_contact_credits";
        let qualified = "hubspot_sync.hubspot_contact_credits";
        for (name, table, record) in [
            ("kept: the row is there", contacts, Some(ROW)),
            ("kept: qualified", qualified, Some(ROW)),
            ("kept: capitals", contacts, Some(upper.as_str())),
            ("kept: braces", contacts, Some(&*format!("{{{ROW}}}"))),
            ("kept: no hyphens", contacts, Some(bare.as_str())),
            ("gone", contacts, Some(gone)),
            ("gone, qualified", qualified, Some(gone)),
            ("nonsense", contacts, Some("'; DROP TABLE x; --")),
            ("nothing", contacts, None),
            ("another table", "invoices", Some(ROW)),
            ("another schema", "public.hubspot_contact_credits", Some(ROW)),
        ] {
            entry(&world, name, table, record).await;
        }
        let newest = log.newest(&world.daemon).await.unwrap().unwrap();
        entry(&world, "kept: written later", "invoices", Some("1")).await;
        assert_eq!(walk(&mut world, &log, newest, 3).await, 6);
        let kept = world.unmarked().await;
        assert_eq!(kept.len(), 6);
        assert!(kept.iter().all(|name| name.starts_with("kept")), "{kept:?}");
        assert_eq!(walk(&mut world, &log, newest, 100).await, 0);
        assert_eq!(
            log.walk(&mut world.daemon, newest, newest, 10)
                .await
                .unwrap()
                .next,
            None
        );
    }
}

#[tokio::test]
async fn an_entry_that_somebody_holds_is_left_for_the_next_sweep_without_waiting() {
    let mut world = World::captured(Server::shared().await).await;
    let log = with_any_record_id(&world).await;
    entry(&world, "held", "invoices", Some("1")).await;
    entry(&world, "free", "invoices", Some("2")).await;
    let lock = "BEGIN; SELECT 1 FROM hubspot_sync.supabase_audit_log WHERE performed_by = 'held' FOR UPDATE";
    world.application.batch_execute(lock).await.unwrap();
    assert_eq!(walk(&mut world, &log, 10, 10).await, 1);
    assert_eq!(world.unmarked().await, ["held"]);
    world.application.batch_execute("COMMIT").await.unwrap();
    assert_eq!(walk(&mut world, &log, 10, 10).await, 1);
    // The whole log locked: later.
    world
        .owner
        .batch_execute("BEGIN; LOCK TABLE hubspot_sync.supabase_audit_log")
        .await
        .unwrap();
    let error = log.walk(&mut world.daemon, 0, 10, 10).await.unwrap_err();
    assert_eq!(error.kind, hubsyncd::postgres::ErrorKind::Busy);
    world.owner.batch_execute("COMMIT").await.unwrap();
    assert_eq!(walk(&mut world, &log, 10, 10).await, 0);
}
