//! Arming: when the daemon may sleep until the doorbell rings.
//!
//! The doorbell is rung only for a sleeping daemon, and asleep means: the armed lock is held and a look
//! begun after it was taken found nothing new. These states make the order unmistakable. A transaction
//! that captured a change before the lock was taken held the lock shared until it ended, so the lock could
//! not be taken before that change was visible or gone; one that captures afterwards finds the lock taken
//! and rings. The look in between sees the first kind, the bell tells of the second.

/// Not armed: changes may come without a ring, so look again soon.
#[derive(Debug, PartialEq, Eq)]
pub struct Awake {
    seen: bool,
}

/// Armed, but changes that became visible before the lock was taken may not have been seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Armed(());

/// Armed, and looked since: any further change rings.
#[derive(Debug, PartialEq, Eq)]
pub struct Asleep(());

/// The daemon's state towards the doorbell.
#[derive(Debug, PartialEq, Eq)]
pub enum Bell {
    /// See [`Awake`].
    Awake(Awake),
    /// See [`Armed`].
    Armed(Armed),
    /// See [`Asleep`].
    Asleep(Asleep),
}

/// What to do next about the doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look at the change table now.
    Look,
    /// Try to take the armed lock.
    Arm,
    /// Nothing: the bell rings when something changes.
    Sleep,
}

impl Default for Bell {
    fn default() -> Bell {
        Bell::Awake(Awake { seen: false })
    }
}

impl Bell {
    /// What to do next.
    pub fn step(&self) -> Step {
        match self {
            Bell::Awake(Awake { seen: false }) | Bell::Armed(_) => Step::Look,
            Bell::Awake(Awake { seen: true }) => Step::Arm,
            Bell::Asleep(_) => Step::Sleep,
        }
    }

    /// A look that began in this state has ended. `exhausted`: memory now holds every change that was visible, or
    /// is full; if not, there is more to see and the daemon stays awake.
    pub fn looked(self, exhausted: bool) -> Bell {
        match self {
            Bell::Awake(_) => Bell::Awake(Awake { seen: exhausted }),
            Bell::Armed(_) if exhausted => Bell::Asleep(Asleep(())),
            Bell::Armed(_) => Bell::Armed(Armed(())),
            Bell::Asleep(_) => Bell::Asleep(Asleep(())),
        }
    }

    /// The armed lock was taken (`true`) or refused. Only an awake daemon tries; a refusal means that a transaction
    /// that captured something has not ended, so a look is due again.
    pub fn tried(self, taken: bool) -> Bell {
        match (self, taken) {
            (Bell::Awake(_), true) => Bell::Armed(Armed(())),
            (Bell::Awake(_), false) => Bell::Awake(Awake { seen: false }),
            (armed, _) => armed,
        }
    }

    /// The bell rang, or the lock was lost: not armed any more.
    pub fn woken(self) -> Bell {
        Bell::Awake(Awake { seen: false })
    }

    /// Whether the armed lock is held.
    pub fn holds_lock(&self) -> bool {
        matches!(self, Bell::Armed(_) | Bell::Asleep(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A database with one lock, one bell and transactions that end in any order.
    #[derive(Default)]
    struct World {
        exclusive: bool,
        transactions: Vec<Transaction>,
        visible: Vec<u32>,
        seen: Vec<u32>,
        rung: bool,
        next: u32,
    }

    #[derive(Default)]
    struct Transaction {
        changes: Vec<u32>,
        savepoint: Option<usize>,
        holds_shared: bool,
        rings: bool,
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Begin,
        Change(usize),
        Savepoint(usize),
        RollbackTo(usize),
        Commit(usize),
        Rollback(usize),
        Daemon,
    }

    impl World {
        fn happens(&mut self, event: Event, bell: Bell) -> Bell {
            let count = self.transactions.len();
            match event {
                Event::Begin => self.transactions.push(Transaction::default()),
                Event::Daemon => return self.daemon(bell),
                _ if count == 0 => {}
                Event::Change(at) => self.change(at % count),
                Event::Savepoint(at) => {
                    let transaction = &mut self.transactions[at % count];
                    transaction.savepoint = Some(transaction.changes.len());
                }
                Event::RollbackTo(at) => {
                    // The shared lock and the ring taken inside the savepoint go with it; ones taken before stay.
                    let transaction = &mut self.transactions[at % count];
                    if let Some(kept) = transaction.savepoint.take() {
                        transaction.changes.truncate(kept);
                        transaction.holds_shared &= kept > 0;
                        transaction.rings &= kept > 0;
                    }
                }
                Event::Commit(at) => {
                    let ended = self.transactions.remove(at % count);
                    self.visible.extend(ended.changes);
                    self.rung |= ended.rings;
                }
                Event::Rollback(at) => drop(self.transactions.remove(at % count)),
            }
            bell
        }

        fn change(&mut self, at: usize) {
            let transaction = &mut self.transactions[at];
            transaction.changes.push(self.next);
            self.next += 1;
            if self.exclusive {
                transaction.rings = true;
            } else {
                transaction.holds_shared = true;
            }
        }

        fn daemon(&mut self, bell: Bell) -> Bell {
            match bell.step() {
                Step::Look => {
                    self.seen = self.visible.clone();
                    bell.looked(true)
                }
                Step::Arm => {
                    let free = !self
                        .transactions
                        .iter()
                        .any(|transaction| transaction.holds_shared);
                    self.exclusive = free;
                    bell.tried(free)
                }
                Step::Sleep if std::mem::take(&mut self.rung) => {
                    self.exclusive = false;
                    bell.woken()
                }
                Step::Sleep => bell,
            }
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            2 => Just(Event::Begin),
            3 => (0..8usize).prop_map(Event::Change),
            1 => (0..8usize).prop_map(Event::Savepoint),
            1 => (0..8usize).prop_map(Event::RollbackTo),
            2 => (0..8usize).prop_map(Event::Commit),
            1 => (0..8usize).prop_map(Event::Rollback),
            6 => Just(Event::Daemon),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_change_is_left_waiting_while_the_daemon_sleeps(events in prop::collection::vec(event(), 0..120)) {
            let mut world = World::default();
            let mut bell = Bell::default();
            for event in events {
                bell = world.happens(event, bell);
                prop_assert_eq!(bell.holds_lock(), world.exclusive);
                if matches!(bell, Bell::Asleep(_)) && !world.rung {
                    prop_assert_eq!(&world.seen, &world.visible, "asleep, no bell, and something visible was not seen");
                }
            }
            // When all have ended, a bounded number of steps brings everything in and the daemon to sleep.
            world.transactions.clear();
            for _ in 0..8 {
                bell = world.daemon(bell);
            }
            prop_assert_eq!(bell, Bell::Asleep(Asleep(())));
            prop_assert_eq!(world.seen, world.visible);
        }
    }

    #[test]
    fn a_refused_lock_asks_for_another_look_and_not_for_sleep() {
        let bell = Bell::default().looked(true).tried(false);
        assert_eq!(bell.step(), Step::Look);
    }
}
