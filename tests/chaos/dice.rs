//! Chance from a seed, so that a run can be asked for again.

use std::time::Duration;

/// A seeded generator (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn seeded(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A generator of its own for a part of the run, so that no part disturbs another's chances.
    pub(super) fn split(&mut self) -> Dice {
        Dice(self.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One of several things, each with its weight.
    pub(super) fn weighted<T: Copy>(&mut self, of: &[(usize, T)]) -> T {
        let sum: usize = of.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(sum);
        for (weight, thing) in of {
            if at < *weight {
                return *thing;
            }
            at -= weight;
        }
        unreachable!("the sum of the weights is above every draw")
    }

    /// A time between two, in milliseconds.
    pub(super) fn millis(&mut self, least: usize, most: usize) -> Duration {
        Duration::from_millis((least + self.below(most - least + 1)) as u64)
    }

    pub(super) fn uuid(&mut self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(
            (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes(),
        )
        .into_uuid()
    }
}
