//! Writing the mirror: pages of records as HubSpot wrote them, a statement each; and where the passes stand.
//!
//! Everything is written under a generation of the lease, so that a daemon that lost it writes nothing over its
//! successor's pages. The counts of `hubsyncd.mirror_state` are kept up in the statement that changes what they count.

mod statement;
mod store;

pub use store::{Page, Stored, Typed, store};

use super::pipeline::{self, Step};
use super::{Error, ErrorKind, Session, lease};
use crate::mapping::Mirrored;
use crate::sync::mirror::Standing;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// A moment as microseconds since the Unix epoch.
fn micros(column: &str) -> String {
    format!("(extract(epoch FROM {column}) * 1000000)::bigint")
}

/// The columns of a [`Standing`], in the order of [`standing`].
fn columns() -> String {
    format!(
        "kind, pass, {begun}, cursor, listed, modified_from, {complete}, {caught_up}, {synced}, synced, pending, error, \
         archived",
        begun = micros("begun_at"),
        complete = micros("complete_as_of"),
        caught_up = micros("caught_up_at"),
        synced = micros("last_synced_at"),
    )
}

fn standing(row: &Row) -> Option<Standing> {
    Some(Standing {
        kind: Mirrored::named(row.get(0))?,
        pass: row.get(1),
        begun_at: row.get(2),
        cursor: row.get(3),
        listed: row.get(4),
        modified_from: row.get(5),
        complete_as_of: row.get(6),
        caught_up_at: row.get(7),
        last_synced_at: row.get(8),
        synced: row.get(9),
        pending: row.get(10),
        error: row.get(11),
        archived: row.get(12),
    })
}

/// Where every kind stands, and the database's time, microseconds since the Unix epoch.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn standings(session: &Session) -> Result<(Vec<Standing>, i64), Error> {
    let sql = format!(
        "SELECT {}, {} FROM hubsyncd.mirror_state",
        columns(),
        micros("clock_timestamp()")
    );
    let rows = ask(session, Step::new(sql), "asking where the mirror stands").await?;
    let now = rows.first().map_or(0, |row| row.get(13));
    Ok((rows.iter().filter_map(standing).collect(), now))
}

/// Notes how old a record may be, for the views.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn configure(session: &Session, stale_after: i64) -> Result<(), Error> {
    let sql = "UPDATE hubsyncd.mirror_state SET stale_after = $1 * interval '1 microsecond' \
               WHERE stale_after IS DISTINCT FROM $1 * interval '1 microsecond'";
    let step = Step::new(sql).with(stale_after, Type::INT8);
    ask(session, step, "noting how old the mirror may be").await?;
    Ok(())
}

