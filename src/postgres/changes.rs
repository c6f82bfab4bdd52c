//! The change table: looking for what the triggers wrote, naming rows ourselves, deleting what was pushed.
//!
//! A look returns every visible change above the object's low-water mark ([`crate::sync::watermark`]), oldest
//! first, as far as there is room. It repeats rows that were returned before and not deleted since: whoever
//! looks keeps what it was given until it is forgotten, or calls [`Looker::reset`].
//!
//! The marks rest on two things that hold for every writer of the table: its transaction has an xid before it
//! draws a number, and the sequence hands out one number at a time (`CACHE 1`, as `bigserial` makes it).

use super::pipeline::{self, Step};
use super::{Error, ErrorKind, Session};
use crate::mapping::Mapping;
use crate::sync::change::{Change, Key, ObjectIndex, Op};
use crate::sync::watermark::{Horizon, Mark};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// The condition under which an INSERT into the change table selects its rows: it is checked before the
/// first number is drawn, and gives the transaction its xid.
pub(super) const XID_FIRST: &str = "pg_current_xact_id() IS NOT NULL";

const LAST_SEQ: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM hubsyncd.change_seq_seq";

/// What the planner believes of a queue is what a vacuum found, which is often an empty table; it would then sort all
/// rows that wait to return a hundred. Without a sort, a bitmap and a scan of the table only the walk along the primary key
/// is left, whatever the parameters are and however the queue grows: one plan serves all looks. A transaction of its own,
/// sent as one with the look, takes the settings back.
const LOOK_BEGINS: &str = "BEGIN READ ONLY; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off; \
    SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan";

/// `age` of an xid is its distance from the next one to be assigned, which no other function tells without
/// assigning it. One statement, hence one snapshot, for the horizon and the rows.
const LOOK: &str = "SELECT NULL::bigint, NULL::bigint, NULL::text, NULL::\"char\", NULL::text, NULL::bigint,
    pg_snapshot_xmin(s)::text::bigint,
    pg_snapshot_xmax(s)::text::bigint + age(pg_snapshot_xmax(s)::xid)
  FROM pg_current_snapshot() AS s
UNION ALL
SELECT b.position, c.seq, c.key, c.op, c.hubspot_id,
    (extract(epoch FROM c.captured_at) * 1000000)::bigint, NULL, NULL
  FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS b (object, floor, room, position)
  CROSS JOIN LATERAL (
    SELECT seq, key, op, hubspot_id, captured_at FROM hubsyncd.change
    WHERE object = b.object AND seq > b.floor ORDER BY seq LIMIT b.room
  ) AS c";

/// Looks at the change table; holds the low-water marks.
#[derive(Debug)]
pub struct Looker {
    objects: Vec<String>,
    marks: Vec<Mark>,
}

/// What a look saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The changes above the marks: by object, then oldest first. Some may have been returned before.
    pub changes: Vec<Change>,
    /// For each object, whether these are all the changes that are visible.
    pub complete: Vec<bool>,
}

impl Look {
    /// Whether nothing visible was left out.
    pub fn saw_everything(&self) -> bool {
        self.complete.iter().all(|complete| *complete)
    }
}

impl Looker {
    /// A looker that has seen nothing yet.
    pub fn new(mapping: &Mapping) -> Looker {
        let objects: Vec<String> = mapping.objects.iter().map(|object| object.name.clone()).collect();
        let marks = vec![Mark::default(); objects.len()];
        Looker { objects, marks }
    }

    /// Forgets the marks: the next look returns everything. Due on a new connection, and when the caller has let go
    /// of changes that are still in the table.
    pub fn reset(&mut self) {
        self.marks = vec![Mark::default(); self.objects.len()];
    }

    /// Below and at these numbers nothing is looked for any more, by object.
    pub fn marks(&self) -> impl Iterator<Item = i64> {
        self.marks.iter().map(Mark::floor)
    }

    /// Looks once, in one round trip, at all objects. `room` says how many changes of each object may come beside
    /// those returned before; an object without room is still asked whether it has more.
    ///
    /// The session must not be in a transaction. Dropped half-way, the look changes nothing.
    ///
    /// # Errors
    /// [`Error`] as the database has it; the marks stay as they are.
    pub async fn look(&mut self, session: &Session, room: &[usize]) -> Result<Look, Error> {
        let limits: Vec<usize> = self
            .marks
            .iter()
            .zip(room)
            .map(|(mark, room)| mark.above().saturating_add(*room))
            .collect();
        let floors: Vec<i64> = self.marks().collect();
        // One row more than asked for tells whether there is more.
        let rooms: Vec<i64> = limits
            .iter()
            .map(|limit| i64::try_from(*limit).map_or(i64::MAX, |limit| limit.saturating_add(1)))
            .collect();
        let steps = [
            Step::simple(LOOK_BEGINS),
            Step::new(LAST_SEQ).kept(),
            Step::new(LOOK)
                .with(&self.objects, Type::TEXT_ARRAY)
                .with(floors, Type::INT8_ARRAY)
                .with(rooms, Type::INT8_ARRAY)
                .kept(),
            Step::simple("COMMIT"),
        ];
        let answers = pipeline::send(session, &steps).await;
        let answers = answers.map_err(|error| Error::from_client("looking at the change table", error))?;
        drop(steps);
        let (horizon, mut seen) = self.sort(&answers)?;
        let mut complete = Vec::with_capacity(seen.len());
        for ((mark, changes), limit) in self.marks.iter_mut().zip(&mut seen).zip(limits) {
            changes.sort_unstable_by_key(|change| change.seq);
            let more = changes.len() > limit;
            changes.truncate(limit);
            let seqs: Vec<i64> = changes.iter().map(|change| change.seq).collect();
            let same_table = mark.looked(horizon, &seqs, more);
            complete.push(same_table && !more);
        }
        Ok(Look {
            changes: seen.into_iter().flatten().collect(),
            complete,
        })
    }

