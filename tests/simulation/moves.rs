//! Rows that move: to other keys, to other targets, and out of their tables all at once.

use super::model::{Row, Transaction};
use super::scene::{BOOKINGS, PAYMENTS};
use super::script::Script;
use hubsyncd::sync::change::Key;
use std::time::Duration;

/// The furthest that the database's clock is set forward, and back, milliseconds: together with the longest way of a
/// request less than the settle time.
const JUMPS: (u64, u64) = (4_000, 60_000);

impl Script {
    /// A row's primary key changes, often its natural key too, and often that of the row that moved last: the trigger
    /// sees one go and one come.
    pub fn change_key(&mut self, transaction: &mut Transaction) {
        let object = if self.dice.permille(500) {
            BOOKINGS
        } else {
            PAYMENTS
        };
        let last = self.moved.clone().filter(|_| self.dice.permille(400));
        let last = last.and_then(|(object, key)| {
            let row = self.world.model().seen(transaction, object, &key)?;
            Some((object, key, row))
        });
        let some = |(key, row)| (object, key, row);
        let found = last.or_else(|| self.some_row(transaction, object).map(some));
        if let Some((object, key, row)) = found {
            self.move_row(transaction, object, key, row);
        }
    }

    fn move_row(&mut self, transaction: &mut Transaction, object: usize, mut key: Key, mut row: Row) {
        for _ in 0..self.dice.between(1, 2) {
            if self.dice.permille(300) {
                self.rename(object, &mut row);
            }
            if object == BOOKINGS && self.dice.permille(300) {
                self.turn(&mut row);
            }
            self.made += 1;
            let new = Key::from(format!("k{}", self.made));
            self.world.model().ledger.renamed(object, &key, &new);
            self.write(transaction, object, &key, None);
            self.write(transaction, object, &new, Some(row.clone()));
            key = new;
        }
        self.moved = Some((object, key));
    }

    /// A booking's links or key, or both, change, mostly those of one of which a person has linked the record too.
    pub fn cross(&mut self, transaction: &mut Transaction) {
        let crossed = self.crossed().filter(|_| self.dice.permille(800));
        let row = crossed.and_then(|key| {
            let row = self.world.model().seen(transaction, BOOKINGS, &key)?;
            Some((key, row))
        });
        let Some((key, mut row)) = row.or_else(|| self.some_row(transaction, BOOKINGS)) else {
            return;
        };
        if self.dice.permille(300) {
            return self.move_row(transaction, BOOKINGS, key, row);
        }
        self.turn(&mut row);
        self.write(transaction, BOOKINGS, &key, Some(row));
    }

    /// A booking of whose record a person has made a link that is to stay.
    fn crossed(&mut self) -> Option<Key> {
        let keys: Vec<Key> = {
            let model = self.world.model();
            let ties = model.ledger.ties.iter().filter(|(_, tie)| !tie.kept.is_empty());
            let records: Vec<&String> = ties.map(|(((_, from), _), _)| from).collect();
            let rows = model.tables[BOOKINGS].iter();
            let rows =
                rows.filter(|(_, row)| row.hubspot_id.as_ref().is_some_and(|id| records.contains(&id)));
            rows.map(|(key, _)| key.clone()).collect()
        };
        self.dice.pick(&keys).cloned()
    }

    /// A natural key that changes while a create under the old one may be on its way.
    fn rename(&mut self, object: usize, row: &mut Row) {
        if row.hubspot_id.is_some() {
            return;
        }
        self.made += 1;
        let (column, value) = if object == BOOKINGS {
            ("booking_id", format!("B{}", self.made))
        } else {
            ("reference", format!("R{}", self.made))
        };
        row.columns.insert(column.to_owned(), Some(value));
    }

    /// A booking's links lead elsewhere, or nowhere.
    pub fn lead_elsewhere(&mut self, transaction: &mut Transaction) {
        let Some((key, mut row)) = self.some_row(transaction, BOOKINGS) else {
            return;
        };
        self.turn(&mut row);
        self.write(transaction, BOOKINGS, &key, Some(row));
    }

    fn turn(&mut self, row: &mut Row) {
        let (column, value) = match self.dice.below(4) {
            0 => ("contact_id", self.some_contact()),
            1 => ("mock_exam_id", self.exam()),
            _ => ("proctor_id", self.some_contact()),
        };
        let value = value.filter(|_| self.dice.permille(700));
        let theirs = self.linked_by_people(row).filter(|_| self.dice.permille(600));
        let (column, value) = match theirs {
            // There, and away again.
            Some(to) if row.columns.get("contact_id") != Some(&Some(to.clone())) => ("contact_id", Some(to)),
            Some(_) => ("contact_id", self.some_contact()),
            None => (column, value),
        };
        row.columns.insert(column.to_owned(), value);
    }

    /// A contact that a person has linked to a booking's record.
    fn linked_by_people(&mut self, row: &Row) -> Option<String> {
        let own = row.hubspot_id.as_ref().filter(|_| self.world.scene.crossed)?;
        let model = self.world.model();
        let ties = model.ledger.ties.iter();
        let mut ties = ties.filter(|(((_, from), _), tie)| from == own && !tie.kept.is_empty());
        ties.next().map(|((_, (_, to)), _)| to.clone())
    }

    /// A table is emptied in one statement, which names no row.
    pub fn truncate(&mut self) {
        let object = if self.dice.permille(500) {
            BOOKINGS
        } else {
            PAYMENTS
        };
        let now = self.world.tick();
        if self.world.model().truncate(object, now) {
            self.world.trace(format_args!("app: truncates {object}"));
            self.world.bell.notify_waiters();
        }
    }

    /// Somebody sets the clock of the database's machine.
    pub fn set_clock(&mut self) {
        let (forward, back) = JUMPS;
        if self.dice.permille(500) {
            self.world
                .jump(Duration::from_millis(self.dice.below(forward)), true);
        } else {
            self.world
                .jump(Duration::from_millis(self.dice.below(back)), false);
        }
    }
}
