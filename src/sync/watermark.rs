//! The low-water mark: where a look at the change table may start without missing anything.
//!
//! Sequence numbers are handed out in one order and committed in another, so "everything above the last one
//! seen" loses the late committers. The mark of an object rises to S only when every transaction that can own
//! a number up to S has ended, and what they committed has been returned by a look.
//!
//! A transaction takes its xid before its first number (a trigger's fires after the statement that wrote, and
//! our own writers ask for one). So whoever owns a number up to S, read from the sequence, has an xid below
//! the next one to be assigned, read after S. Once the xmin of a look's snapshot has reached that xid, all of
//! them have ended and the look sees what they left. A snapshot's xmax will not do for the bound: it is the
//! last *ended* xid plus one, and a running transaction may stand above it.

/// What a look learns beside its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The sequence's last value, read in a statement before the look's snapshot; 0 if it was never used.
    pub last_seq: i64,
    /// The next xid to be assigned, read after `last_seq`.
    pub next_xid: i64,
    /// The oldest xid that the look's snapshot holds for running, or its xmax if there is none.
    pub xmin: i64,
}

/// The mark of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    floor: i64,
    candidate: Option<Candidate>,
    above: usize,
}

/// A number to which the mark may rise once all xids below the bound have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    seq: i64,
    bound: i64,
}

impl Mark {
    /// Looks need only the rows above this number.
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// How many rows above the mark the last look returned; the next one returns them again.
    pub fn above(&self) -> usize {
        self.above
    }

