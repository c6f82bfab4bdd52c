//! What happens around the daemon: the application at work, people in HubSpot, kills and outages.

use super::dice::Dice;
use super::model::{Columns, Row, Transaction};
use super::world::World;
use hubsyncd::sync::change::Key;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

pub const CONTACTS: usize = 0;
pub const BOOKINGS: usize = 1;
pub const EXAMS: usize = 2;
/// A value that HubSpot refuses in a contact's first name and a booking's attendance.
pub const BAD: &str = "BAD";
/// An id that no record has.
pub const NOBODY: &str = "999";

/// The application.
pub struct Script {
    world: Arc<World>,
    dice: Dice,
    made: u64,
    /// Transactions that end later.
    open: JoinSet<()>,
    exams: Vec<String>,
}

impl Script {
    /// The application with a few mock exams that stand in both places.
    pub fn new(world: &Arc<World>, seed: u64) -> Script {
        let mut script = Script {
            world: Arc::clone(world),
            dice: Dice::new(seed, 4),
            made: 0,
            open: JoinSet::new(),
            exams: Vec::new(),
        };
        for number in 0..3 {
            let id = world
                .portal
                .world()
                .create("2-50158913", [("total_bookings", "0")]);
            let columns = Columns::from([("total_bookings".to_owned(), Some("0".to_owned()))]);
            let row = Row {
                columns,
                hubspot_id: Some(id.clone()),
                ..Row::default()
            };
            world.model().tables[EXAMS].insert(Key::from(format!("e{number}")), row);
            script.exams.push(id);
        }
        world.portal.refuse_record("0-1", "firstname", BAD, None);
        world.portal.refuse_record("2-50158943", "attendance", BAD, None);
        script
    }

    /// One transaction: some statements, then its end, now or later.
    pub async fn act(&mut self) {
        let mut transaction = self.world.model().begin();
        let most = if self.dice.permille(60) { 40 } else { 4 };
        for _ in 0..self.dice.between(1, most) {
            self.statement(&mut transaction);
        }
        let commits = !self.dice.permille(120);
        let later = match self.dice.below(20) {
            0..12 => 0,
            12..17 => self.dice.between(1, 300),
            17..19 => self.dice.between(300, 4_000),
            _ => self.dice.between(4_000, 30_000),
        };
        let world = Arc::clone(&self.world);
        let end = async move {
            world.pause(later).await;
            world.trace(format_args!(
                "app: {}",
                if commits { "commit" } else { "rollback" }
            ));
            let mut model = world.model();
            if commits {
                model.commit(transaction);
            } else {
                model.roll_back(transaction);
            }
        };
        if later == 0 {
            end.await;
        } else {
            self.open.spawn(end);
        }
    }

    /// Waits for the end of every transaction.
    pub async fn finish(&mut self) {
        while self.open.join_next().await.is_some() {}
    }

    fn statement(&mut self, transaction: &mut Transaction) {
        match self.dice.below(100) {
            0..18 => drop(self.new_contact(transaction)),
            18..30 => self.new_booking(transaction, None),
            30..36 => {
                let student = self.new_contact(transaction);
                self.new_booking(transaction, student);
            }
            36..58 => self.change(transaction, CONTACTS),
            58..84 => self.change(transaction, BOOKINGS),
            84..90 => self.change(transaction, EXAMS),
            90..94 => self.delete(transaction),
            _ => self.same_again(transaction),
        }
    }

    fn text(&mut self, of: &str, kinds: u64) -> Option<String> {
        Some(format!("{of}{}", self.dice.below(kinds)))
    }

    fn refused(&mut self) -> bool {
        self.world.is_troubled() && self.dice.permille(self.world.trouble.refusals)
    }

    /// Writes a row and, often, an audit entry.
    fn write(&mut self, transaction: &mut Transaction, object: usize, key: &Key, row: Option<Row>) {
        let now = self.world.tick();
        let mut model = self.world.model();
        self.world.trace(format_args!(
            "app: writes {object} {key}: {}",
            shown(row.as_ref())
        ));
        model.write(transaction, object, key, row, now);
        if self.dice.permille(400) {
            model.note(transaction, object, key, now);
        }
    }

    fn new_contact(&mut self, transaction: &mut Transaction) -> Option<(String, String)> {
        self.made += 1;
        let student = format!("S{}", self.made);
        let mut email = format!("s{}@example.com", self.made);
        if self.dice.permille(200) {
            email = email.to_uppercase();
        }
        if self.refused() {
            email = format!("shared{}@example.com", self.dice.below(3));
        }
        let firstname = if self.refused() {
            Some(BAD.to_owned())
        } else {
            self.text("F", 9)
        };
        let mut columns = Columns::from([
            ("student_id".to_owned(), Some(student.clone())),
            ("email".to_owned(), Some(email.clone())),
            ("firstname".to_owned(), firstname),
            ("lastname".to_owned(), None),
        ]);
        for credits in [
            "sj_credits",
            "cs_credits",
            "sjmini_credits",
            "mock_discussion_token",
            "shared_mock_credits",
        ] {
            let value = self.dice.permille(600).then(|| self.dice.below(20).to_string());
            columns.insert(credits.to_owned(), value);
        }
        let row = Row {
            columns,
            ..Row::default()
        };
        let key = Key::from(format!("c{}", self.made));
        self.write(transaction, CONTACTS, &key, Some(row));
        Some((student, email))
    }

