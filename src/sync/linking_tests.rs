use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap as Map;

const FROM: &str = "1";
/// Longer than any request of the model takes to land.
const SETTLE: i64 = 100;
/// The type of the unlabelled association in the model; labels are other numbers.
const PLAIN: u8 = 0;
const OURS: u8 = 1;
const THEIRS: u8 = 9;

type Pairs = Map<String, BTreeSet<u8>>;

/// What a person or the program does.
#[derive(Debug, Clone)]
enum Event {
    /// The row of a link now leads there; 0: nowhere, 1: to what is not known, from 2: to that record.
    Target(usize, u8),
    /// A person links the record, with their label or without one.
    Person(u8, bool),
    /// The row of a link is pushed; the numbers decide how each request goes.
    Push(usize, Vec<Luck>),
    /// Time passes.
    Wait(i64),
}

/// How a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Well,
    Refused,
    ReplyLost,
    NeverSent,
    LandsLate,
    CrashBefore,
    CrashAfter,
}

/// A request that is still on its way.
#[derive(Debug, Clone)]
enum Late {
    Make(String, u8),
    Part(String, Removal, u8),
}

#[derive(Default)]
struct Model {
    held: Pairs,
    people: Pairs,
    kinds: Vec<u8>,
    targets: Vec<Target>,
    memory: Vec<Map<String, Remembered>>,
    late: Vec<Late>,
    now: i64,
}

impl Model {
    fn new(kinds: Vec<u8>) -> Model {
        Model {
            targets: vec![Target::Nowhere; kinds.len()],
            memory: vec![Map::new(); kinds.len()],
            kinds,
            now: 1_000,
            ..Model::default()
        }
    }

    fn play(&mut self, event: &Event) {
        match event {
            Event::Target(link, to) => {
                let link = link % self.kinds.len();
                self.targets[link] = match to {
                    0 => Target::Nowhere,
                    1 => Target::Unknown,
                    id => Target::To(id.to_string()),
                };
            }
            Event::Person(to, label) => self.person(&to.to_string(), *label),
            Event::Push(link, luck) => self.push(link % self.kinds.len(), &mut luck.iter().copied()),
            Event::Wait(time) => self.wait(*time),
        }
    }

    /// A person cannot make again what is there, and what they do to a pair while a request of ours about it is on its
    /// way is told apart by nobody.
    fn person(&mut self, to: &str, label: bool) {
        let touched = self.memory.iter().any(|memory| memory.contains_key(to));
        let late = self.late.iter().any(|late| match late {
            Late::Make(other, _) | Late::Part(other, ..) => other == to,
        });
        if late || (touched && (!label || !self.held.contains_key(to))) {
            return;
        }
        let was_there = self.held.contains_key(to);
        let held = self.held.entry(to.to_owned()).or_default();
        held.insert(PLAIN);
        let people = self.people.entry(to.to_owned()).or_default();
        if label {
            held.insert(THEIRS);
            people.insert(THEIRS);
        }
        if !was_there {
            people.insert(PLAIN);
        }
    }

    fn wait(&mut self, time: i64) {
        self.now += time;
        for late in std::mem::take(&mut self.late) {
            match late {
                Late::Make(to, kind) => self.associate(&to, kind),
                Late::Part(to, removal, kind) => self.part(&to, removal, kind),
            }
        }
    }

    fn associate(&mut self, to: &str, kind: u8) {
        self.held.entry(to.to_owned()).or_default().extend([PLAIN, kind]);
    }

    fn part(&mut self, to: &str, removal: Removal, kind: u8) {
        match removal {
            Removal::Pair => {
                self.held.remove(to);
            }
            Removal::Label => {
                if let Some(held) = self.held.get_mut(to) {
                    held.remove(&kind);
                }
            }
            Removal::Forget => {}
        }
    }

    fn seen(&self, to: &str, kind: u8) -> Option<Seen> {
        let held = self.held.get(to)?;
        Some(Seen {
            ours: held.contains(&kind),
            others: held.iter().any(|other| *other != PLAIN && *other != kind),
        })
    }

