//! The link memory, `hubsyncd.link`: what is written there beside receipts, and who else linked a pair.
//!
//! Our own table: nothing of the application can refuse or delay what is written here.

use super::pipeline::{self, Step};
use super::{Error, Session, lease};
use crate::mapping::{Link, Mapping};
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::linking::{Beside, Found, NOW, Note, Pair, Remembered, State};
use tokio_postgres::types::Type;

/// Commits what is remembered of links, while the lease is of this generation. One round trip.
///
/// # Errors
/// [`ErrorKind::Fenced`](super::ErrorKind::Fenced) if that generation is gone, else what the database says.
pub async fn note(
    session: &Session,
    object: &str,
    generation: i64,
    noted: &[(Key, Note)],
) -> Result<(), Error> {
    let borrowed: Vec<(&str, &Note)> = noted.iter().map(|(key, note)| (&**key, note)).collect();
    let mut steps = statements(object, &borrowed, Some(generation));
    steps.push(lease::hold(generation));
    let doing = || format!("noting {} links of {object}", noted.len());
    let answer = pipeline::send(session, &steps).await;
    let answer = answer.map_err(|error| Error::from_client(doing(), error))?;
    if answer.last().is_none_or(Vec::is_empty) {
        return Err(lease::gone(doing()));
    }
    Ok(())
}

/// The statements that write notes, as (row's key, note), in a receipt.
pub(super) fn notes<'a>(object: &'a str, noted: &[(&'a str, &'a Note)]) -> Vec<Step<'a>> {
    statements(object, noted, None)
}

/// The same, each only while the lease is of this generation, if one is given.
fn statements<'a>(object: &'a str, noted: &[(&'a str, &'a Note)], generation: Option<i64>) -> Vec<Step<'a>> {
    let over: Vec<(&str, &Note)> = noted
        .iter()
        .filter(|(_, note)| note.row.is_none())
        .copied()
        .collect();
    let rows: Vec<(&str, &str, &Remembered)> = noted
        .iter()
        .filter_map(|(key, note)| Some((*key, &*note.link, note.row.as_ref()?)))
        .collect();
    let mut steps = Vec::new();
    if !over.is_empty() {
        steps.push(under(generation, "$5", |held| forget(object, &over, held)));
    }
    if !rows.is_empty() {
        steps.push(under(generation, "$9", |held| remember(object, &rows, held)));
    }
    steps
}

/// A statement with the lease's row, whose generation is the last parameter, among what it reads; or without.
fn under<'a>(generation: Option<i64>, parameter: &str, statement: impl FnOnce(&str) -> Step<'a>) -> Step<'a> {
    match generation {
        None => statement(""),
        Some(generation) => statement(&format!(", {}", lease::held(parameter))).with(generation, Type::INT8),
    }
}

fn forget<'a>(object: &'a str, over: &[(&'a str, &'a Note)], held: &str) -> Step<'a> {
    let texts = |of: fn(&(&'a str, &'a Note)) -> &'a str| over.iter().map(of).collect::<Vec<&str>>();
    Step::new(format!(
        "DELETE FROM hubsyncd.link AS l USING unnest($2::text[], $3::text[], $4::text[]) AS v (key, link, to_id){held} \
         WHERE l.object = $1 AND l.key = v.key AND l.link = v.link AND l.to_id = v.to_id"
    ))
    .with(object, Type::TEXT)
    .with(texts(|over| over.0), Type::TEXT_ARRAY)
    .with(texts(|over| &over.1.link), Type::TEXT_ARRAY)
    .with(texts(|over| &over.1.to), Type::TEXT_ARRAY)
}

