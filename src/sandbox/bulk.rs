//! Many records at once: a portal that has been in use for years, and what HubSpot's own jobs do to it.

use super::clock::{Dice, instant_text};
use super::object_type::{Record, Values};
use super::property::Name;
use super::standard::{COMPANIES, CONTACTS, DEAL_STAGES, DEALS, LIFECYCLE};
use super::world::World;

const DAY_MS: i64 = 86_400_000;
/// How long the portal has been in use.
const AGE_MS: i64 = 5 * 365 * DAY_MS;
/// One contact of so many works for the largest company, so that its list of contacts is a long one.
const LARGEST_SHARE: usize = 100;

const FIRST: [&str; 24] = [
    "Aaliyah", "Bilal", "Chloé", "Dmitri", "Elena", "Farid", "Grace", "Hiroshi", "Ines", "Jakub", "Kavya",
    "Liam", "Mei", "Nikolai", "Olivia", "Priya", "Quentin", "Rosa", "Søren", "Tamara", "Uma", "Víctor",
    "Wanjiru", "Yusuf",
];
const LAST: [&str; 24] = [
    "Abbott",
    "Brandt",
    "Castillo",
    "Dubois",
    "Eriksson",
    "Fernandes",
    "Goldberg",
    "Hughes",
    "Ivanov",
    "Jensen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "O'Brien",
    "Papadopoulos",
    "Quinn",
    "Rossi",
    "Schneider",
    "Tanaka",
    "Ueda",
    "Vargas",
    "Williams",
    "Yilmaz",
];
const TRADE: [&str; 12] = [
    "Dental",
    "Orthodontics",
    "Logistics",
    "Analytics",
    "Foods",
    "Robotics",
    "Textiles",
    "Energy",
    "Press",
    "Optics",
    "Marine",
    "Systems",
];
const CITY: [&str; 12] = [
    "Toronto", "Lyon", "Osaka", "Hamburg", "Leeds", "Porto", "Austin", "Nairobi", "Malmö", "Kraków", "Pune",
    "Québec",
];
const INDUSTRY: [&str; 6] = [
    "HOSPITAL_HEALTH_CARE",
    "LOGISTICS_AND_SUPPLY_CHAIN",
    "COMPUTER_SOFTWARE",
    "FOOD_PRODUCTION",
    "RENEWABLES_ENVIRONMENT",
    "PUBLISHING",
];
const JOB: [&str; 6] = [
    "Owner",
    "Office manager",
    "Dentist",
    "Buyer",
    "Engineer",
    "Student",
];

/// How many records a portal gets, see [`World::populate`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Population {
    /// Contacts.
    pub contacts: usize,
    /// Companies.
    pub companies: usize,
    /// Deals.
    pub deals: usize,
}

impl World {
    /// Fills the portal as if it had been in use for five years: records with the values people type, created one
    /// after the other and modified at some time since, four of five contacts with a company as their primary one
    /// (one of a hundred with the same large one), deals with a company and one or two contacts. Search knows
    /// them at once.
    pub fn populate(&mut self, population: Population) {
        let mut dice = Dice::seeded(self.settings.seed ^ 0x5EED);
        let companies = self.settle_in(COMPANIES, population.companies, &mut dice, company);
        let contacts = self.settle_in(CONTACTS, population.contacts, &mut dice, contact);
        let deals = self.settle_in(DEALS, population.deals, &mut dice, deal);
        for (number, contact) in contacts.iter().enumerate() {
            let company = match number % LARGEST_SHARE {
                0 => companies.first(),
                _ if dice.below(5) == 0 => None,
                _ => pick(&companies, &mut dice),
            };
            if let Some(company) = company {
                self.links
                    .replace((CONTACTS, *contact), (COMPANIES, *company), &[1]);
            }
        }
        for deal in &deals {
            if let Some(company) = pick(&companies, &mut dice) {
                self.links.replace((DEALS, *deal), (COMPANIES, *company), &[5]);
            }
            for _ in 0..=dice.below(2) {
                if let Some(contact) = pick(&contacts, &mut dice) {
                    self.links.add_unlabelled((DEALS, *deal), (CONTACTS, *contact));
                }
            }
        }
    }

