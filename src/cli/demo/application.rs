//! The application: what its users do, each as one transaction with its audit entries, as the application would write
//! them.
//!
//! It never changes a create-only column of a row that has its HubSpot id, so that at the end the rows alone say what
//! HubSpot must hold.

use super::latency::{Find, Watch};
use super::people::{KINDS, SHARED_CREDITS};
use super::school::{
    BOOKING_COLUMNS, BOOKINGS, CONTACTS, EXAMS, STUDENT_COLUMNS, School, State, Student, student_row,
};
use crate::postgres::quote::literal;
use std::fmt::Write as _;

/// How often a throw is repeated until it finds somebody who can do what was thrown.
const THROWS_MAX: usize = 50;

/// A transaction of the application.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Its statements.
    pub(super) sql: String,
    /// How many rows it changes, audit entries not counted.
    pub(super) rows: u64,
    /// By what it is known to have arrived in HubSpot.
    pub(super) watches: Vec<Watch>,
    /// What happened, for people.
    pub(super) told: String,
}

/// A student whose row HubSpot does not take, until the office corrects the address.
#[derive(Debug)]
struct Mistake {
    student: Student,
    correct: String,
}

/// The application at work.
#[derive(Debug)]
pub(super) struct Application {
    school: School,
    mistakes: Vec<Mistake>,
}

impl Application {
    pub(super) fn new(school: School) -> Application {
        Application {
            school,
            mistakes: Vec::new(),
        }
    }

    /// What some user does next.
    pub(super) fn next(&mut self) -> Change {
        let done = match self.school.dice.below(100) {
            0..40 => self.book(),
            40..60 => self.cancel(),
            60..75 => self.attend(),
            75..88 => None,
            _ => return self.enrol(),
        };
        done.unwrap_or_else(|| self.buy())
    }

    /// How long until then, in milliseconds.
    pub(super) fn pause_ms(&mut self) -> u64 {
        120 + u64::try_from(self.school.dice.below(400)).unwrap_or_default()
    }

    /// A student who can pay books an exam.
    fn book(&mut self) -> Option<Change> {
        for _ in 0..THROWS_MAX {
            let student = self.school.dice.below(self.school.students.len());
            let exam = self.school.dice.below(self.school.exams.len());
            let kind = self.school.exams[exam].kind;
            let purse = &self.school.students[student];
            if purse.credits[kind] > 0 || (kind < 2 && purse.shared > 0) {
                return Some(self.book_exam(Change::default(), student, exam));
            }
        }
        None
    }

    fn book_exam(&mut self, mut change: Change, student: usize, exam: usize) -> Change {
        let kind = self.school.exams[exam].kind;
        let purse = &mut self.school.students[student];
        let own = purse.credits[kind] > 0;
        if own {
            purse.credits[kind] -= 1;
        } else {
            purse.shared -= 1;
        }
        self.school.exams[exam].booked += 1;
        let booking = self.school.new_booking(student, exam);
        let row = self.school.booking_row(&booking);
        let _ = write!(
            change.sql,
            "INSERT INTO hubspot_sync.hubspot_bookings ({BOOKING_COLUMNS}) VALUES {row};"
        );
        change.wrote("hubspot_bookings", &booking.key, "INSERT", "booking-form");
        change.watch_booking(&booking.booking_id, "is_active", "Active");
        self.write_credits(&mut change, student, (!own).then_some(SHARED_CREDITS), kind);
        self.write_exam(&mut change, exam);
        if change.told.is_empty() {
            let (student, exam) = (&self.school.students[student], &self.school.exams[exam]);
            change.told = format!("{} books {}, {}", student.name(), KINDS[kind].name, exam.city);
        }
        self.school.bookings.push(booking);
        change
    }

