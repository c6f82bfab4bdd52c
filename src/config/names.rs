//! Names in the file: of objects, columns, tables and HubSpot's object types.

use super::section::{Fault, choose, text};
use crate::mapping::TableName;
use toml::de::DeValue;

/// The name of an object: it becomes part of trigger names, metrics and log lines.
pub(super) fn object_name(value: &DeValue<'_>) -> Result<String, Fault> {
    let name = text(value)?;
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if name.len() <= 40
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(plain)
    {
        Ok(name)
    } else {
        let hint = "a letter, then lower-case letters, digits and _, at most 40";
        Err(Fault::new(format!("\"{name}\" is no name for an object"), hint))
    }
}

/// HubSpot's object type id; the four that have a name may be called by it.
pub(super) fn object_type(value: &DeValue<'_>) -> Result<String, Fault> {
    let given = text(value)?;
    let named = [
        ("contacts", "0-1"),
        ("companies", "0-2"),
        ("deals", "0-3"),
        ("tickets", "0-5"),
    ];
    let digits =
        |part: &str| !part.is_empty() && part.len() <= 20 && part.bytes().all(|byte| byte.is_ascii_digit());
    if choose(value, &named).is_ok()
        || given
            .split_once('-')
            .is_some_and(|(meta, id)| digits(meta) && digits(id))
    {
        Ok(choose(value, &named).map_or(given, str::to_owned))
    } else {
        let hint = "two numbers with a dash, e.g. \"0-1\" for contacts or \"2-50158943\" for an object of the portal's";
        Err(Fault::new(format!("\"{given}\" is no object type id"), hint))
    }
}

/// A column's name, as it stands in the database, without quotes.
pub(super) fn column_name(value: &DeValue<'_>) -> Result<String, Fault> {
    let name = text(value)?;
    identifier(&name)?;
    Ok(name)
}

/// Postgres cuts longer names off silently, and takes no NUL.
pub(super) fn identifier(name: &str) -> Result<(), Fault> {
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        return Err(Fault::new(
            format!("\"{}\" cannot be a name in Postgres", name.escape_default()),
            "1 to 63 bytes, without NUL",
        ));
    }
    Ok(())
}

/// `schema.table`; a part that contains a dot stands in double quotes, as in SQL.
pub(super) fn table_name(text: &str) -> Result<TableName, Fault> {
    let wrong = || {
        Fault::new(
            format!("\"{text}\" is not schema.table"),
            "e.g. \"public.bookings\"",
        )
    };
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
            closing_quote(quoted).ok_or_else(wrong)?
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        identifier(&part)?;
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => break,
            None => return Err(wrong()),
        }
    }
    match <[String; 2]>::try_from(parts) {
        Ok([schema, name]) => Ok(TableName { schema, name }),
        Err(_) => Err(wrong()),
    }
}

/// What stands before the closing quote, with `""` for `"`, and what follows it.
fn closing_quote(quoted: &str) -> Option<(String, &str)> {
    let mut from = 0;
    loop {
        let at = from + quoted.get(from..)?.find('"')?;
        if quoted[at + 1..].starts_with('"') {
            from = at + 2;
        } else {
            return Some((quoted[..at].replace("\"\"", "\""), &quoted[at + 1..]));
        }
    }
}