    /// Stamps records as a job of HubSpot's own does: nothing that can be seen changes, and all were modified at the
    /// same millisecond, which is answered. Ids that are not there are passed over.
    ///
    /// # Panics
    /// If the type was never defined.
    pub fn stamp<'a>(&mut self, object: &str, ids: impl IntoIterator<Item = &'a str>) -> i64 {
        let position = self.type_position(object).expect("the object type was defined");
        let now = self.now_ms();
        for id in ids {
            let held = id
                .parse()
                .ok()
                .and_then(|id| self.types[position].live(id))
                .cloned();
            if let Some(mut record) = held {
                record.updated_ms = now;
                self.store(position, record);
            }
        }
        now
    }

    fn settle_in(
        &mut self,
        position: usize,
        count: usize,
        dice: &mut Dice,
        values: fn(usize, i64, &mut Dice) -> Vec<(&'static str, String)>,
    ) -> Vec<u64> {
        let now = self.now_ms();
        let known: Vec<Name> = self.types[position].properties.keys().cloned().collect();
        let interned = |name: &str| match known.binary_search_by(|known| (**known).cmp(name)) {
            Ok(at) => Name::clone(&known[at]),
            Err(_) => Name::from(name),
        };
        let step = AGE_MS / i64::try_from(count.max(1)).unwrap_or(i64::MAX);
        let mut ids = Vec::with_capacity(count);
        let mut created_ms = now - AGE_MS;
        for number in 0..count {
            let id = self.next_record_id();
            let since = u64::try_from(now - created_ms).unwrap_or(1);
            let updated_ms = created_ms + i64::try_from(dice.below(since)).unwrap_or_default();
            let typed = values(number, created_ms, dice);
            let values: Values = typed
                .into_iter()
                .map(|(name, value)| (interned(name), value.into()))
                .collect();
            let record = Record {
                id,
                created_ms,
                updated_ms,
                archived_ms: None,
                values,
                merged: Vec::new(),
            };
            let lags = !self.settings.search_lag.is_zero();
            self.types[position].put(record, lags.then_some(now));
            created_ms += step;
            ids.push(id);
        }
        ids
    }
}

fn pick<'a, T>(from: &'a [T], dice: &mut Dice) -> Option<&'a T> {
    from.get(place(from.len(), dice))
}

fn place(length: usize, dice: &mut Dice) -> usize {
    usize::try_from(dice.below(length as u64)).unwrap_or_default()
}

fn one_of(words: &[&'static str], dice: &mut Dice) -> &'static str {
    words.get(place(words.len(), dice)).copied().unwrap_or_default()
}

fn phone(dice: &mut Dice) -> String {
    format!("+1 416 555 {:04}", dice.below(10_000))
}

fn contact(number: usize, _: i64, dice: &mut Dice) -> Vec<(&'static str, String)> {
    let (first, last) = (one_of(&FIRST, dice), one_of(&LAST, dice));
    let letters = |name: &str| -> String { name.chars().filter(char::is_ascii_alphabetic).collect() };
    let email = format!("{}.{}{number}@example.com", letters(first), letters(last)).to_lowercase();
    let mut values = vec![
        ("email", email),
        ("firstname", first.to_owned()),
        ("lastname", last.to_owned()),
        ("lifecyclestage", one_of(&LIFECYCLE, dice).to_owned()),
        ("city", one_of(&CITY, dice).to_owned()),
        ("jobtitle", one_of(&JOB, dice).to_owned()),
    ];
    if dice.below(3) > 0 {
        values.push(("phone", phone(dice)));
    }
    if dice.below(2) > 0 {
        values.push(("company", format!("{last} {}", one_of(&TRADE, dice))));
    }
    values
}

fn company(number: usize, _: i64, dice: &mut Dice) -> Vec<(&'static str, String)> {
    let (family, trade) = (one_of(&LAST, dice), one_of(&TRADE, dice));
    vec![
        ("name", format!("{family} {trade} {}", number + 1)),
        ("domain", format!("{}{number}.example.com", trade.to_lowercase())),
        ("industry", one_of(&INDUSTRY, dice).to_owned()),
        ("phone", phone(dice)),
        ("city", one_of(&CITY, dice).to_owned()),
    ]
}

fn deal(number: usize, created_ms: i64, dice: &mut Dice) -> Vec<(&'static str, String)> {
    let closes = created_ms + i64::try_from(dice.below(120)).unwrap_or_default() * DAY_MS;
    let mut values = vec![
        (
            "dealname",
            format!("{} order {}", one_of(&TRADE, dice), number + 1),
        ),
        ("dealstage", one_of(&DEAL_STAGES, dice).to_owned()),
        ("pipeline", String::from("default")),
        ("closedate", instant_text(closes)),
    ];
    if dice.below(10) > 0 {
        values.push(("amount", format!("{}.{:02}", dice.below(50_000), dice.below(100))));
    }
    values
}