    fn beside(&self, link: usize, to: &str) -> Vec<Beside> {
        let others = self.memory.iter().enumerate().filter(|(other, _)| *other != link);
        let rows = others.filter_map(|(other, memory)| {
            let row = memory.get(to)?;
            Some(Beside {
                own: false,
                same: self.kinds[other] == self.kinds[link],
                found: row.found,
                state: row.state,
            })
        });
        rows.collect()
    }

    fn write(&mut self, link: usize, linking: &Linking) {
        for note in linking.notes("link") {
            match note.row {
                Some(mut row) => {
                    row.unsettled = row.unsettled.map(|begun| begun.min(self.now));
                    self.memory[link].insert(note.to, row)
                }
                None => self.memory[link].remove(&note.to),
            };
        }
    }

    fn push(&mut self, link: usize, luck: &mut dyn Iterator<Item = Luck>) {
        let remembered: Vec<Remembered> = self.memory[link].values().cloned().collect();
        self.push_with(link, &remembered, luck);
    }

    /// As a sweep does: what HubSpot holds is compared with what we remember.
    fn sweep(&mut self, link: usize) {
        let mut remembered: Vec<Remembered> = self.memory[link].values().cloned().collect();
        let target = self.targets[link].clone();
        let is_held = target
            .id()
            .and_then(|to| self.seen(to, self.kinds[link]))
            .is_some_and(|seen| seen.ours);
        compare(FROM, &target, &mut remembered, is_held);
        self.push_with(link, &remembered, &mut std::iter::empty());
    }

    /// One push in the door's order; a crash ends it where it strikes.
    fn push_with(&mut self, link: usize, remembered: &[Remembered], luck: &mut dyn Iterator<Item = Luck>) {
        let kind = self.kinds[link];
        let clock = Clock {
            now: self.now,
            settle: SETTLE,
            quiet: 0,
        };
        let target = self.targets[link].clone();
        let Some(mut linking) = Linking::new(FROM, None, kind != PLAIN, &target, remembered, clock) else {
            return;
        };
        let snapshot: Map<String, Option<Seen>> = (0..10_u8)
            .map(|to| (to.to_string(), self.seen(&to.to_string(), kind)))
            .collect();
        let seen = |to: &str| snapshot.get(to).copied().flatten();
        if let Some(to) = linking.to_make().map(str::to_owned) {
            let beside = self.beside(link, &to);
            let beside = if linking.asks_memory(seen(&to)) {
                beside
            } else {
                Vec::new()
            };
            if linking.make(seen(&to), &beside) == Making::Send {
                self.write(link, &linking);
                let answer = match luck.next().unwrap_or(Luck::Well) {
                    Luck::CrashBefore => return,
                    Luck::CrashAfter => return self.associate(&to, kind),
                    Luck::Refused => Answer::Refused,
                    Luck::NeverSent => Answer::Undone,
                    Luck::LandsLate => {
                        self.late.push(Late::Make(to.clone(), kind));
                        Answer::Unknown
                    }
                    well => {
                        self.associate(&to, kind);
                        if well == Luck::Well {
                            Answer::Done
                        } else {
                            Answer::Unknown
                        }
                    }
                };
                linking.made(answer);
            }
        }
        let removals = linking.removals(seen);
        self.write(link, &linking);
        for to in removals {
            let seen = seen(&to).expect("only what HubSpot holds is removed");
            let beside = self.beside(link, &to);
            let removal = linking.removal(&to, seen, &beside);
            if removal == Removal::Forget {
                continue;
            }
            let answer = match luck.next().unwrap_or(Luck::Well) {
                Luck::CrashBefore => return,
                Luck::CrashAfter => return self.part(&to, removal, kind),
                Luck::Refused => Answer::Refused,
                Luck::NeverSent => Answer::Undone,
                Luck::LandsLate => {
                    self.late.push(Late::Part(to.clone(), removal, kind));
                    Answer::Unknown
                }
                well => {
                    self.part(&to, removal, kind);
                    if well == Luck::Well {
                        Answer::Done
                    } else {
                        Answer::Unknown
                    }
                }
            };
            linking.removed(&to, answer);
        }
        if luck.next() != Some(Luck::CrashAfter) {
            self.write(link, &linking);
        }
    }