/// Changes a kind's state under a generation of the lease; `set` is our own SQL, whose parameters begin with `$3`.
async fn change(
    session: &Session,
    generation: i64,
    kind: Mirrored,
    set: &str,
    more: impl FnOnce(Step<'static>) -> Step<'static>,
) -> Result<Standing, Error> {
    let doing = "writing down where the mirror stands";
    let sql = format!(
        "UPDATE hubsyncd.mirror_state SET {set} FROM {held} WHERE kind = $2 RETURNING {columns}",
        held = lease::held("$1"),
        columns = columns(),
    );
    let step = Step::new(sql)
        .with(generation, Type::INT8)
        .with(kind.name(), Type::TEXT);
    let rows = ask(session, more(step), doing).await?;
    rows.first().and_then(standing).ok_or_else(|| lease::gone(doing))
}

/// Begins a full pass.
///
/// # Errors
/// [`ErrorKind::Fenced`] if the lease is lost, else [`Error`] as the database has it.
pub async fn begin(session: &Session, generation: i64, kind: Mirrored) -> Result<Standing, Error> {
    let set = "pass = pass + 1, begun_at = clock_timestamp(), cursor = NULL, listed = 0";
    change(session, generation, kind, set, |step| step).await
}

/// What is listed so far is not to be built upon: the next full pass begins anew.
///
/// # Errors
/// As [`begin`].
pub async fn give_up(session: &Session, generation: i64, kind: Mirrored) -> Result<Standing, Error> {
    change(
        session,
        generation,
        kind,
        "begun_at = NULL, cursor = NULL",
        |step| step,
    )
    .await
}

/// Ends a full pass: the kind is complete as of its begin. The counts are counted anew, so that what somebody else did to
/// the table is in them too.
///
/// # Errors
/// As [`begin`].
pub async fn complete(session: &Session, generation: i64, kind: Mirrored) -> Result<Standing, Error> {
    let status =
        |status: &str| format!("count(*) FILTER (WHERE NOT m.archived AND m.sync_status = '{status}')");
    let set = format!(
        "complete_as_of = begun_at, caught_up_at = greatest(caught_up_at, begun_at), begun_at = NULL, cursor = NULL, \
         (synced, pending, error, archived) = (SELECT {}, {}, {}, count(*) FILTER (WHERE m.archived) \
         FROM hubsyncd.mirror_{} m)",
        status("synced"),
        status("pending"),
        status("error"),
        kind.name()
    );
    change(session, generation, kind, &set, |step| step).await
}

/// An incremental pass has come so far; `begun_at` (microseconds since the Unix epoch) when it has ended.
///
/// # Errors
/// As [`begin`].
pub async fn caught_up(
    session: &Session,
    generation: i64,
    kind: Mirrored,
    modified_from: i64,
    begun_at: Option<i64>,
) -> Result<Standing, Error> {
    let set = "modified_from = greatest(modified_from, $3), caught_up_at = \
               greatest(caught_up_at, 'epoch'::timestamptz + $4 * interval '1 microsecond')";
    change(session, generation, kind, set, |step| {
        step.with(modified_from, Type::INT8).with(begun_at, Type::INT8)
    })
    .await
}

/// Records that the full pass has not seen, after this one, in any order that stays: their ids.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn unseen(
    session: &Session,
    kind: Mirrored,
    after: &str,
    limit: usize,
) -> Result<Vec<String>, Error> {
    let name = kind.name();
    let sql = format!(
        "SELECT hubspot_id FROM hubsyncd.mirror_{name} WHERE hubspot_id > $1 \
         AND pass < (SELECT pass FROM hubsyncd.mirror_state WHERE kind = '{name}') ORDER BY hubspot_id LIMIT $2"
    );
    let step = Step::new(sql)
        .with(after, Type::TEXT)
        .with(i64::try_from(limit).unwrap_or(i64::MAX), Type::INT8);
    let rows = ask(session, step, "looking for records that a pass has not seen").await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Which records that the full pass has not seen are named by others as merged into them. It reads the whole table once.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn merged(session: &Session, kind: Mirrored) -> Result<Vec<String>, Error> {
    let name = kind.name();
    let sql = format!(
        "WITH named AS MATERIALIZED (SELECT DISTINCT w.id FROM hubsyncd.mirror_{name} m, \
         LATERAL unnest(regexp_split_to_array(m.properties ->> 'hs_merged_object_ids', '[;,[:space:]]+')) AS w (id) \
         WHERE m.properties ->> 'hs_merged_object_ids' <> '' AND NOT m.archived) \
         SELECT n.id FROM named n JOIN hubsyncd.mirror_{name} u ON u.hubspot_id = n.id \
         WHERE u.pass < (SELECT pass FROM hubsyncd.mirror_state WHERE kind = '{name}')"
    );
    let rows = ask(session, Step::new(sql), "looking for merged records").await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Which of these records are not here as they were when modified at these times: ids and HubSpot's texts of the times.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn changed(
    session: &Session,
    kind: Mirrored,
    ids: &[&str],
    modified: &[i64],
) -> Result<Vec<String>, Error> {
    let sql = format!(
        "SELECT w.id FROM unnest($1::text[], $2::bigint[]) AS w (id, modified) \
         LEFT JOIN hubsyncd.mirror_{} m ON m.hubspot_id = w.id AND NOT m.archived AND m.sync_status <> 'error' \
         AND hubsyncd.mirror_moment(m.properties ->> '{}') = 'epoch'::timestamptz + w.modified * interval '1 millisecond' \
         WHERE m.hubspot_id IS NULL",
        kind.name(),
        kind.modified()
    );
    let step = Step::new(sql)
        .with(ids, Type::TEXT_ARRAY)
        .with(modified, Type::INT8_ARRAY);
    let rows = ask(session, step, "looking for what has changed").await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Takes records away with their associations: gone ones from the table, archived ones from the associations alone.
/// Answers how many rows went, and where the kind stands.
///
/// # Errors
/// As [`begin`].
pub async fn remove(
    session: &Session,
    generation: i64,
    kind: Mirrored,
    gone: &[&str],
    archived: &[&str],
) -> Result<(u64, Standing), Error> {
    let name = kind.name();
    let sql = format!(
        "WITH lease AS MATERIALIZED (SELECT * FROM {held}), \
         gone AS (DELETE FROM hubsyncd.mirror_{name} m USING lease WHERE m.hubspot_id = ANY ($2) \
             RETURNING m.sync_status, m.archived), \
         linked AS (DELETE FROM hubsyncd.mirror_association a USING lease \
             WHERE a.from_kind = '{name}' AND a.from_id = ANY ($2 || $3)), \
         linking AS (DELETE FROM hubsyncd.mirror_association a USING lease \
             WHERE a.to_kind = '{name}' AND a.to_id = ANY ($2 || $3) AND a.from_kind <> '{name}') \
         UPDATE hubsyncd.mirror_state SET \
             synced = synced - (SELECT count(*) FROM gone WHERE NOT gone.archived AND sync_status = 'synced'), \
             pending = pending - (SELECT count(*) FROM gone WHERE NOT gone.archived AND sync_status = 'pending'), \
             error = error - (SELECT count(*) FROM gone WHERE NOT gone.archived AND sync_status = 'error'), \
             archived = mirror_state.archived - (SELECT count(*) FROM gone WHERE gone.archived) \
         FROM lease WHERE kind = '{name}' RETURNING {columns}, (SELECT count(*) FROM gone)",
        held = lease::held("$1"),
        columns = columns().replace(" archived", " mirror_state.archived"),
    );
    let step = Step::new(sql)
        .with(generation, Type::INT8)
        .with(gone, Type::TEXT_ARRAY)
        .with(archived, Type::TEXT_ARRAY);
    let doing = "taking records out of the mirror";
    let rows = ask(session, step, doing).await?;
    let row = rows.first().ok_or_else(|| lease::gone(doing))?;
    let removed: i64 = row.get(13);
    let standing = standing(row).ok_or_else(|| Error::new(ErrorKind::Other, doing))?;
    Ok((u64::try_from(removed).unwrap_or_default(), standing))
}

/// Lets records be associated with exactly these others of a kind.
///
/// # Errors
/// As [`begin`].
pub async fn link(
    session: &Session,
    generation: i64,
    (from, to): (Mirrored, Mirrored),
    of: &[&str],
    pairs: &[(&str, &str)],
) -> Result<(), Error> {
    let (froms, tos): (Vec<&str>, Vec<&str>) = pairs.iter().copied().unzip();
    let sql = format!(
        "WITH lease AS MATERIALIZED (SELECT 1 AS held FROM {held}), \
         wanted AS MATERIALIZED (SELECT DISTINCT w.from_id, w.to_id FROM lease, unnest($3::text[], $4::text[]) \
             AS w (from_id, to_id)), \
         unlinked AS (DELETE FROM hubsyncd.mirror_association a USING lease \
             WHERE a.from_kind = '{from}' AND a.from_id = ANY ($2) AND a.to_kind = '{to}' \
             AND (a.from_id, a.to_id) NOT IN (SELECT w.from_id, w.to_id FROM wanted w)), \
         linked AS (INSERT INTO hubsyncd.mirror_association \
             SELECT '{from}', w.from_id, '{to}', w.to_id FROM wanted w ON CONFLICT DO NOTHING) \
         SELECT held FROM lease",
        held = lease::held("$1"),
        from = from.name(),
        to = to.name(),
    );
    let step = Step::new(sql)
        .with(generation, Type::INT8)
        .with(of, Type::TEXT_ARRAY)
        .with(froms, Type::TEXT_ARRAY)
        .with(tos, Type::TEXT_ARRAY);
    let doing = "mirroring associations";
    match ask(session, step, doing).await?.first() {
        Some(_) => Ok(()),
        None => Err(lease::gone(doing)),
    }
}

/// Writes down, for at most `limit` records, that no pass has confirmed them for `stale-after`. Answers how many, and
/// where the kind stands.
///
/// # Errors
/// As [`begin`].
pub async fn age(
    session: &Session,
    generation: i64,
    kind: Mirrored,
    limit: i64,
) -> Result<(i64, Standing), Error> {
    let name = kind.name();
    let sql = format!(
        "WITH lease AS MATERIALIZED (SELECT * FROM {held}), \
         old AS (SELECT m.hubspot_id FROM hubsyncd.mirror_{name} m WHERE m.sync_status = 'synced' AND NOT m.archived \
             AND m.last_synced_at < now() - (SELECT stale_after FROM hubsyncd.mirror_state WHERE kind = '{name}') LIMIT $2), \
         aged AS (UPDATE hubsyncd.mirror_{name} m SET sync_status = 'pending' FROM lease \
             WHERE m.hubspot_id IN (SELECT hubspot_id FROM old) RETURNING 1) \
         UPDATE hubsyncd.mirror_state SET synced = synced - (SELECT count(*) FROM aged), \
             pending = pending + (SELECT count(*) FROM aged) \
         FROM lease WHERE kind = '{name}' RETURNING {columns}, (SELECT count(*) FROM aged)",
        held = lease::held("$1"),
        columns = columns(),
    );
    let step = Step::new(sql)
        .with(generation, Type::INT8)
        .with(limit, Type::INT8);
    let doing = "writing down what the mirror has not confirmed";
    let rows = ask(session, step, doing).await?;
    let row = rows.first().ok_or_else(|| lease::gone(doing))?;
    let standing = standing(row).ok_or_else(|| Error::new(ErrorKind::Other, doing))?;
    Ok((row.get(13), standing))
}

async fn ask(session: &Session, step: Step<'_>, doing: &'static str) -> Result<Vec<Row>, Error> {
    let answers = pipeline::send(session, &[step]).await;
    let answers = answers.map_err(|error| Error::from_client(doing, error))?;
    Ok(answers.into_iter().flatten().collect())
}