    /// A booking is cancelled and its credit given back.
    fn cancel(&mut self) -> Option<Change> {
        let (at, mut change) = self.end_booking(
            State::Cancelled,
            "token_refunded = 'Yes', is_active = 'Cancelled'",
        )?;
        let booking = &self.school.bookings[at];
        let (student, exam) = (booking.student, booking.exam);
        let kind = self.school.exams[exam].kind;
        self.school.students[student].credits[kind] += 1;
        self.school.exams[exam].booked -= 1;
        self.write_credits(&mut change, student, None, kind);
        self.write_exam(&mut change, exam);
        change.told = format!(
            "{} cancels {}",
            self.school.students[student].name(),
            KINDS[kind].name
        );
        Some(change)
    }

    /// Somebody came to an exam.
    fn attend(&mut self) -> Option<Change> {
        let (at, mut change) =
            self.end_booking(State::Completed, "attendance = 'Yes', is_active = 'Completed'")?;
        let booking = &self.school.bookings[at];
        let kind = &KINDS[self.school.exams[booking.exam].kind];
        change.told = format!(
            "{} sat {}",
            self.school.students[booking.student].name(),
            kind.name
        );
        Some(change)
    }

    fn end_booking(&mut self, state: State, set: &str) -> Option<(usize, Change)> {
        let mut thrown = (0..THROWS_MAX).map(|_| self.school.dice.below(self.school.bookings.len()));
        let at = thrown.find(|at| self.school.bookings[*at].state == State::Active)?;
        let booking = &mut self.school.bookings[at];
        booking.state = state;
        let mut change = Change::default();
        let _ = write!(
            change.sql,
            "UPDATE hubspot_sync.hubspot_bookings SET {set}, updated_at = now() WHERE id = '{}';",
            booking.key
        );
        change.wrote("hubspot_bookings", &booking.key, "UPDATE", "office");
        change.watch_booking(&booking.booking_id, "is_active", state.word());
        Some((at, change))
    }

    /// A student buys credits.
    fn buy(&mut self) -> Change {
        let student = self.school.dice.below(self.school.students.len());
        let kind = self.school.dice.below(KINDS.len());
        let bought = [1, 3, 5][self.school.dice.below(3)];
        self.school.students[student].credits[kind] += bought;
        let mut change = Change::default();
        self.write_credits(&mut change, student, None, kind);
        let name = self.school.students[student].name();
        change.told = format!("{name} buys {bought} of {}", KINDS[kind].credits);
        change
    }

    /// A new student registers and books at once: the booking cannot name a contact that HubSpot does not know yet.
    fn enrol(&mut self) -> Change {
        let mut student = self.school.new_student();
        let exam = self.school.dice.below(self.school.exams.len());
        student.credits[self.school.exams[exam].kind] += 1;
        let mut change = Change::enrols(&student);
        change.told = format!(
            "{} is new and books {}",
            student.name(),
            KINDS[self.school.exams[exam].kind].name
        );
        self.school.students.push(student);
        self.book_exam(change, self.school.students.len() - 1, exam)
    }

    /// A new student whose address has a comma for a dot, which HubSpot refuses.
    pub(super) fn misspell(&mut self) -> Change {
        let mut student = self.school.new_student();
        let correct = student.email.clone();
        student.email = correct.replace(".com", ",com").replace(".org", ",org");
        let told = format!("{} registers; the e-mail has a comma for a dot", student.name());
        self.err(student, correct, told)
    }

    /// A new student who gives the address of another: HubSpot knows one contact an address.
    pub(super) fn share(&mut self) -> Change {
        let mut student = self.school.new_student();
        let correct = student.email.clone();
        let sibling = &self.school.students[self.school.dice.below(self.school.students.len())];
        student.email.clone_from(&sibling.email);
        let told = format!(
            "{} registers with the e-mail of {}",
            student.name(),
            sibling.name()
        );
        self.err(student, correct, told)
    }

    fn err(&mut self, student: Student, correct: String, told: String) -> Change {
        let mut change = Change::enrols(&student);
        change.watches.clear();
        change.told = told;
        self.mistakes.push(Mistake { student, correct });
        change
    }