    /// What HubSpot must hold: what people made, and the targets.
    fn wanted(&self) -> Pairs {
        let mut wanted = self.people.clone();
        for (kind, target) in self.kinds.iter().zip(&self.targets) {
            if let Some(to) = target.id() {
                wanted.entry(to.to_owned()).or_default().extend([PLAIN, *kind]);
            }
        }
        for held in wanted.values_mut() {
            held.insert(PLAIN);
        }
        wanted
    }
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        4 => Just(Luck::Well),
        1 => Just(Luck::Refused),
        1 => Just(Luck::ReplyLost),
        1 => Just(Luck::NeverSent),
        1 => Just(Luck::LandsLate),
        1 => Just(Luck::CrashBefore),
        1 => Just(Luck::CrashAfter),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..2_usize, 0..6_u8).prop_map(|(link, to)| Event::Target(link, to)),
        1 => (2..6_u8, any::<bool>()).prop_map(|(to, label)| Event::Person(to, label)),
        4 => (0..2_usize, prop::collection::vec(luck(), 0..4)).prop_map(|(link, luck)| Event::Push(link, luck)),
        1 => (1..60_i64).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_hubspot_ends_with_the_targets_and_with_what_people_made(
        kinds in prop_oneof![
            Just(vec![PLAIN]), Just(vec![OURS]), Just(vec![PLAIN, PLAIN]), Just(vec![OURS, OURS]),
            Just(vec![PLAIN, OURS]), Just(vec![OURS, 2]),
        ],
        events in prop::collection::vec(event(), 0..40),
        ends in prop::collection::vec(prop_oneof![Just(0_u8), 2..6_u8], 2),
    ) {
        let mut model = Model::new(kinds);
        for event in &events {
            model.play(event);
        }
        for (link, end) in ends.iter().enumerate().take(model.kinds.len()) {
            model.play(&Event::Target(link, *end));
        }
        let links = 0..model.kinds.len();
        // The push of the last change, the one that follows once all has settled, and a sweep.
        for pass in 0..3 {
            for link in links.clone() {
                if pass < 2 { model.push(link, &mut std::iter::empty()) } else { model.sweep(link) }
            }
            model.wait(SETTLE);
        }
        prop_assert_eq!(&model.held, &model.wanted());
        for (memory, target) in model.memory.iter().zip(&model.targets) {
            let kept: Vec<&str> = memory.values().map(|row| row.to.as_str()).collect();
            prop_assert_eq!(kept, target.id().into_iter().collect::<Vec<_>>(), "nothing else is remembered");
            prop_assert!(memory.values().all(|row| row.state == State::Made));
        }
        let before = model.held.clone();
        for link in links {
            let remembered: Vec<Remembered> = model.memory[link].values().cloned().collect();
            let clock = clock(model.now);
            let rest = Linking::new(FROM, None, model.kinds[link] != PLAIN, &model.targets[link], &remembered, clock);
            prop_assert!(rest.is_none(), "a link that stands is not touched again: {:?}", rest);
        }
        prop_assert_eq!(before, model.held);
    }
}

fn clock(now: i64) -> Clock {
    Clock {
        now,
        settle: SETTLE,
        quiet: 0,
    }
}

fn to(id: &str) -> Target {
    Target::To(id.to_owned())
}

fn made(id: &str) -> Remembered {
    Remembered {
        to: id.to_owned(),
        from: Some(FROM.to_owned()),
        state: State::Made,
        found: Found::Nothing,
        unsettled: None,
    }
}

const HELD: Option<Seen> = Some(Seen {
    ours: true,
    others: false,
});

#[test]
fn a_target_that_is_not_known_yet_changes_nothing() {
    assert!(Linking::new(FROM, None, false, &Target::Unknown, &[made("2")], clock(0)).is_none());
    assert!(Linking::new(FROM, None, false, &Target::Nowhere, &[], clock(0)).is_none());
    assert!(Linking::new(FROM, None, false, &to("2"), &[made("2")], clock(0)).is_none());
}

