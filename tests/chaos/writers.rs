//! The application at work: writers that insert, update, cancel, delete, roll back and dawdle, and go on whatever
//! happens to their connections.
//!
//! Each writer has rows of its own, and only these are changed together in one transaction; rows of others it touches
//! one at a time. So writers never wait for one another in a circle, and a statement that is refused for a deadlock or
//! a time-out was refused because of the daemon.

use super::dice::Dice;
use super::ledger::{BOOKINGS, CONTACTS, EXAMS, Kind, PAYMENTS};
use hubsyncd::postgres::connect::connect;
use hubsyncd::postgres::{Address, Session};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the writers came to.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    /// Transactions whose connection broke.
    pub(super) broken: u64,
    /// Statements that the database refused for a reason that no writer and no attack explains.
    pub(super) harmed: Vec<String>,
}

/// What the writers share.
#[derive(Debug, Default)]
pub(super) struct Office {
    pub(super) deeds: Mutex<Deeds>,
    /// Committed rows, for whoever touches them one at a time.
    contacts: Mutex<Vec<String>>,
    bookings: Mutex<Vec<String>>,
    /// The exams' HubSpot ids.
    exams: Vec<String>,
    /// The longest pause between two transactions of a writer, in milliseconds.
    pause_ms: AtomicUsize,
}

impl Office {
    pub(super) fn new(exams: Vec<String>, pause_ms: usize) -> Office {
        Office {
            exams,
            pause_ms: AtomicUsize::new(pause_ms),
            ..Office::default()
        }
    }

    /// There is enough to do: from now on the writers make long pauses.
    pub(super) fn slow_down(&self) {
        self.pause_ms.store(4_000, Ordering::Relaxed);
    }
}

/// A student of one writer's own.
#[derive(Debug, Clone)]
struct Student {
    key: String,
    number: usize,
    bookings: Vec<String>,
    /// How often the e-mail was changed.
    moved: usize,
    valid: bool,
    /// As SQL.
    lastname: &'static str,
    /// Whether another row has the same e-mail.
    shared: bool,
}

/// A transaction: its statements, how it ends, and what is known once it is committed.
#[derive(Debug, Default)]
struct Act {
    steps: Vec<Step>,
    rolls_back: bool,
    born: Vec<Student>,
    booked: Vec<(usize, String)>,
    gone: Vec<Gone>,
    paid: Option<String>,
    refunded: Option<String>,
    moved: Vec<usize>,
}

#[derive(Debug)]
enum Step {
    Sql(String),
    Pause(Duration),
}

#[derive(Debug)]
enum Gone {
    Student(usize),
    Booking(usize, String),
}

/// What a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Enrol,
    EnrolAndBook,
    EnrolBroken,
    EnrolShared,
    Book,
    Credit,
    Attend,
    Several,
    BulkCredit,
    BulkAttend,
    Cancel,
    Move,
    Rebook,
    Unbook,
    Leave,
    ComeAndGo,
    Note,
    Pay,
    Correct,
    Refund,
}

const DEEDS: [(usize, Deed); 20] = [
    (10, Deed::Enrol),
    (8, Deed::EnrolAndBook),
    (2, Deed::EnrolBroken),
    (1, Deed::EnrolShared),
    (9, Deed::Book),
    (22, Deed::Credit),
    (16, Deed::Attend),
    (7, Deed::Several),
    (4, Deed::BulkCredit),
    (2, Deed::BulkAttend),
    (6, Deed::Cancel),
    (4, Deed::Move),
    (3, Deed::Rebook),
    (4, Deed::Unbook),
    (2, Deed::Leave),
    (2, Deed::ComeAndGo),
    (2, Deed::Note),
    (9, Deed::Pay),
    (9, Deed::Correct),
    (2, Deed::Refund),
];

