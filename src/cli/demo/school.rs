//! The school: students, exams and bookings as the application knows them, and how both ends stand when it begins.
//!
//! It begins in the middle of a life: most students and bookings are in HubSpot already, some of them with values that
//! have changed since, some students only as a bare contact that a newsletter made, and some not at all. Exams are
//! made in HubSpot by an administrator.

use super::dice::Dice;
use super::people::{self, CITIES, KINDS};
use crate::postgres::quote::literal;
use crate::sandbox::World;
use jiff::ToSpan;
use jiff::civil::Date;

/// HubSpot's object types.
pub(super) const CONTACTS: &str = "0-1";
pub(super) const BOOKINGS: &str = "2-50158943";
pub(super) const EXAMS: &str = "2-50158913";

const STUDENTS: usize = 320;
const STUDENTS_IN_HUBSPOT: usize = 240;
/// Those after them are in HubSpot, but their rows do not know it.
const STUDENTS_BARE: usize = 20;
const EXAM_COUNT: usize = 24;
const BOOKING_COUNT: usize = 420;
const BOOKINGS_IN_HUBSPOT: usize = 300;

/// The first day on which an exam is sat.
const FIRST_DAY: Date = jiff::civil::date(2027, 1, 9);

/// A student.
#[derive(Debug, Clone)]
pub(super) struct Student {
    pub(super) key: String,
    pub(super) student_id: String,
    pub(super) email: String,
    pub(super) first: &'static str,
    pub(super) last: &'static str,
    /// By kind of exam.
    pub(super) credits: [i32; KINDS.len()],
    pub(super) shared: i32,
    hubspot_id: Option<String>,
}

/// A mock exam.
#[derive(Debug, Clone)]
pub(super) struct Exam {
    pub(super) key: String,
    pub(super) hubspot_id: String,
    pub(super) kind: usize,
    pub(super) day: Date,
    pub(super) city: &'static str,
    pub(super) booked: i32,
}

/// How a booking stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Cancelled,
    Completed,
}

/// A booking.
#[derive(Debug, Clone)]
pub(super) struct Booking {
    pub(super) key: String,
    pub(super) booking_id: String,
    /// Positions in the school.
    pub(super) student: usize,
    pub(super) exam: usize,
    pub(super) state: State,
    hubspot_id: Option<String>,
}

/// What the application knows.
#[derive(Debug)]
pub(super) struct School {
    pub(super) dice: Dice,
    pub(super) students: Vec<Student>,
    pub(super) exams: Vec<Exam>,
    pub(super) bookings: Vec<Booking>,
    /// How many students were ever made up, those of no list included.
    enrolled: usize,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Active => "Active",
            State::Cancelled => "Cancelled",
            State::Completed => "Completed",
        }
    }
}

impl Student {
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.first, self.last)
    }
}

impl School {
    /// A school from a seed, and the part of it that HubSpot knows, written into a portal's world.
    pub(super) fn found(seed: u64, world: &mut World) -> School {
        let mut school = School {
            dice: Dice::seeded(seed),
            students: Vec::new(),
            exams: Vec::new(),
            bookings: Vec::new(),
            enrolled: 0,
        };
        for _ in 0..STUDENTS {
            let student = school.new_student();
            school.students.push(student);
        }
        for number in 0..EXAM_COUNT {
            school.add_exam(number, world);
        }
        for _ in 0..BOOKING_COUNT {
            let (student, exam) = (school.dice.below(STUDENTS), school.dice.below(EXAM_COUNT));
            let booking = school.new_booking(student, exam);
            school.add_past_booking(booking);
        }
        school.tell_hubspot(world);
        school
    }

    /// A student who is in no list yet.
    pub(super) fn new_student(&mut self) -> Student {
        self.enrolled += 1;
        let number = self.enrolled;
        let (first, last) = people::name(&mut self.dice);
        let dice = &mut self.dice;
        let credits = std::array::from_fn(|_| credits(dice.below(6)));
        Student {
            key: dice.uuid(),
            student_id: (1_000_000 + 17 * number).to_string(),
            email: people::email(first, last, number),
            first,
            last,
            credits,
            shared: credits_shared(dice.below(8)),
            hubspot_id: None,
        }
    }

    /// An active booking that is in no list yet.
    pub(super) fn new_booking(&mut self, student: usize, exam: usize) -> Booking {
        Booking {
            key: self.dice.uuid(),
            booking_id: format!(
                "{}-{}",
                KINDS[self.exams[exam].kind].name,
                20_000 + self.bookings.len()
            ),
            student,
            exam,
            state: State::Active,
            hubspot_id: None,
        }
    }

