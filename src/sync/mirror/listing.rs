//! Following a list from page to page without going in a circle.

/// A list does not go forward: a page names itself, or an earlier one, as the next, or shows again what was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HubSpot's list repeats a page instead of going on; it is listed again from its beginning")]
pub struct Repeats;

/// How far a list was followed. HubSpot lists by ascending id, and a cursor is the id of the next record; where either
/// is no number, only equal cursors are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    /// The highest id seen.
    highest: Option<u64>,
}

impl Trail {
    /// Takes a page that was asked for at `asked`, with its ids and the cursor of the next one.
    ///
    /// # Errors
    /// [`Repeats`] if the list does not go forward.
    pub fn follow<'a>(
        &mut self,
        asked: Option<&str>,
        ids: impl Iterator<Item = &'a str>,
        next: Option<&str>,
    ) -> Result<(), Repeats> {
        let numbers: Vec<u64> = ids.filter_map(|id| id.parse().ok()).collect();
        let before = self.highest;
        let (least, most) = (numbers.iter().min(), numbers.iter().max());
        if let (Some(most), Some(before)) = (most, before)
            && *most <= before
        {
            return Err(Repeats);
        }
        self.highest = before.max(most.copied());
        let Some(next) = next else { return Ok(()) };
        if asked == Some(next) {
            return Err(Repeats);
        }
        let Ok(number) = next.parse::<u64>() else {
            return Ok(());
        };
        let asked_number = asked.and_then(|asked| asked.parse::<u64>().ok());
        if asked_number.is_some_and(|asked| number <= asked) || least.is_some_and(|least| number <= *least) {
            return Err(Repeats);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_that_names_itself_or_an_earlier_one_as_the_next_repeats() {
        let follow = |asked, ids: &[&str], next| Trail::default().follow(asked, ids.iter().copied(), next);
        assert_eq!(follow(None, &["5", "9"], Some("12")), Ok(()));
        assert_eq!(follow(Some("5"), &["5", "9"], Some("5")), Err(Repeats));
        assert_eq!(follow(None, &["5", "9"], Some("5")), Err(Repeats));
        assert_eq!(follow(Some("12"), &[], Some("7")), Err(Repeats));
        assert_eq!(follow(Some("b"), &["x"], Some("c")), Ok(()));
        assert_eq!(follow(Some("b"), &["x"], Some("b")), Err(Repeats));
    }

    #[test]
    fn a_page_of_records_that_were_all_shown_repeats_whatever_its_cursor_says() {
        let mut trail = Trail::default();
        assert_eq!(trail.follow(None, ["5", "9"].into_iter(), Some("12")), Ok(()));
        assert_eq!(
            trail.follow(Some("12"), ["5", "9"].into_iter(), Some("13")),
            Err(Repeats)
        );
    }

    proptest! {
        #[test]
        fn a_list_that_goes_forward_is_followed_to_its_end_and_no_other_for_ever(
            ids in prop::collection::btree_set(1u64..10_000, 0..200), size in 1usize..20, jump in prop::option::of((0usize..30, 0usize..30)),
        ) {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let pages: Vec<&[String]> = ids.chunks(size).collect();
            let mut trail = Trail::default();
            let (mut at, mut steps, mut repeated) = (0, 0, false);
            let mut asked: Option<String> = None;
            while at < pages.len() {
                steps += 1;
                prop_assert!(steps <= pages.len() + 1, "it goes in a circle");
                let mut next = at + 1;
                if let Some((from, to)) = jump && from == at && to <= at {
                    next = to;
                }
                let cursor = pages.get(next).map(|page| page[0].clone());
                let went = trail.follow(asked.as_deref(), pages[at].iter().map(String::as_str), cursor.as_deref());
                if went.is_err() {
                    repeated = true;
                    break;
                }
                (asked, at) = (cursor, next);
            }
            let jumped = jump.is_some_and(|(from, to)| from < pages.len() && to <= from);
            prop_assert_eq!(repeated, jumped);
        }
    }
}
