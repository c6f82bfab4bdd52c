//! What the application's statements write.

use super::capture::natural_key;
use super::model::{Columns, Row, Transaction};
use super::scene::{BOOKINGS, CONTACTS, EXAMS, PAYMENT, PAYMENTS};
use super::script::{BAD, NOBODY, Script};
use hubsyncd::sync::change::Key;

impl Script {
    fn text(&mut self, of: &str, kinds: u64) -> Option<String> {
        Some(format!("{of}{}", self.dice.below(kinds)))
    }

    fn refused(&mut self) -> bool {
        self.world.is_troubled() && self.dice.permille(self.world.trouble.refusals)
    }

    /// Writes a row and, often, an audit entry.
    pub fn write(&mut self, transaction: &mut Transaction, object: usize, key: &Key, row: Option<Row>) {
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

    pub fn new_contact(&mut self, transaction: &mut Transaction) -> Option<(String, String)> {
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

    pub fn new_booking(&mut self, transaction: &mut Transaction, of: Option<(String, String)>) {
        self.made += 1;
        let student = of.or_else(|| self.some_student(transaction));
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
            ("proctor_id".to_owned(), self.proctor()),
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

    fn some_student(&mut self, transaction: &Transaction) -> Option<(String, String)> {
        let key = self.some_key(CONTACTS)?;
        let row = self.world.model().seen(transaction, CONTACTS, &key)?;
        let cell = |name: &str| row.columns.get(name).cloned().flatten();
        Some((cell("student_id")?, cell("email")?))
    }

    fn payment(&mut self) -> (Key, Row) {
        self.made += 1;
        let payer = if self.refused() {
            Some(BAD.to_owned())
        } else {
            self.text("P", 5)
        };
        let columns = Columns::from([
            ("reference".to_owned(), Some(format!("R{}", self.made))),
            ("payer".to_owned(), payer),
            ("amount".to_owned(), self.text("", 90)),
        ]);
        let row = Row {
            columns,
            unwritable: self.refused(),
            ..Row::default()
        };
        (Key::from(format!("p{}", self.made)), row)
    }

    pub fn new_payment(&mut self, transaction: &mut Transaction) {
        let (key, row) = self.payment();
        self.write(transaction, PAYMENTS, &key, Some(row));
    }

    /// A row comes in while there is no trigger; an old program may have made its record.
    pub fn come_unnamed(&mut self) {
        let (key, row) = self.payment();
        let known = self.dice.permille(500);
        if let Some(reference) = row.columns["reference"].clone().filter(|_| known) {
            self.make_record(PAYMENT, "reference", &reference);
        }
        self.world
            .trace(format_args!("app: {key} comes in unnamed: {}", shown(Some(&row))));
        let captured = vec![row.columns.clone()];
        let row = Row { captured, ..row };
        self.world.model().put(PAYMENTS, &key, row);
    }

    pub fn exam(&mut self) -> Option<String> {
        if self.refused() {
            return Some(NOBODY.to_owned());
        }
        let some = self.dice.permille(800);
        self.dice.pick(&self.exams).cloned().filter(|_| some)
    }

    /// The HubSpot id of some contact, or none.
    fn proctor(&mut self) -> Option<String> {
        if !self.world.scene.wide || self.dice.permille(600) {
            return None;
        }
        self.some_contact()
    }

    pub fn some_contact(&mut self) -> Option<String> {
        let key = self.some_key(CONTACTS)?;
        self.world.model().tables[CONTACTS].get(&key)?.hubspot_id.clone()
    }

    fn some_key(&mut self, object: usize) -> Option<Key> {
        let keys: Vec<Key> = self.world.model().tables[object].keys().cloned().collect();
        self.dice.pick(&keys).cloned()
    }

    /// Some row that the transaction may write.
    pub fn some_row(&mut self, transaction: &Transaction, object: usize) -> Option<(Key, Row)> {
        let key = self.some_key(object)?;
        let row = self.world.model().seen(transaction, object, &key)?;
        Some((key, row))
    }

    pub fn change(&mut self, transaction: &mut Transaction, object: usize) {
        let Some((key, mut row)) = self.some_row(transaction, object) else {
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
            (PAYMENTS, 0..7) => set("amount", self.text("", 90).filter(|_| self.dice.permille(900))),
            (PAYMENTS, 7) => set("payer", self.text("P", 5)),
            // A natural key that changes while a create under the old one may be on its way.
            (PAYMENTS, 8) if row.hubspot_id.is_none() => {
                self.made += 1;
                set("reference", Some(format!("R{}", self.made)));
            }
            (PAYMENTS, _) => row.unwritable = false,
            (EXAMS, _) => set("total_bookings", self.text("", 40)),
            _ => {}
        }
        self.write(transaction, object, &key, Some(row));
    }

    /// Writes another number of credits.
    pub fn credit(&mut self, transaction: &mut Transaction, key: &Key) {
        let Some(mut row) = self.world.model().seen(transaction, CONTACTS, key) else {
            return;
        };
        let credits = 100 + self.dice.below(900);
        row.columns
            .insert("sj_credits".to_owned(), Some(credits.to_string()));
        self.write(transaction, CONTACTS, key, Some(row));
    }

    pub fn delete(&mut self, transaction: &mut Transaction, object: Option<usize>) {
        let object = object.unwrap_or(if self.dice.permille(300) {
            CONTACTS
        } else {
            BOOKINGS
        });
        let Some((key, row)) = self.some_row(transaction, object) else {
            return;
        };
        self.ended.push((object, key.clone(), row));
        self.write(transaction, object, &key, None);
    }

    /// An update that changes nothing, or takes a row's id away.
    pub fn same_again(&mut self, transaction: &mut Transaction) {
        let objects = if self.world.scene.wide { 3 } else { 2 };
        let object = [CONTACTS, BOOKINGS, PAYMENTS][usize::try_from(self.dice.below(objects)).unwrap_or(0)];
        let Some((key, mut row)) = self.some_row(transaction, object) else {
            return;
        };
        if self.dice.permille(100) {
            row.hubspot_id = None;
        }
        self.write(transaction, object, &key, Some(row));
    }

    /// Two contacts exchange their e-mail addresses.
    pub fn swap_emails(&mut self, transaction: &mut Transaction) {
        let one = self.some_row(transaction, CONTACTS);
        let other = self.some_row(transaction, CONTACTS);
        let (Some((first, mut one)), Some((second, mut other))) = (one, other) else {
            return;
        };
        if first == second {
            return;
        }
        let email = |row: &Row| row.columns.get("email").cloned().flatten();
        let (ones, others) = (email(&one), email(&other));
        one.columns.insert("email".to_owned(), others);
        other.columns.insert("email".to_owned(), ones);
        self.write(transaction, CONTACTS, &first, Some(one));
        self.write(transaction, CONTACTS, &second, Some(other));
    }

    /// A deleted row comes back, under its key or another, with its old id or without.
    pub fn come_back(&mut self, transaction: &mut Transaction) {
        if self.ended.is_empty() {
            return;
        }
        let at = usize::try_from(self.dice.below(self.ended.len() as u64)).unwrap_or(0);
        let (object, mut key, mut row) = self.ended.swap_remove(at);
        if self.dice.permille(500) {
            self.made += 1;
            key = Key::from(format!("k{}", self.made));
        }
        if self.dice.permille(700) {
            row.hubspot_id = None;
            row.chosen = None;
        }
        let free = {
            let mut model = self.world.model();
            let table = &model.tables[object];
            let id = row.hubspot_id.as_ref();
            let taken = id.is_some() && table.values().any(|other| other.hubspot_id.as_ref() == id);
            let declared = &model.mapping.objects[object];
            let value = natural_key(declared, &row).unwrap_or_default();
            let mut others = table.values().filter_map(|other| natural_key(declared, other));
            let place = (object, key.clone());
            let free = !table.contains_key(&key) && !model.locks.contains(&place);
            // Each natural key comes back once, so that no two open transactions bring it.
            free && !taken
                && others.all(|other| other != value)
                && model.ledger.returned.insert((object, value))
        };
        if free {
            let brought = row.hubspot_id.clone().map(|id| (object, id));
            self.world.model().ledger.brought.extend(brought);
            self.write(transaction, object, &key, Some(row));
        }
    }

    /// The application writes into a row the id of a record that a person has made for it.
    pub fn choose(&mut self, transaction: &mut Transaction) {
        let Some((key, mut row)) = self.some_row(transaction, PAYMENTS) else {
            return;
        };
        row.hubspot_id = Some(self.make_record(PAYMENT, "amount", ""));
        self.write(transaction, PAYMENTS, &key, Some(row));
    }

    /// Somebody makes a record.
    pub fn make_record(&mut self, object_type: &str, property: &str, value: &str) -> String {
        self.world.tick();
        let values = Some((property, value)).filter(|_| !value.is_empty());
        let id = self.world.portal.world().create(object_type, values);
        self.world.trace(format_args!(
            "somebody makes {object_type} {id} {property}={value}"
        ));
        let ledger = &mut self.world.model().ledger;
        ledger.foreign.insert((object_type.to_owned(), id.clone()));
        if !value.is_empty() {
            let key = (object_type.to_owned(), value.to_lowercase());
            ledger.foreign_keys.insert(key);
        }
        id
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