    fn add_exam(&mut self, number: usize, world: &mut World) {
        let kind = number % KINDS.len();
        let day = FIRST_DAY.saturating_add(i64::try_from(number * 4).unwrap_or_default().days());
        let city = *self.dice.pick(&CITIES);
        let name = format!("{} {day} {city}", KINDS[kind].name);
        let hubspot_id = world.create(
            EXAMS,
            [
                ("mock_exam_name", name.as_str()),
                ("mock_type", KINDS[kind].name),
                ("exam_date", day.to_string().as_str()),
                ("location", city),
                ("total_bookings", "0"),
            ],
        );
        self.exams.push(Exam {
            key: self.dice.uuid(),
            hubspot_id,
            kind,
            day,
            city,
            booked: 0,
        });
    }

    fn add_past_booking(&mut self, mut booking: Booking) {
        booking.state = match self.dice.below(10) {
            0 => State::Cancelled,
            1 | 2 => State::Completed,
            _ => State::Active,
        };
        if booking.state != State::Cancelled {
            self.exams[booking.exam].booked += 1;
        }
        self.bookings.push(booking);
    }

    /// Writes what HubSpot knows already.
    fn tell_hubspot(&mut self, world: &mut World) {
        for (number, student) in self.students.iter_mut().enumerate() {
            if number < STUDENTS_IN_HUBSPOT {
                student.hubspot_id = Some(known_contact(student, number.is_multiple_of(12), world));
            } else if number < STUDENTS_IN_HUBSPOT + STUDENTS_BARE {
                world.create(
                    CONTACTS,
                    [("email", student.email.as_str()), ("firstname", student.first)],
                );
            }
        }
        let known: Vec<usize> = (0..self.bookings.len())
            .filter(|at| self.students[self.bookings[*at].student].hubspot_id.is_some())
            .take(BOOKINGS_IN_HUBSPOT)
            .collect();
        for at in known {
            let id = self.known_booking(at, world);
            self.bookings[at].hubspot_id = Some(id);
        }
    }

    fn known_booking(&self, at: usize, world: &mut World) -> String {
        let booking = &self.bookings[at];
        let (student, exam) = (&self.students[booking.student], &self.exams[booking.exam]);
        let (name, day, idempotency) = (student.name(), exam.day.to_string(), idempotency_key(booking));
        let mut values = vec![
            ("booking_id", booking.booking_id.as_str()),
            ("student_id", &student.student_id),
            ("student_name", &name),
            ("student_email", &student.email),
            ("mock_exam_id", &exam.hubspot_id),
            ("is_active", booking.state.word()),
            ("token_used", KINDS[exam.kind].token),
            ("attending_location", exam.city),
            ("exam_date", &day),
            ("idempotency_key", &idempotency),
        ];
        values.extend(dominant_hand(booking).map(|hand| ("dominant_hand", hand)));
        values.extend(attendance(booking).map(|attendance| ("attendance", attendance)));
        let id = world.create(BOOKINGS, values);
        if let Some(contact) = &student.hubspot_id {
            world.associate((BOOKINGS, &id), (CONTACTS, contact));
        }
        world.associate((BOOKINGS, &id), (EXAMS, &exam.hubspot_id));
        id
    }

