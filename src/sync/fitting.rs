//! Fitting: whether what a column becomes is what HubSpot's property takes, and which rights a token needs.
//!
//! Whether a single value is taken only HubSpot can say; here is what can be known beforehand, so that a mapping whose
//! every record would be refused is told apart from one whose odd value may be.

/// What a property's values look like as they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Text,
    /// A plain decimal.
    Number,
    /// `true` or `false`.
    Bool,
    /// `2026-03-01`.
    Date,
    /// `2026-03-01T12:00:00.000Z`.
    DateTime,
    /// `a;b`.
    List,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Form::Text => "text",
            Form::Number => "a number",
            Form::Bool => "true or false",
            Form::Date => "a date",
            Form::DateTime => "a date with a time",
            Form::List => "a list",
        })
    }
}

/// Whether a form fits a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Every value, as far as its form goes.
    Always,
    /// It depends on the value.
    Sometimes,
    /// No value.
    Never,
}

/// Whether values of a form fit a property of HubSpot's type `kind` (`string`, `number`, …). What is not known here is
/// HubSpot's to judge.
pub fn fit(form: Form, kind: &str) -> Fit {
    match (kind, form) {
        ("number", Form::Number)
        | ("bool", Form::Bool)
        | ("date", Form::Date)
        | ("datetime", Form::DateTime | Form::Date)
        | ("enumeration", Form::Text | Form::Number | Form::Bool | Form::List) => Fit::Always,
        ("number" | "bool" | "date" | "datetime", Form::Text)
        | ("bool" | "datetime", Form::Number)
        | ("date", Form::DateTime)
        | ("enumeration", Form::Date | Form::DateTime) => Fit::Sometimes,
        ("number" | "bool" | "date" | "datetime", _) => Fit::Never,
        _ => Fit::Always,
    }
}

/// The two scopes that pushing records of an object type takes: to read, and to write. `None` for types of which it is
/// not known here.
pub fn scopes(object_type: &str) -> Option<[String; 2]> {
    let family = match object_type {
        "0-1" => "contacts",
        "0-2" => "companies",
        "0-3" => "deals",
        custom if custom.starts_with("2-") => "custom",
        _ => return None,
    };
    Some(["read", "write"].map(|right| format!("crm.objects.{family}.{right}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: [Form; 6] = [
        Form::Text,
        Form::Number,
        Form::Bool,
        Form::Date,
        Form::DateTime,
        Form::List,
    ];

    #[test]
    fn each_type_takes_its_own_form_and_text_takes_everything() {
        for (kind, form) in [
            ("number", Form::Number),
            ("bool", Form::Bool),
            ("date", Form::Date),
            ("datetime", Form::DateTime),
            ("enumeration", Form::List),
        ] {
            assert_eq!(fit(form, kind), Fit::Always, "{kind}");
            assert_ne!(fit(Form::Text, kind), Fit::Never, "{kind}: any text may be one");
        }
        for form in FORMS {
            for kind in ["string", "phone_number", "json", "something new"] {
                assert_eq!(fit(form, kind), Fit::Always, "{kind} {form}");
            }
        }
    }

    #[test]
    fn what_can_never_be_taken_is_told_from_what_may_be() {
        assert_eq!(fit(Form::Date, "number"), Fit::Never);
        assert_eq!(fit(Form::Bool, "number"), Fit::Never);
        assert_eq!(fit(Form::List, "date"), Fit::Never);
        assert_eq!(fit(Form::Number, "date"), Fit::Never);
        assert_eq!(
            fit(Form::Number, "bool"),
            Fit::Sometimes,
            "0 and 1 are sent as bools"
        );
        assert_eq!(fit(Form::DateTime, "date"), Fit::Sometimes);
    }

    #[test]
    fn a_custom_objects_scopes_are_those_of_custom_objects() {
        assert_eq!(
            scopes("2-50158943"),
            Some(["crm.objects.custom.read", "crm.objects.custom.write"].map(str::to_owned))
        );
        assert_eq!(scopes("0-421"), None);
    }
}
