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