/// One writer.
pub(super) struct Writer {
    name: String,
    address: Address,
    dice: Dice,
    office: Arc<Office>,
    students: Vec<Student>,
    enrolled: usize,
    payments: Vec<String>,
    paid: usize,
}

impl Writer {
    pub(super) fn new(number: usize, address: Address, dice: Dice, office: Arc<Office>) -> Writer {
        Writer {
            name: format!("w{number}"),
            address,
            dice,
            office,
            students: Vec::new(),
            enrolled: 0,
            payments: Vec::new(),
            paid: 0,
        }
    }

    /// Works until told to stop.
    pub(super) async fn work(mut self, stop: CancellationToken) {
        let mut session = None;
        while !stop.is_cancelled() {
            let ready = match session.take() {
                Some(ready) => ready,
                None => match connect(&self.address, "writer").await {
                    Ok(ready) => ready,
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let act = self.act();
            let done = perform(&ready, &act).await;
            self.account(act, done, &mut session, ready);
            let pause = self.dice.millis(0, self.office.pause_ms.load(Ordering::Relaxed));
            tokio::time::sleep(pause).await;
        }
    }

    fn account(
        &mut self,
        act: Act,
        done: Result<(), tokio_postgres::Error>,
        session: &mut Option<Session>,
        ready: Session,
    ) {
        let mut deeds = self.office.deeds.lock().unwrap();
        match done {
            Ok(()) if act.rolls_back => deeds.rolled_back += 1,
            Ok(()) => deeds.committed += 1,
            Err(error) => {
                deeds.broken += 1;
                // Administrators' shutdowns and crashes are attacks of ours.
                let code = error.code().map(tokio_postgres::error::SqlState::code);
                if let Some(code) = code.filter(|code| !matches!(*code, "57P01" | "57P02" | "57P03")) {
                    let error = error.as_db_error().map_or("", |error| error.message());
                    deeds
                        .harmed
                        .push(format!("{}: SQLSTATE {code}: {error}", self.name));
                }
                return;
            }
        }
        drop(deeds);
        *session = Some(ready);
        if !act.rolls_back {
            self.learn(act);
        }
    }

    /// Takes over what a committed transaction has made true.
    fn learn(&mut self, act: Act) {
        for at in act.moved {
            let student = &mut self.students[at];
            student.moved += 1;
            student.valid = true;
        }
        for student in act.born {
            self.office.contacts.lock().unwrap().push(student.key.clone());
            self.students.push(student);
        }
        for (at, key) in act.booked {
            self.office.bookings.lock().unwrap().push(key.clone());
            self.students[at].bookings.push(key);
        }
        self.payments.retain(|key| act.refunded.as_ref() != Some(key));
        self.payments.extend(act.paid);
        for gone in act.gone {
            match gone {
                Gone::Booking(at, key) => self.students[at].bookings.retain(|one| *one != key),
                Gone::Student(at) => drop(self.students.swap_remove(at)),
            }
        }
    }

    /// The next transaction.
    fn act(&mut self) -> Act {
        let mut act = Act::default();
        let deed = self.dice.weighted(&DEEDS);
        self.deed(deed, &mut act);
        if self.dice.chance(4) {
            // What came after the savepoint never was; nothing that another writer may hold is touched here.
            act.sql("SAVEPOINT here");
            self.enrol(&mut act, true, None);
            act.born.pop();
            act.sql("ROLLBACK TO here");
        }
        if self.dice.chance(15) {
            let exam = self.dice.pick(&self.office.exams).clone();
            act.sql(&EXAMS.noted(
                "U",
                &format!(
                    "UPDATE {} SET total_bookings = coalesce(total_bookings, 0) + 1 WHERE hubspot_id = '{exam}'",
                    EXAMS.table
                ),
            ));
        }
        if self.dice.chance(6) {
            let pause = self.dice.millis(100, 1_500);
            let at = self.dice.below(act.steps.len() + 1);
            act.steps.insert(at, Step::Pause(pause));
        }
        act.rolls_back = self.dice.chance(6);
        act
    }

    fn deed(&mut self, deed: Deed, act: &mut Act) {
        match deed {
            Deed::Enrol => self.enrol(act, true, None),
            Deed::EnrolBroken => self.enrol(act, false, None),
            Deed::EnrolShared => self.enrol_shared(act),
            Deed::EnrolAndBook => {
                self.enrol(act, true, None);
                let student = act.born[0].clone();
                let booking = self.book(act, &student);
                act.booked.push((self.students.len(), booking));
            }
            Deed::ComeAndGo => {
                self.enrol(act, true, None);
                let key = act.born.pop().unwrap().key;
                act.sql(&credit(&key, "1"));
                act.sql(&delete(&CONTACTS, &key));
            }
            Deed::Book => {
                if let Some(at) = self.own(|student| student.valid) {
                    let student = self.students[at].clone();
                    let booking = self.book(act, &student);
                    act.booked.push((at, booking));
                }
            }
            Deed::Credit => {
                let key = any(&mut self.dice, &self.office.contacts);
                let by = *self.dice.pick(&["1", "1", "1", "NULL"]);
                if let Some(key) = key {
                    act.sql(&credit(&key, by));
                    self.audit(act, "hubspot_contact_credits", &key);
                }
            }
            Deed::Attend => {
                let key = any(&mut self.dice, &self.office.bookings);
                if let Some(key) = key {
                    act.sql(&attend(&key, ""));
                    self.audit(act, "hubspot_sync.hubspot_bookings", &key);
                }
            }
            Deed::Note => {
                let key = any(&mut self.dice, &self.office.bookings);
                if let Some(key) = key {
                    self.audit(act, "hubspot_bookings", &key);
                }
            }
            Deed::Several => self.several(act),
            Deed::BulkCredit => act.sql(&self.bulk(&CONTACTS, "sj_credits = sj_credits + 1")),
            Deed::BulkAttend => act.sql(&self.bulk(&BOOKINGS, ATTENDED)),
            Deed::Cancel => {
                let state = *self.dice.pick(&["'Cancelled'", "'Completed'", "NULL"]);
                let key = any(&mut self.dice, &self.office.bookings);
                if let Some(key) = key {
                    act.sql(&attend(&key, &format!(", is_active = {state}")));
                    self.audit(act, "hubspot_bookings", &key);
                }
            }
            Deed::Pay | Deed::Correct | Deed::Refund => self.pay(deed, act),
            Deed::Move | Deed::Rebook | Deed::Unbook | Deed::Leave => self.change_own(deed, act),
        }
    }

    fn change_own(&mut self, deed: Deed, act: &mut Act) {
        match deed {
            Deed::Move => {
                if let Some(at) = self.own(|student| !student.shared) {
                    self.move_away(at, act);
                }
            }
            Deed::Leave => {
                if let Some(at) = self.own(|student| student.bookings.is_empty() && !student.shared) {
                    let key = self.students[at].key.clone();
                    act.sql(&delete(&CONTACTS, &key));
                    self.audit(act, "hubspot_contact_credits", &key);
                    act.gone.push(Gone::Student(at));
                }
            }
            _ => {
                let Some(at) = self.own(|student| !student.bookings.is_empty()) else {
                    return;
                };
                let key = self.dice.pick(&self.students[at].bookings).clone();
                if deed == Deed::Unbook {
                    act.sql(&delete(&BOOKINGS, &key));
                    act.gone.push(Gone::Booking(at, key));
                } else {
                    let exam = self.dice.pick(&self.office.exams).clone();
                    act.sql(&attend(&key, &format!(", mock_exam_id = '{exam}'")));
                }
            }
        }
    }

    fn pay(&mut self, deed: Deed, act: &mut Act) {
        if deed == Deed::Pay {
            self.paid += 1;
            let key = format!("{}{:06}", &self.name[1..], self.paid);
            let payer = *self.dice.pick(&["'Ada'", "'Zoë'", "NULL"]);
            let insert = format!(
                "INSERT INTO {} (id, reference, amount, payer) VALUES (1{key}, '{}/{}', 1, {payer})",
                PAYMENTS.table, self.name, self.paid
            );
            act.sql(&PAYMENTS.noted("I", &insert));
            act.paid = Some(format!("1{key}"));
        } else if !self.payments.is_empty() {
            let key = self.dice.pick(&self.payments).clone();
            if deed == Deed::Correct {
                let update = format!(
                    "UPDATE {} SET amount = amount + 1 WHERE id = {key}",
                    PAYMENTS.table
                );
                act.sql(&PAYMENTS.noted("U", &update));
            } else {
                act.sql(&delete(&PAYMENTS, &key));
                act.refunded = Some(key);
            }
        }
    }

    /// Several rows of one's own in one transaction, some of them twice.
    fn several(&mut self, act: &mut Act) {
        for _ in 0..2 + self.dice.below(4) {
            let Some(at) = self.own(|_| true) else { return };
            let student = self.students[at].clone();
            act.sql(&credit(&student.key, "2"));
            self.audit(act, "hubspot_contact_credits", &student.key);
            for booking in &student.bookings {
                act.sql(&attend(booking, ""));
            }
        }
    }

    fn enrol_shared(&mut self, act: &mut Act) {
        let twice = self.own(|student| student.valid && !student.shared && student.moved == 0);
        if let Some(at) = twice {
            let student = self.students[at].clone();
            self.enrol(act, true, Some(&student));
            // Whichever of the two HubSpot knows: neither moves nor leaves from now on.
            self.students[at].shared = true;
        }
    }

    fn enrol(&mut self, act: &mut Act, valid: bool, as_of: Option<&Student>) {
        self.enrolled += 1;
        let lastname = *self.dice.pick(&["'Žižek'", "'O''Brien'", "NULL"]);
        let student = Student {
            key: self.dice.uuid().to_string(),
            number: self.enrolled,
            bookings: Vec::new(),
            moved: 0,
            valid,
            // The record of either row may become the other's, and a null leaves what a record holds.
            lastname: as_of.map_or(lastname, |student| student.lastname),
            shared: as_of.is_some(),
        };
        let email = self.email(as_of.unwrap_or(&student));
        let insert = format!(
            "INSERT INTO {} (id, student_id, email, firstname, lastname, sj_credits, cs_credits)
             VALUES ('{}', '{}-{}', '{email}', 'F{}', {}, 1, NULL)",
            CONTACTS.table, student.key, self.name, student.number, student.number, student.lastname
        );
        act.sql(&CONTACTS.noted("I", &insert));
        self.audit(act, "hubspot_contact_credits", &student.key);
        act.born.push(student);
    }

    /// Another e-mail for a student, and for its bookings, in one transaction.
    fn move_away(&mut self, at: usize, act: &mut Act) {
        let mut student = self.students[at].clone();
        student.moved += 1;
        student.valid = true;
        let email = self.email(&student);
        act.sql(&CONTACTS.noted(
            "U",
            &format!(
                "UPDATE {} SET email = '{email}', firstname = firstname || 'x', sj_credits = sj_credits + 1
                 WHERE id = '{}'",
                CONTACTS.table, student.key
            ),
        ));
        act.sql(&BOOKINGS.noted(
            "U",
            &format!(
                "UPDATE {} SET student_email = '{email}', {ATTENDED} WHERE student_id = '{}-{}'",
                BOOKINGS.table, self.name, student.number
            ),
        ));
        act.moved.push(at);
    }

    fn email(&self, student: &Student) -> String {
        let (writer, number, moved) = (&self.name, student.number, student.moved);
        match student.valid {
            true => format!("S{number}.{moved}@{writer}.example.com"),
            false => format!("nobody at {writer} {number}"),
        }
    }

    fn book(&mut self, act: &mut Act, student: &Student) -> String {
        let key = self.dice.uuid().to_string();
        let exam = self.dice.pick(&self.office.exams).clone();
        let contact = *self.dice.pick(&["NULL", "contact.hubspot_id"]);
        let hand = *self.dice.pick(&["'left'", "'right'", "NULL"]);
        let insert = format!(
            "INSERT INTO {} (id, booking_id, mock_exam_id, contact_id, student_id, student_name, student_email,
                 is_active, attendance, exam_date, dominant_hand, token_used, idempotency_key)
             SELECT '{key}', 'b-{key}', '{exam}', {contact}, contact.student_id, contact.firstname, contact.email,
                 'Active', 'v1', '2027-03-04 09:00', {hand}, 'Shared', 'i-{key}'
             FROM {} AS contact WHERE contact.id = '{}'",
            BOOKINGS.table, CONTACTS.table, student.key
        );
        act.sql(&BOOKINGS.noted("I", &insert));
        self.audit(act, "hubspot_bookings", &key);
        key
    }

    fn audit(&mut self, act: &mut Act, table: &str, key: &str) {
        if self.dice.chance(40) {
            act.sql(&format!(
                "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
                 VALUES ('{table}', '{key}', 'UPDATE')"
            ));
        }
    }

    /// Many rows of one's own in one statement.
    fn bulk(&mut self, kind: &Kind, set: &str) -> String {
        let offset = self.dice.below(10);
        kind.noted(
            "U",
            &format!(
                "UPDATE {} SET {set} WHERE id IN
                     (SELECT id FROM {} WHERE student_id LIKE '{}-%' ORDER BY id LIMIT 60 OFFSET {offset})",
                kind.table, kind.table, self.name
            ),
        )
    }

    fn own(&mut self, fits: impl Fn(&Student) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.students.len())
            .filter(|at| fits(&self.students[*at]))
            .collect();
        (!fitting.is_empty()).then(|| *self.dice.pick(&fitting))
    }
}