fn remember<'a>(object: &'a str, rows: &[(&'a str, &'a str, &'a Remembered)], held: &str) -> Step<'a> {
    let texts =
        |of: fn(&(&'a str, &'a str, &'a Remembered)) -> &'a str| rows.iter().map(of).collect::<Vec<&str>>();
    let from: Vec<Option<&str>> = rows.iter().map(|row| row.2.from.as_deref()).collect();
    let unsettled: Vec<Option<i64>> = rows.iter().map(|row| row.2.unsettled).collect();
    Step::new(format!(
        "INSERT INTO hubsyncd.link (object, key, link, to_id, state, from_id, found, unsettled_at) \
         SELECT $1, v.key, v.link, v.to_id, v.state, v.from_id, v.found, CASE WHEN v.unsettled = {NOW} THEN \
         clock_timestamp() ELSE 'epoch'::timestamptz + v.unsettled * interval '1 microsecond' END FROM \
         unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[]) AS v (key, link, \
         to_id, state, from_id, found, unsettled){held} ON CONFLICT (object, key, link, to_id) DO UPDATE SET \
         state = excluded.state, from_id = excluded.from_id, found = excluded.found, \
         unsettled_at = excluded.unsettled_at"
    ))
    .with(object, Type::TEXT)
    .with(texts(|row| row.0), Type::TEXT_ARRAY)
    .with(texts(|row| row.1), Type::TEXT_ARRAY)
    .with(texts(|row| &row.2.to), Type::TEXT_ARRAY)
    .with(texts(|row| row.2.state.as_str()), Type::TEXT_ARRAY)
    .with(from, Type::TEXT_ARRAY)
    .with(texts(|row| row.2.found.as_str()), Type::TEXT_ARRAY)
    .with(unsettled, Type::INT8_ARRAY)
}

/// Our links between the same two records, for each pair of one link, given with the row's key: this very one, those
/// of other rows that hold the same record, of other links of the row, and of links declared in the other direction.
/// One round trip.
///
/// # Errors
/// What the database says.
pub async fn beside(
    session: &Session,
    mapping: &Mapping,
    object: ObjectIndex,
    link: usize,
    pairs: &[(Key, Pair)],
) -> Result<Vec<Vec<Beside>>, Error> {
    let mut found = vec![Vec::new(); pairs.len()];
    if pairs.is_empty() {
        return Ok(found);
    }
    let own = &mapping.objects[object].links[link];
    let kinds = kinds(mapping, object, own);
    let kind = |of: fn(&Kind) -> &str| kinds.iter().map(of).collect::<Vec<&str>>();
    let flags = |of: fn(&Kind) -> bool| kinds.iter().map(of).collect::<Vec<bool>>();
    let own_name = own.name();
    let sql = "SELECT v.n, k.same, l.found, l.state, (l.object, l.link, l.key) = ($8::text, $9::text, v.key) FROM unnest($1::text[], $2::text[], $3::text[]) \
               WITH ORDINALITY AS v (key, from_id, to_id, n) CROSS JOIN unnest($4::text[], $5::text[], $6::boolean[], \
               $7::boolean[]) AS k (object, link, same, reversed) JOIN hubsyncd.link AS l ON l.object = k.object AND \
               l.link = k.link AND l.to_id = CASE WHEN k.reversed THEN v.from_id ELSE v.to_id END AND \
               l.from_id = CASE WHEN k.reversed THEN v.to_id ELSE v.from_id END";
    let step = Step::new(sql)
        .with(
            pairs.iter().map(|(key, _)| &**key).collect::<Vec<&str>>(),
            Type::TEXT_ARRAY,
        )
        .with(
            pairs.iter().map(|(_, pair)| &*pair.from).collect::<Vec<&str>>(),
            Type::TEXT_ARRAY,
        )
        .with(
            pairs.iter().map(|(_, pair)| &*pair.to).collect::<Vec<&str>>(),
            Type::TEXT_ARRAY,
        )
        .with(kind(|kind| &kind.object), Type::TEXT_ARRAY)
        .with(kind(|kind| &kind.link), Type::TEXT_ARRAY)
        .with(flags(|kind| kind.same), Type::BOOL_ARRAY)
        .with(flags(|kind| kind.reversed), Type::BOOL_ARRAY)
        .with(&*mapping.objects[object].name, Type::TEXT)
        .with(&*own_name, Type::TEXT);
    let doing = || {
        format!(
            "asking who else linked {} pairs of {}",
            pairs.len(),
            mapping.objects[object].name
        )
    };
    let answer = pipeline::send(session, &[step]).await;
    for row in answer
        .map_err(|error| Error::from_client(doing(), error))?
        .iter()
        .flatten()
    {
        let at = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
        if let Some(found) = found.get_mut(at) {
            found.push(Beside {
                own: row.get(4),
                same: row.get(1),
                found: Found::of(row.get(2)),
                state: State::of(row.get(3)),
            });
        }
    }
    Ok(found)
}

/// A link of the mapping that associates records of the same two types.
struct Kind {
    object: String,
    link: String,
    same: bool,
    reversed: bool,
}

fn kinds(mapping: &Mapping, object: ObjectIndex, own: &Link) -> Vec<Kind> {
    let type_of = |name: &str| {
        let object = mapping.objects.iter().find(|object| object.name == name);
        object.map(|object| object.object_type.as_str())
    };
    let ends = (
        Some(mapping.objects[object].object_type.as_str()),
        type_of(&own.to),
    );
    let mut kinds = Vec::new();
    for object in &mapping.objects {
        for link in &object.links {
            let others = (Some(object.object_type.as_str()), type_of(&link.to));
            for (reversed, others) in [(false, others), (true, (others.1, others.0))] {
                if others == ends {
                    // A label's name in the other direction may differ, so a label is never taken for the same there.
                    let same = link.label == own.label && (!reversed || own.label.is_none());
                    kinds.push(Kind {
                        object: object.name.clone(),
                        link: link.name(),
                        same,
                        reversed,
                    });
                }
            }
        }
    }
    kinds
}