    /// The SQL that fills the application's tables.
    pub(super) fn sql(&self) -> String {
        let exams: Vec<String> = self.exams.iter().map(exam_row).collect();
        let students: Vec<String> = self.students.iter().map(student_row).collect();
        let bookings: Vec<String> = self
            .bookings
            .iter()
            .map(|booking| self.booking_row(booking))
            .collect();
        format!(
            "INSERT INTO hubspot_sync.hubspot_mock_exams (id, hubspot_id, mock_exam_name, mock_type, exam_date, \
             location, capacity, total_bookings, is_active) VALUES {};
             INSERT INTO hubspot_sync.hubspot_contact_credits ({STUDENT_COLUMNS}) VALUES {};
             INSERT INTO hubspot_sync.hubspot_bookings ({BOOKING_COLUMNS}) VALUES {};
             INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, record_hubspot_id, operation, \
             performed_by, performed_at, synced_to_hubspot_at)
             SELECT 'hubspot_contact_credits', id, hubspot_id, 'INSERT', 'registration', now() - interval '2 days',
                    CASE WHEN hubspot_id IS NOT NULL THEN now() - interval '47 hours' END
             FROM hubspot_sync.hubspot_contact_credits
             UNION ALL
             SELECT 'hubspot_bookings', id, hubspot_id, 'INSERT', 'booking-form', now() - interval '1 day',
                    CASE WHEN hubspot_id IS NOT NULL THEN now() - interval '23 hours' END
             FROM hubspot_sync.hubspot_bookings",
            exams.join(", "),
            students.join(", "),
            bookings.join(", ")
        )
    }

    /// A booking's row, in the order of [`BOOKING_COLUMNS`].
    pub(super) fn booking_row(&self, booking: &Booking) -> String {
        let (student, exam) = (&self.students[booking.student], &self.exams[booking.exam]);
        // The application knows the contact's HubSpot id where it has been written back by then.
        let contact = format!(
            "(SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits WHERE id = '{}')",
            student.key
        );
        format!(
            "('{}', {}, {}, {}, {contact}, {}, {}, {}, {}, {}, {}, '{} 09:00', {}, {}, {})",
            booking.key,
            optional(booking.hubspot_id.as_deref()),
            literal(&booking.booking_id),
            literal(&exam.hubspot_id),
            literal(&student.student_id),
            literal(&student.name()),
            literal(&student.email),
            literal(booking.state.word()),
            optional(attendance(booking)),
            literal(exam.city),
            exam.day,
            optional(dominant_hand(booking)),
            literal(KINDS[exam.kind].token),
            literal(&idempotency_key(booking)),
        )
    }
}

/// The columns of a booking that the application writes.
pub(super) const BOOKING_COLUMNS: &str = "id, hubspot_id, booking_id, mock_exam_id, contact_id, student_id, \
    student_name, student_email, is_active, attendance, attending_location, exam_date, dominant_hand, token_used, \
    idempotency_key";

/// The columns of a student that the application writes.
pub(super) const STUDENT_COLUMNS: &str = "id, hubspot_id, student_id, email, firstname, lastname, sj_credits, \
    cs_credits, sjmini_credits, mock_discussion_token, shared_mock_credits";

/// A student's row, in the order of [`STUDENT_COLUMNS`].
pub(super) fn student_row(student: &Student) -> String {
    // The application writes no zero where nothing was ever bought.
    let credits = student.credits.iter().chain([&student.shared]);
    let credits: Vec<String> = credits
        .map(|credits| match credits {
            0 => "NULL".to_owned(),
            credits => credits.to_string(),
        })
        .collect();
    format!(
        "('{}', {}, {}, {}, {}, {}, {})",
        student.key,
        optional(student.hubspot_id.as_deref()),
        literal(&student.student_id),
        literal(&student.email),
        literal(student.first),
        literal(student.last),
        credits.join(", ")
    )
}

fn exam_row(exam: &Exam) -> String {
    format!(
        "('{}', {}, {}, {}, '{}', {}, 40, {}, 'Active')",
        exam.key,
        literal(&exam.hubspot_id),
        literal(&format!("{} {} {}", KINDS[exam.kind].name, exam.day, exam.city)),
        literal(KINDS[exam.kind].name),
        exam.day,
        literal(exam.city),
        exam.booked
    )
}

/// A student's contact in HubSpot; a stale one misses what was bought since.
fn known_contact(student: &Student, stale: bool, world: &mut World) -> String {
    let credits = student.credits.map(|credits| credits.to_string());
    let shared = if stale { 0 } else { student.shared }.to_string();
    let mut values = vec![
        ("student_id", student.student_id.as_str()),
        ("email", &student.email),
        ("firstname", student.first),
        ("lastname", student.last),
        (people::SHARED_CREDITS, &shared),
    ];
    values.extend(
        KINDS
            .iter()
            .map(|kind| kind.credits)
            .zip(credits.iter().map(String::as_str)),
    );
    world.create(CONTACTS, values)
}

fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), literal)
}

fn credits(thrown: usize) -> i32 {
    i32::try_from(thrown).unwrap_or_default()
}

/// Few students have any.
fn credits_shared(thrown: usize) -> i32 {
    if thrown < 6 { 0 } else { credits(thrown) - 5 }
}

/// Where it matters; not everybody says.
fn dominant_hand(booking: &Booking) -> Option<&'static str> {
    match booking.key.as_bytes().first()? {
        b'0'..=b'2' => None,
        b'3' => Some("Left"),
        _ => Some("Right"),
    }
}

fn attendance(booking: &Booking) -> Option<&'static str> {
    (booking.state == State::Completed).then_some("Yes")
}

fn idempotency_key(booking: &Booking) -> String {
    format!("bk_{}", &booking.key[..13])
}