    /// Takes in a look that started at [`Mark::floor`] and returned the rows `seqs`, ascending: all there are, or, if
    /// `more`, the first of them. Answers false if the sequence has gone back (the table is not the one it
    /// was): the mark is then zero and the look has to be repeated.
    pub fn looked(&mut self, horizon: Horizon, seqs: &[i64], more: bool) -> bool {
        if horizon.last_seq < self.floor {
            *self = Mark::default();
            return false;
        }
        let reached = match (more, seqs.last()) {
            (false, _) => i64::MAX,
            (true, Some(last)) => *last,
            (true, None) => self.floor,
        };
        let latest = Candidate {
            seq: horizon.last_seq,
            bound: horizon.next_xid,
        };
        // The waiting candidate first; where it is through, this look's own may be through at once.
        for candidate in [self.candidate.unwrap_or(latest), latest] {
            let ended = horizon.xmin >= candidate.bound;
            if ended {
                self.floor = self.floor.max(candidate.seq.min(reached));
            }
            if !ended || reached < candidate.seq {
                self.candidate = Some(candidate);
                break;
            }
            self.candidate = None;
        }
        self.above = seqs.len() - seqs.partition_point(|seq| *seq <= self.floor);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_quiet_database_raises_the_mark_at_once() {
        let mut mark = Mark::default();
        let horizon = Horizon {
            last_seq: 7,
            next_xid: 100,
            xmin: 100,
        };
        assert!(mark.looked(horizon, &[3, 7], false));
        assert_eq!((mark.floor(), mark.above()), (7, 0));
    }

    #[test]
    fn a_running_transaction_holds_the_mark_until_it_has_ended() {
        let mut mark = Mark::default();
        let running = Horizon {
            last_seq: 7,
            next_xid: 101,
            xmin: 100,
        };
        assert!(mark.looked(running, &[3], false));
        assert_eq!((mark.floor(), mark.above()), (0, 1));
        let ended = Horizon { xmin: 101, ..running };
        assert!(mark.looked(ended, &[3, 7], false));
        assert_eq!((mark.floor(), mark.above()), (7, 0));
    }

    #[test]
    fn a_look_cut_short_raises_the_mark_to_its_last_row_only() {
        let mut mark = Mark::default();
        let horizon = Horizon {
            last_seq: 9,
            next_xid: 100,
            xmin: 100,
        };
        assert!(mark.looked(horizon, &[1, 2, 3], true));
        assert_eq!(mark.floor(), 3);
        assert!(mark.looked(horizon, &[], true));
        assert_eq!(mark.floor(), 3);
        assert!(mark.looked(horizon, &[4, 9], false));
        assert_eq!(mark.floor(), 9);
    }

    #[test]
    fn a_sequence_that_went_back_starts_anew() {
        let mut mark = Mark::default();
        let mut horizon = Horizon {
            last_seq: 9,
            next_xid: 100,
            xmin: 100,
        };
        assert!(mark.looked(horizon, &[], false));
        horizon.last_seq = 1;
        assert!(!mark.looked(horizon, &[], false));
        assert_eq!(mark, Mark::default());
    }

    /// One step of the model: transactions that number rows and end in any order, and a look whose three
    /// readings (sequence, next xid with snapshot, rows) have other steps between them.
    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        Number(usize),
        End(usize, bool),
        ReadSequence,
        Look(usize),
        Forget(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Begin),
            6 => any::<usize>().prop_map(Step::Number),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(which, commits)| Step::End(which, commits)),
            3 => Just(Step::ReadSequence),
            4 => (0..6_usize).prop_map(Step::Look),
            2 => any::<usize>().prop_map(Step::Forget),
        ]
    }

    #[derive(Default)]
    struct World {
        next_xid: i64,
        last_ended: i64,
        last_seq: i64,
        running: Vec<(i64, Vec<i64>)>,
        committed: BTreeSet<i64>,
        seen: BTreeSet<i64>,
        read_seq: i64,
        mark: Mark,
    }

    impl World {
        fn step(&mut self, step: &Step) {
            match step {
                Step::Begin => {
                    self.running.push((self.next_xid, Vec::new()));
                    self.next_xid += 1;
                }
                Step::Number(which) if !self.running.is_empty() => {
                    let which = which % self.running.len();
                    self.last_seq += 1;
                    self.running[which].1.push(self.last_seq);
                }
                Step::End(which, commits) if !self.running.is_empty() => {
                    let (xid, rows) = self.running.remove(which % self.running.len());
                    self.last_ended = self.last_ended.max(xid);
                    if *commits {
                        self.committed.extend(rows);
                    }
                }
                Step::ReadSequence => self.read_seq = self.last_seq,
                Step::Look(room) => self.look(*room),
                Step::Forget(which) if !self.seen.is_empty() => {
                    // A receipt deletes a row that memory holds.
                    let seq = *self.seen.iter().nth(which % self.seen.len()).expect("not empty");
                    self.committed.remove(&seq);
                }
                _ => {}
            }
        }

        fn look(&mut self, room: usize) {
            let xmax = self.last_ended + 1;
            let oldest = self.running.iter().map(|(xid, _)| *xid).min();
            let horizon = Horizon {
                last_seq: self.read_seq,
                next_xid: self.next_xid,
                xmin: oldest.map_or(xmax, |xid| xid.min(xmax)),
            };
            let limit = self.mark.above() + room;
            let visible: Vec<i64> = self.committed.range(self.mark.floor() + 1..).copied().collect();
            let more = visible.len() > limit;
            let seqs = &visible[..visible.len().min(limit)];
            if self.mark.looked(horizon, seqs, more) {
                self.seen.extend(seqs);
            }
        }

        /// Rows that no look has returned and that none will.
        fn skipped(&self) -> Vec<i64> {
            let floor = self.mark.floor();
            let pending = self.running.iter().flat_map(|(_, rows)| rows);
            let all = self.committed.iter().chain(pending);
            all.copied()
                .filter(|seq| *seq <= floor && !self.seen.contains(seq))
                .collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn whatever_order_transactions_end_in_no_change_is_ever_skipped(
            steps in prop::collection::vec(step(), 0..120)
        ) {
            let mut world = World { next_xid: 1, ..World::default() };
            for step in &steps {
                world.step(step);
                prop_assert_eq!(world.skipped(), Vec::<i64>::new());
            }
            // Once all is quiet the mark stands at the end.
            while !world.running.is_empty() {
                world.step(&Step::End(0, true));
            }
            world.step(&Step::ReadSequence);
            for _ in 0..3 {
                world.step(&Step::Look(1000));
            }
            prop_assert_eq!(world.mark.floor(), world.last_seq);
            prop_assert!(world.committed.iter().all(|seq| world.seen.contains(seq)));
        }
    }
}