    /// The office corrects the oldest mistake.
    pub(super) fn correct(&mut self) -> Option<Change> {
        if self.mistakes.is_empty() {
            return None;
        }
        let Mistake { mut student, correct } = self.mistakes.remove(0);
        student.email = correct;
        let mut change = Change::default();
        let _ = write!(
            change.sql,
            "UPDATE hubspot_sync.hubspot_contact_credits SET email = {}, updated_at = now() WHERE id = '{}';",
            literal(&student.email),
            student.key
        );
        change.wrote("hubspot_contact_credits", &student.key, "UPDATE", "office");
        change.watch_contact(&student.student_id, "email", &student.email);
        change.told = format!("the office corrects the e-mail of {}", student.name());
        self.school.students.push(student);
        Some(change)
    }

    /// A student whose contact is surely in HubSpot: the student id.
    pub(super) fn anybody(&mut self) -> String {
        let at = self.school.dice.below(self.school.students.len() / 2);
        self.school.students[at].student_id.clone()
    }

    fn write_credits(&self, change: &mut Change, student: usize, column: Option<&'static str>, kind: usize) {
        let student = &self.school.students[student];
        let (column, credits) = match column {
            Some(column) => (column, student.shared),
            None => (KINDS[kind].credits, student.credits[kind]),
        };
        let _ = write!(
            change.sql,
            "UPDATE hubspot_sync.hubspot_contact_credits SET {column} = {credits}, updated_at = now() WHERE id = '{}';",
            student.key
        );
        change.wrote("hubspot_contact_credits", &student.key, "UPDATE", "booking-form");
        change.watch_contact(&student.student_id, column, &credits.to_string());
    }

    fn write_exam(&self, change: &mut Change, exam: usize) {
        let exam = &self.school.exams[exam];
        let _ = write!(
            change.sql,
            "UPDATE hubspot_sync.hubspot_mock_exams SET total_bookings = {} WHERE id = '{}';",
            exam.booked, exam.key
        );
        change.wrote("hubspot_mock_exams", &exam.key, "UPDATE", "booking-form");
        change.watches.push(Watch {
            object: EXAMS,
            find: Find::Id(exam.hubspot_id.clone()),
            property: "total_bookings",
            value: exam.booked.to_string(),
        });
    }
}

impl Change {
    fn enrols(student: &Student) -> Change {
        let mut change = Change::default();
        let row = student_row(student);
        let _ = write!(
            change.sql,
            "INSERT INTO hubspot_sync.hubspot_contact_credits ({STUDENT_COLUMNS}) VALUES {row};"
        );
        change.wrote("hubspot_contact_credits", &student.key, "INSERT", "registration");
        change
    }

    /// Counts a row and writes its audit entry.
    fn wrote(&mut self, table: &str, key: &str, operation: &str, who: &str) {
        self.rows += 1;
        let _ = write!(
            self.sql,
            "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation, performed_by)
             VALUES ('{table}', '{key}', '{operation}', '{who}');"
        );
    }

    fn watch_contact(&mut self, student_id: &str, property: &'static str, value: &str) {
        self.watches.push(Watch {
            object: CONTACTS,
            find: Find::By("student_id", student_id.to_owned()),
            property,
            value: value.to_owned(),
        });
    }

    fn watch_booking(&mut self, booking_id: &str, property: &'static str, value: &str) {
        self.watches.push(Watch {
            object: BOOKINGS,
            find: Find::By("booking_id", booking_id.to_owned()),
            property,
            value: value.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Application, School};
    use crate::sandbox::{Sandbox, Settings};

    async fn told(seed: u64) -> (String, Vec<String>) {
        let settings = Settings {
            seed,
            ..Settings::default()
        };
        let sandbox = Sandbox::tutoring(settings).await.unwrap();
        let school = School::found(seed, &mut sandbox.world());
        let sql = school.sql();
        let mut application = Application::new(school);
        let changes = (0..200).map(|_| application.next().sql);
        (sql, changes.collect())
    }

    #[tokio::test]
    async fn a_seed_decides_data_and_changes() {
        let first = told(3).await;
        assert_eq!(first, told(3).await);
        let other = told(4).await;
        assert_ne!(first.0, other.0);
        assert_ne!(first.1, other.1);
    }
}