#[test]
fn the_old_link_stays_until_the_new_one_stands() {
    for answer in [Answer::Refused, Answer::Undone, Answer::Unknown, Answer::Done] {
        let mut linking = Linking::new(FROM, None, false, &to("3"), &[made("2")], clock(0)).unwrap();
        assert_eq!(linking.make(None, &[]), Making::Send);
        assert!(linking.removals(|_| HELD).is_empty(), "not before it was made");
        linking.made(answer);
        let removals = linking.removals(|_| HELD);
        assert_eq!(removals.is_empty(), answer != Answer::Done, "{answer:?}");
    }
}

#[test]
fn a_new_record_is_linked_without_a_question() {
    let linking = Linking::new(FROM, None, false, &to("3"), &[], clock(0)).unwrap();
    assert!(!linking.asks(true));
    assert!(linking.asks(false));
}

#[test]
fn links_of_a_record_that_the_row_has_left_are_forgotten_and_not_removed() {
    let mut linking = Linking::new("7", None, false, &to("3"), &[made("2"), made("3")], clock(0)).unwrap();
    assert_eq!(linking.to_make(), Some("3"), "it is another record's link");
    assert_eq!(linking.make(None, &[]), Making::Send);
    linking.made(Answer::Done);
    assert!(linking.removals(|_| HELD).is_empty());
    let notes = linking.notes("link");
    let rows: Vec<_> = notes
        .iter()
        .map(|note| (note.to.as_str(), note.row.is_some()))
        .collect();
    assert_eq!(rows, [("2", false), ("3", true)]);
}

#[test]
fn links_of_a_merged_record_are_looked_at_and_stay_ours() {
    let remembered = [made("2"), made("3")];
    let mut linking = Linking::new("7", Some(FROM), false, &to("3"), &remembered, clock(0)).unwrap();
    assert!(linking.asks(false));
    assert_eq!(linking.make(HELD, &[]), Making::Stands);
    assert_eq!(linking.removals(|_| HELD), ["2"]);
    let notes = linking.notes("link");
    assert!(
        notes
            .iter()
            .all(|note| note.row.as_ref().unwrap().from.as_deref() == Some("7"))
    );
    assert!(
        notes
            .iter()
            .all(|note| note.row.as_ref().unwrap().found == Found::Nothing)
    );
    let unknown = Linking::new("7", Some(FROM), false, &Target::Unknown, &remembered, clock(0));
    assert!(
        unknown.is_some_and(|linking| linking.notes("link").len() == 2),
        "it is remembered as the survivor's"
    );
}

#[test]
fn a_link_in_doubt_is_looked_at_by_the_push_that_is_due_and_by_none_before_it() {
    let clock = |now| Clock {
        now,
        settle: SETTLE,
        quiet: 150,
    };
    let mut linking = Linking::new(FROM, None, false, &to("2"), &[], clock(10)).unwrap();
    assert_eq!(linking.make(None, &[]), Making::Send);
    linking.made(Answer::Unknown);
    let of = |linking: &Linking| {
        linking
            .notes("link")
            .into_iter()
            .filter_map(|note| note.row)
            .collect::<Vec<_>>()
    };
    let mut memory = of(&linking);
    // Begun after the read, it may land until a moment that is later than the read and the settle time.
    for now in [20, 10 + SETTLE, 149] {
        let Some(mut again) = Linking::new(FROM, None, false, &to("2"), &memory, clock(now)) else {
            continue;
        };
        assert_eq!(again.make(HELD, &[]), Making::Stands);
        memory = of(&again);
        assert!(memory[0].unsettled.is_some(), "it may still land at {now}");
    }
    let mut due = Linking::new(FROM, None, false, &to("2"), &memory, clock(150)).expect("it is looked at");
    assert_eq!(due.make(HELD, &[]), Making::Stands);
    assert_eq!(of(&due), [made("2")]);
}
