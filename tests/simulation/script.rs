//! What happens around the daemon: the application at work, in transactions that end at once, later, or not at all.
//!
//! What its statements write is in `writes`, what people do in HubSpot in `people`.

use super::dice::Dice;
use super::model::{Columns, Row, Transaction};
use super::scene::{BOOKINGS, CONTACTS, EXAMS, PAYMENT, PAYMENTS};
use super::world::{DAILY, World};
use hubsyncd::sync::change::Key;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

/// A value that HubSpot refuses in a contact's first name, a booking's attendance and a payment's payer.
pub const BAD: &str = "BAD";
/// An id that no record has.
pub const NOBODY: &str = "999";

/// The application.
pub struct Script {
    pub world: Arc<World>,
    pub dice: Dice,
    pub made: u64,
    /// Transactions that end later.
    open: JoinSet<()>,
    pub exams: Vec<String>,
    /// The row whose key changed last.
    pub moved: Option<(usize, Key)>,
    /// Rows that were deleted, to come back one day.
    pub ended: Vec<(usize, Key, Row)>,
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
            moved: None,
            ended: Vec::new(),
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
            world.model().put(EXAMS, &Key::from(format!("e{number}")), row);
            script.exams.push(id);
        }
        world.portal.refuse_record("0-1", "firstname", BAD, None);
        world.portal.refuse_record("2-50158943", "attendance", BAD, None);
        world.portal.refuse_record(PAYMENT, "payer", BAD, None);
        script
    }

    /// One transaction: some statements, then its end, now or later.
    pub async fn act(&mut self) {
        let mut transaction = self.world.model().begin();
        let most = if self.dice.permille(60) { 40 } else { 4 };
        for _ in 0..self.dice.between(1, most) {
            self.statement(&mut transaction);
        }
        self.end(transaction).await;
    }

    async fn end(&mut self, transaction: Transaction) {
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
            drop(model);
            if commits && !world.scene.deaf {
                world.bell.notify_waiters();
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
        if self.world.scene.crossed && self.dice.permille(300) {
            return self.cross(transaction);
        }
        if self.world.scene.wide && self.dice.permille(400) {
            return self.wide_statement(transaction);
        }
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
            90..94 => self.delete(transaction, None),
            _ => self.same_again(transaction),
        }
    }

    /// A statement about what only wide scenes have.
    fn wide_statement(&mut self, transaction: &mut Transaction) {
        match self.dice.below(100) {
            0..35 => self.new_payment(transaction),
            35..55 => self.change(transaction, PAYMENTS),
            55..68 => self.delete(transaction, Some(PAYMENTS)),
            68..76 => self.delete(transaction, Some(BOOKINGS)),
            76..82 => self.lead_elsewhere(transaction),
            82..85 => self.swap_emails(transaction),
            85..90 => self.change_key(transaction),
            90..94 => self.come_back(transaction),
            94..97 => self.choose(transaction),
            _ if self.world.scene.unnamed => self.come_unnamed(),
            _ => {}
        }
    }

    /// Many rows are made in one transaction, and later deleted in another.
    pub async fn purge(&mut self, step: u64) {
        let mut transaction = self.world.model().begin();
        match step {
            2 => (0..30).for_each(|_| self.new_payment(&mut transaction)),
            12 => (0..60).for_each(|_| self.delete(&mut transaction, Some(PAYMENTS))),
            _ => {}
        }
        self.commit(transaction);
    }

    /// New rows, which are pushed at once; answers their keys.
    pub fn beforehand(&mut self) -> Vec<Key> {
        let mut transaction = self.world.model().begin();
        let keys = (0..3).map(|_| {
            drop(self.new_contact(&mut transaction));
            Key::from(format!("c{}", self.made))
        });
        let keys = keys.collect();
        self.commit(transaction);
        keys
    }

    /// A transaction that changes rows which are on their way right now.
    pub fn overtake(&mut self, rows: &[Key]) {
        let mut transaction = self.world.model().begin();
        for key in rows {
            self.credit(&mut transaction, key);
        }
        self.commit(transaction);
    }

    fn commit(&mut self, transaction: Transaction) {
        self.world.model().commit(transaction);
        if !self.world.scene.deaf {
            self.world.bell.notify_waiters();
        }
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

    /// HubSpot does not take the token for a while.
    pub fn revocation(&mut self) {
        let world = Arc::clone(&self.world);
        let length = Duration::from_millis(self.dice.between(100, 30_000));
        world.revoked.store(true, Ordering::Relaxed);
        world.trace(format_args!("token: revoked"));
        self.open.spawn(async move {
            tokio::time::sleep(length).await;
            world.revoked.store(false, Ordering::Relaxed);
            world.trace(format_args!("token: valid"));
        });
    }

    /// Other programs use up what the portal's day has left, shortly before its midnight.
    pub fn spend_the_day(&mut self) {
        let left = self.world.until_midnight();
        if left > Duration::from_secs(1) && self.dice.permille(300) {
            self.world.tick();
            self.world.portal.spend(0, DAILY);
            self.world.trace(format_args!(
                "the day's requests are spent, {left:?} before midnight"
            ));
        }
    }
}
