//! Names of people, cities and exams to make a school of. All of it is made up.

use super::dice::Dice;

const FIRST: [&str; 48] = [
    "Aisha",
    "Alejandro",
    "Amélie",
    "Ananya",
    "Andrei",
    "Beatriz",
    "Camila",
    "Chidi",
    "Chloé",
    "Daniel",
    "Deepa",
    "Elif",
    "Emre",
    "Fatima",
    "Farah",
    "Gabriel",
    "Grace",
    "Hana",
    "Hassan",
    "Ines",
    "Ivan",
    "Jasmine",
    "João",
    "Julia",
    "Karim",
    "Katarzyna",
    "Layla",
    "Leila",
    "Lucas",
    "Mahsa",
    "Maria",
    "Mehdi",
    "Meera",
    "Nadia",
    "Noor",
    "Olga",
    "Omar",
    "Priya",
    "Rania",
    "Rohan",
    "Samira",
    "Sanjay",
    "Sofia",
    "Tariq",
    "Thu",
    "Valentina",
    "Yara",
    "Zoë",
];

const LAST: [&str; 48] = [
    "Abbas",
    "Adeyemi",
    "Ahmed",
    "Almeida",
    "Bakshi",
    "Bélanger",
    "Castillo",
    "Chen",
    "Costa",
    "Dhillon",
    "Doğan",
    "Dubois",
    "El-Sayed",
    "Fernandes",
    "Gagnon",
    "García",
    "Ghorbani",
    "Gupta",
    "Haddad",
    "Hosseini",
    "Ibrahim",
    "Iyer",
    "Jafari",
    "Kapoor",
    "Karimi",
    "Khan",
    "Kim",
    "Kowalski",
    "Lê",
    "Mansour",
    "Mendoza",
    "Moreau",
    "Nair",
    "Nguyen",
    "O'Connor",
    "Okafor",
    "Patel",
    "Pereira",
    "Petrov",
    "Rahman",
    "Reyes",
    "Sharma",
    "Singh",
    "Souza",
    "Tran",
    "Walia",
    "Yilmaz",
    "Zhang",
];

/// Where exams are sat.
pub(super) const CITIES: [&str; 6] = [
    "Mississauga",
    "Calgary",
    "Vancouver",
    "Montréal",
    "Richmond Hill",
    "Online",
];

/// A kind of mock exam, and what pays for it.
#[derive(Debug)]
pub(super) struct ExamKind {
    /// What the application calls it.
    pub(super) name: &'static str,
    /// The column of a student's credits, which is also the name of HubSpot's property.
    pub(super) credits: &'static str,
    /// What a booking says was spent.
    pub(super) token: &'static str,
}

/// The kinds of exams. A shared credit pays for the first two when their own are spent.
pub(super) const KINDS: [ExamKind; 4] = [
    ExamKind {
        name: "Situational Judgment",
        credits: "sj_credits",
        token: "Situational Judgment Token",
    },
    ExamKind {
        name: "Clinical Skills",
        credits: "cs_credits",
        token: "Clinical Skills Token",
    },
    ExamKind {
        name: "Mini-mock",
        credits: "sjmini_credits",
        token: "Mini-mock Token",
    },
    ExamKind {
        name: "Mock Discussion",
        credits: "mock_discussion_token",
        token: "Mock Discussion Token",
    },
];

/// The credit column beside those of the kinds.
pub(super) const SHARED_CREDITS: &str = "shared_mock_credits";

/// A first and a last name.
pub(super) fn name(dice: &mut Dice) -> (&'static str, &'static str) {
    (*dice.pick(&FIRST), *dice.pick(&LAST))
}

/// The address of the `number`th person with that name; nobody else has it.
pub(super) fn email(first: &str, last: &str, number: usize) -> String {
    let domain = if number.is_multiple_of(3) {
        "example.org"
    } else {
        "example.com"
    };
    format!("{}.{}{number}@{domain}", plain(first), plain(last))
}

/// The letters that mail systems of any age take.
fn plain(name: &str) -> String {
    let letter = |letter: char| match letter {
        'é' | 'ë' | 'ê' => Some('e'),
        'ã' => Some('a'),
        'í' => Some('i'),
        'ğ' => Some('g'),
        letter => letter.is_ascii_alphabetic().then_some(letter),
    };
    name.to_lowercase().chars().filter_map(letter).collect()
}