    fn new_booking(&mut self, transaction: &mut Transaction, of: Option<(String, String)>) {
        self.made += 1;
        let student = of.or_else(|| {
            let key = self.some_key(CONTACTS)?;
            let row = self.world.model().seen(transaction, CONTACTS, &key)?;
            let cell = |name: &str| row.columns.get(name).cloned().flatten();
            Some((cell("student_id")?, cell("email")?))
        });
        let (student, email) = student.unwrap_or(("S0".to_owned(), "s0@example.com".to_owned()));
        let mut columns = Columns::from([
            ("booking_id".to_owned(), Some(format!("B{}", self.made))),
            ("student_id".to_owned(), Some(student)),
            ("student_email".to_owned(), Some(email)),
            ("student_name".to_owned(), self.text("N", 5)),
            ("mock_exam_id".to_owned(), self.exam()),
            ("is_active".to_owned(), self.text("Active", 3)),
            ("exam_date".to_owned(), None),
            ("contact_id".to_owned(), None),
        ]);
        let attendance = self
            .dice
            .permille(300)
            .then(|| format!("A{}", self.dice.below(4)));
        columns.insert("attendance".to_owned(), attendance);
        let row = Row {
            columns,
            unwritable: self.refused(),
            ..Row::default()
        };
        let key = Key::from(format!("b{}", self.made));
        self.write(transaction, BOOKINGS, &key, Some(row));
    }

    fn exam(&mut self) -> Option<String> {
        if self.refused() {
            return Some(NOBODY.to_owned());
        }
        let some = self.dice.permille(800);
        self.dice.pick(&self.exams).cloned().filter(|_| some)
    }

    fn some_key(&mut self, object: usize) -> Option<Key> {
        let keys: Vec<Key> = self.world.model().tables[object].keys().cloned().collect();
        self.dice.pick(&keys).cloned()
    }

    fn change(&mut self, transaction: &mut Transaction, object: usize) {
        let Some(key) = self.some_key(object) else { return };
        let Some(mut row) = self.world.model().seen(transaction, object, &key) else {
            return;
        };
        let mut set = |name: &str, value: Option<String>| drop(row.columns.insert(name.to_owned(), value));
        match (object, self.dice.below(10)) {
            (CONTACTS, 0..7) => set(
                "sj_credits",
                self.dice.permille(900).then(|| self.dice.below(50).to_string()),
            ),
            (CONTACTS, 7..9) => set("firstname", self.text("F", 9)),
            (CONTACTS, _) => set("cs_credits", self.text("", 9)),
            (BOOKINGS, 0..4) => set(
                "is_active",
                self.dice
                    .permille(800)
                    .then(|| format!("Active{}", self.dice.below(3))),
            ),
            (BOOKINGS, 4..8) => {
                let refused = self.refused();
                let value = if refused {
                    Some(BAD.to_owned())
                } else {
                    self.text("A", 4)
                };
                set("attendance", value.filter(|_| self.dice.permille(800)));
            }
            (BOOKINGS, 8) => set("student_name", self.text("N", 5)),
            (BOOKINGS, _) => row.unwritable = false,
            _ => set("total_bookings", self.text("", 40)),
        }
        self.write(transaction, object, &key, Some(row));
    }

    fn delete(&mut self, transaction: &mut Transaction) {
        let object = if self.dice.permille(300) {
            CONTACTS
        } else {
            BOOKINGS
        };
        let Some(key) = self.some_key(object) else { return };
        if self.world.model().seen(transaction, object, &key).is_some() {
            self.write(transaction, object, &key, None);
        }
    }

    /// An update that changes nothing, or takes a row's id away.
    fn same_again(&mut self, transaction: &mut Transaction) {
        let object = if self.dice.permille(500) {
            CONTACTS
        } else {
            BOOKINGS
        };
        let Some(key) = self.some_key(object) else { return };
        let Some(mut row) = self.world.model().seen(transaction, object, &key) else {
            return;
        };
        if self.dice.permille(100) {
            row.hubspot_id = None;
        }
        self.write(transaction, object, &key, Some(row));
    }

    /// The database is gone for a while.
    pub fn outage(&mut self) {
        let world = Arc::clone(&self.world);
        let length = Duration::from_millis(self.dice.between(100, 8_000));
        world.database_down.store(true, Ordering::Relaxed);
        world.trace(format_args!("database: down"));
        self.open.spawn(async move {
            tokio::time::sleep(length).await;
            world.database_down.store(false, Ordering::Relaxed);
            world.trace(format_args!("database: up"));
        });
    }

    /// Somebody works in HubSpot.
    pub fn people(&mut self) {
        let world = Arc::clone(&self.world);
        let (object, property) = *self
            .dice
            .pick(&[("0-1", "sj_credits"), ("2-50158943", "is_active")])
            .expect("there are two");
        let ids: Vec<String> = {
            let portal = world.portal.world();
            portal
                .records(object)
                .map(hubsyncd::sandbox::Record::id)
                .collect()
        };
        let Some(id) = self.dice.pick(&ids).cloned() else {
            return;
        };
        let other = self.dice.pick(&ids).cloned().filter(|other| *other != id);
        world.tick();
        let mut portal = world.portal.world();
        let what = match (self.dice.below(10), other) {
            (0, _) => {
                portal.archive(object, &id);
                "archives"
            }
            (1..3, Some(other)) => {
                let survivor = portal.merge(object, &id, &other);
                let mut merged = world.merged.lock().expect("never held for long");
                merged.extend(survivor);
                "merges"
            }
            _ => {
                portal.set(object, &id, property, "77");
                "types over"
            }
        };
        drop(portal);
        world.trace(format_args!("somebody {what} {object} {id}"));
    }
}

/// A row in one line.
fn shown(row: Option<&Row>) -> String {
    let Some(row) = row else { return "gone".to_owned() };
    let cells = row
        .columns
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    let cells: Vec<String> = cells.collect();
    format!("{} {}", row.hubspot_id.as_deref().unwrap_or("-"), cells.join(" "))
}
