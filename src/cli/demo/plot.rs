//! The plot: which scenes come when, beside the everyday changes.

use std::time::Duration;

/// The scenes repeat after so long where the demo is not shorter.
const CYCLE_MAX: Duration = Duration::from_secs(40);

/// Something that happens now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    /// A student registers with an address that HubSpot refuses.
    Misspelt,
    /// A student registers with the address of another.
    Shared,
    /// Somebody types values over in HubSpot, and a sweep puts them right.
    Drift,
    /// The office corrects one of the addresses.
    Correction,
}

/// The scenes of a cycle, each with its moment in hundredths of it.
const SCENES: [(u32, Scene); 5] = [
    (8, Scene::Misspelt),
    (18, Scene::Shared),
    (40, Scene::Drift),
    (65, Scene::Correction),
    (72, Scene::Correction),
];

/// Where in the plot we are.
#[derive(Debug)]
pub(super) struct Plot {
    cycle: Duration,
    begun: Duration,
    next: usize,
}

impl Plot {
    /// The plot of a demo that makes changes for so long; `None`: until somebody ends it.
    pub(super) fn new(lasting: Option<Duration>) -> Plot {
        Plot {
            cycle: lasting.unwrap_or(CYCLE_MAX).min(CYCLE_MAX),
            begun: Duration::ZERO,
            next: 0,
        }
    }

    /// The scene that is due after so long, once.
    pub(super) fn due(&mut self, elapsed: Duration) -> Option<Scene> {
        let (moment, scene) = SCENES[self.next];
        if elapsed < self.begun + self.cycle * moment / 100 {
            return None;
        }
        self.next += 1;
        if self.next == SCENES.len() {
            self.next = 0;
            self.begun += self.cycle;
        }
        Some(scene)
    }
}