/// A committed row, whosever.
fn any(dice: &mut Dice, of: &Mutex<Vec<String>>) -> Option<String> {
    let of = of.lock().unwrap();
    (!of.is_empty()).then(|| dice.pick(&of).clone())
}

impl Act {
    fn sql(&mut self, sql: &str) {
        self.steps.push(Step::Sql(sql.to_owned()));
    }
}

const ATTENDED: &str = "attendance = 'v' || (substr(attendance, 2)::integer + 1)";

fn credit(key: &str, others: &str) -> String {
    CONTACTS.noted(
        "U",
        &format!(
            "UPDATE {} SET sj_credits = sj_credits + 1, shared_mock_credits = {others}, cs_credits = coalesce(cs_credits, 0) + {others}
             WHERE id = '{key}'",
            CONTACTS.table
        ),
    )
}

fn attend(key: &str, more: &str) -> String {
    BOOKINGS.noted(
        "U",
        &format!(
            "UPDATE {} SET {ATTENDED}{more} WHERE id = '{key}'",
            BOOKINGS.table
        ),
    )
}

/// Deletes a row, also one whose record is only being made.
fn delete(kind: &Kind, key: &str) -> String {
    kind.noted("D", &format!("DELETE FROM {} WHERE id = '{key}'", kind.table))
}

async fn perform(session: &Session, act: &Act) -> Result<(), tokio_postgres::Error> {
    session.batch_execute("BEGIN").await?;
    for step in &act.steps {
        match step {
            Step::Sql(sql) => session.batch_execute(sql).await?,
            Step::Pause(pause) => tokio::time::sleep(*pause).await,
        }
    }
    session
        .batch_execute(if act.rolls_back { "ROLLBACK" } else { "COMMIT" })
        .await
}
