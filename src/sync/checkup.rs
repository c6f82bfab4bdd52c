//! A checkup: what was looked at, and what came of it.

use serde::Serialize;

/// What came of looking at one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is as it should be.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// The daemon would not start, or would not do what it is there for.
    Problem,
    /// It could not be looked at, because of another problem.
    Skipped,
}

/// One thing that was looked at. Holds no value of a row and no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, e.g. `hubspot.properties`; stable.
    pub check: &'static str,
    /// Whose: an object's or a table's name, or empty.
    pub about: String,
    /// What came of it.
    pub state: State,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            check,
            about: String::new(),
            state: State::Ok,
            message: message.into(),
            hint: None,
        }
    }

    /// Something that somebody should look at.
    pub fn warning(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding {
            state: State::Warning,
            hint: Some(hint.into()),
            ..Finding::ok(check, message)
        }
    }

    /// Something that is wrong.
    pub fn problem(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding {
            state: State::Problem,
            ..Finding::warning(check, message, hint)
        }
    }

    /// Something that could not be looked at; why.
    pub fn skipped(check: &'static str, why: impl Into<String>) -> Finding {
        Finding {
            state: State::Skipped,
            ..Finding::ok(check, why)
        }
    }

    /// The same, of this object or table.
    #[must_use]
    pub fn about(self, about: impl Into<String>) -> Finding {
        Finding {
            about: about.into(),
            ..self
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkup {
    /// Whether there is no problem.
    pub ok: bool,
    /// How many problems there are.
    pub problems: usize,
    /// How many warnings there are.
    pub warnings: usize,
    /// One by one, in the order in which they were looked at.
    pub checks: Vec<Finding>,
}

impl Checkup {
    /// Adds up findings.
    pub fn of(checks: Vec<Finding>) -> Checkup {
        let count = |state: State| checks.iter().filter(|finding| finding.state == state).count();
        let (problems, warnings) = (count(State::Problem), count(State::Warning));
        Checkup {
            ok: problems == 0,
            problems,
            warnings,
            checks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_problem_is_one() {
        let fine = [
            Finding::ok("a", "is well"),
            Finding::warning("b", "is odd", "look"),
            Finding::skipped("c", "not asked"),
        ];
        let checkup = Checkup::of(fine.to_vec());
        assert_eq!((checkup.ok, checkup.problems, checkup.warnings), (true, 0, 1));
        let worse = [&fine[..], &[Finding::problem("d", "is wrong", "mend it")]].concat();
        let checkup = Checkup::of(worse);
        assert_eq!((checkup.ok, checkup.problems, checkup.warnings), (false, 1, 1));
    }

    #[test]
    fn the_fields_of_json_are_stable() {
        let checkup = Checkup::of(vec![
            Finding::problem("tables", "is wrong", "mend it").about("bookings"),
        ]);
        let json = serde_json::to_value(checkup).expect("it is plain data");
        assert_eq!(
            json,
            serde_json::json!({"ok": false, "problems": 1, "warnings": 0, "checks": [{"check": "tables",
                "about": "bookings", "state": "problem", "message": "is wrong", "hint": "mend it"}]})
        );
    }
}
