//! Following modifications by time, through a search that answers 200 records at a time, lags behind, and is changed
//! while it is read.
//!
//! Offsets would lose records: one that is modified meanwhile moves to the end, and what followed it slides over the
//! place where the next page begins. So a [`Walk`] asks by the time it has reached, again inclusive, and where one time
//! has more records than a page holds, by the ids within it. Whatever moves meanwhile lies ahead then.

/// How far the next walk begins before what is known to be complete, in milliseconds: HubSpot's index follows its
/// records with a lag of seconds, of half a minute as others have seen.
pub const OVERLAP_MS: i64 = 5 * 60 * 1000;

/// What to ask for next. Times are milliseconds since the Unix epoch by HubSpot's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// What was modified then or later, by time.
    From(i64),
    /// What was modified later, by time.
    After(i64),
    /// What was modified at that very time, by id, above this one.
    Within(i64, Option<u64>),
}

/// A search says that there is more and does not show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HubSpot's search says that there is more and does not show it; it is asked again later")]
pub struct Stuck;

/// A walk through what was modified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    ask: Option<Ask>,
    /// Everything modified before is read.
    reached: i64,
    /// Beyond this, what is modified is the next walk's; so that a walk ends although records are being modified faster
    /// than they are read.
    until: Option<i64>,
    /// Where it began.
    from: i64,
    /// It came to the end of what there was.
    exhausted: bool,
}

impl Walk {
    /// A walk through everything modified at `from` or later.
    pub fn new(from: i64) -> Walk {
        Walk {
            ask: Some(Ask::From(from)),
            reached: from,
            until: None,
            from,
            exhausted: false,
        }
    }

    /// Leaves what is modified later than this to the next walk.
    pub fn set_until(&mut self, until: i64) {
        self.until.get_or_insert(until);
    }

    /// What to ask for next; `None`: the walk has ended.
    pub fn ask(&self) -> Option<&Ask> {
        self.ask.as_ref()
    }

    /// From when on the next walk asks, if this one goes no further. `passed` is a time that had passed in HubSpot when
    /// the first answer came ([`Horizon::at`]): what was modified an overlap earlier was in the index from the first
    /// question on. `None`: nothing is known of HubSpot's time, since no record was ever seen.
    pub fn next_from(&self, passed: Option<i64>) -> i64 {
        let Some(passed) = passed else { return self.from };
        let safe = if self.exhausted {
            passed
        } else {
            passed.min(self.reached)
        };
        self.from.max(safe.saturating_sub(OVERLAP_MS))
    }

    /// Takes what the question brought: ids and times, and whether there is more.
    ///
    /// # Errors
    /// [`Stuck`] if there is more and nothing to go on from.
    pub fn heard(&mut self, found: &[(Option<u64>, Option<i64>)], more: bool) -> Result<(), Stuck> {
        let Some(asked) = self.ask.take() else {
            return Ok(());
        };
        let times = || found.iter().filter_map(|(_, at)| *at);
        self.ask = match asked {
            Ask::Within(at, above) if more => {
                let highest = found.iter().filter_map(|(id, _)| *id).max();
                let highest = highest.filter(|id| above.is_none_or(|above| *id > above));
                Some(Ask::Within(at, Some(highest.ok_or(Stuck)?)))
            }
            Ask::Within(at, _) => Some(Ask::After(at)),
            Ask::From(at) | Ask::After(at) if more => {
                let last = times().max().ok_or(Stuck)?.max(at);
                let least = times().min().unwrap_or(last);
                self.reached = self.reached.max(last);
                // A page of one time would come again and again.
                Some(if last == at || least == last {
                    Ask::Within(last, None)
                } else {
                    Ask::From(last)
                })
            }
            Ask::From(_) | Ask::After(_) => {
                self.exhausted = true;
                None
            }
        };
        if let (Some(Ask::From(at) | Ask::After(at)), Some(until)) = (&self.ask, self.until)
            && *at > until
        {
            self.ask = None;
        }
        Ok(())
    }
}

/// HubSpot's time as its records show it: a time that a record was modified at has passed there, and since it was seen
/// at least as much more as has passed here. No clock of ours is compared with HubSpot's, only its speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Horizon {
    /// A time in HubSpot that has passed, and when that was seen, in milliseconds since an epoch of the caller's.
    seen: Option<(i64, i64)>,
}

impl Horizon {
    /// A record was modified at `modified`, seen at `now`. A time later than `latest` cannot be: it is not believed.
    pub fn see(&mut self, modified: i64, now: i64, latest: i64) {
        if modified <= latest && self.at(now).is_none_or(|passed| modified > passed) {
            self.seen = Some((modified, now));
        }
    }

    /// A time that has passed in HubSpot by `now`.
    pub fn at(&self, now: i64) -> Option<i64> {
        self.seen
            .map(|(modified, seen)| modified.saturating_add(now.saturating_sub(seen).max(0)))
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