    fn sort(&self, answers: &[Vec<Row>]) -> Result<(Horizon, Vec<Vec<Change>>), Error> {
        let odd = || {
            Error::new(
                ErrorKind::Other,
                "the look at the change table came back without its snapshot",
            )
        };
        let [_, last_seq, rows, _] = answers else {
            return Err(odd());
        };
        let last_seq = last_seq.first().map(|row| row.get::<_, i64>(0)).ok_or_else(odd)?;
        let mut horizon = None;
        let mut seen: Vec<Vec<Change>> = self.objects.iter().map(|_| Vec::new()).collect();
        for row in rows {
            match row.get::<_, Option<i64>>(0) {
                Some(position) => {
                    let object = usize::try_from(position - 1).map_err(|_| odd())?;
                    seen.get_mut(object).ok_or_else(odd)?.push(change(object, row));
                }
                None => horizon = Some((row.get(6), row.get(7))),
            }
        }
        let (xmin, next_xid) = horizon.ok_or_else(odd)?;
        let horizon = Horizon {
            last_seq,
            next_xid,
            xmin,
        };
        Ok((horizon, seen))
    }
}

fn change(object: ObjectIndex, row: &Row) -> Change {
    let letter = row.get::<_, Option<i8>>(3).unwrap_or_default();
    Change {
        object,
        seq: row.get(1),
        key: row.get::<_, Option<&str>>(2).map(Key::from),
        op: Op::from_letter(letter.cast_unsigned()),
        hubspot_id: row.get(4),
        captured_at: row.get::<_, Option<i64>>(5).unwrap_or_default(),
    }
}

/// How many changes of each object are in the table; walks all of it.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn count(session: &Session, mapping: &Mapping) -> Result<Vec<u64>, Error> {
    let sql = "SELECT object, count(*) FROM hubsyncd.change GROUP BY object";
    let rows = session.query_typed(sql, &[]).await;
    let rows = rows.map_err(|error| Error::from_client("counting the change table", error))?;
    let mut counts = vec![0; mapping.objects.len()];
    for row in rows {
        if let Some(object) = mapping.position(row.get(0)) {
            counts[object] = row.get::<_, i64>(1).unsigned_abs();
        }
    }
    Ok(counts)
}

/// Appends a change for each key. It rings no doorbell: who names rows looks for them.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn name(session: &Session, object: &str, keys: &[Key], op: Op) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO hubsyncd.change (object, key, op) SELECT $1, k, $3 FROM unnest($2::text[]) AS k WHERE {XID_FIRST}"
    );
    let step = Step::new(sql)
        .with(object, Type::TEXT)
        .with(texts(keys), Type::TEXT_ARRAY)
        .with(op.letter().cast_signed(), Type::CHAR);
    let answer = pipeline::send(session, &[step]).await;
    answer.map_err(|error| Error::from_client(format!("naming {} rows of {object}", keys.len()), error))?;
    Ok(())
}

/// Deletes exactly these changes.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn forget(session: &Session, object: &str, seqs: &[i64]) -> Result<(), Error> {
    if seqs.is_empty() {
        return Ok(());
    }
    let answer = pipeline::send(session, &[deletion(object, seqs)]).await;
    answer
        .map_err(|error| Error::from_client(format!("deleting {} changes of {object}", seqs.len()), error))?;
    Ok(())
}

/// The statement that deletes exactly these changes. Each is looked up by itself: a planner that takes the queue for
/// empty would walk all of the object's rows instead.
pub(super) fn deletion<'a>(object: &'a str, seqs: impl ToSql + Sync + Send + 'a) -> Step<'a> {
    let sql = "DELETE FROM hubsyncd.change WHERE ctid = ANY (ARRAY(
        SELECT found.ctid FROM unnest($2::bigint[]) AS wanted (seq)
        CROSS JOIN LATERAL (
            SELECT c.ctid FROM hubsyncd.change AS c WHERE c.object = $1 AND c.seq = wanted.seq OFFSET 0
        ) AS found))";
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(seqs, Type::INT8_ARRAY)
}

/// Keys as a parameter.
pub(super) fn texts(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(|key| &**key).collect()
}
