//! The causes of failures: those that differ only in the numbers and ids of their messages are one.

use super::failures::naming;
use super::pipeline::{self, Step};
use super::{Error, Session};
use crate::sync::report::{Cause, CauseName};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// A message without what tells one record of the same cause from another: numbers, and words of hexadecimal digits and
/// hyphens.
const SHAPE: &str = r"regexp_replace(message, '\m[0-9a-f-]*[0-9][0-9a-f-]*\M', '…', 'g')";

/// The causes, the most frequent first and at most `limit`, and how many more there are.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn list(session: &Session, limit: usize) -> Result<(Vec<Cause>, u64), Error> {
    let sql = format!(
        "SELECT object, category, shape, count(*), min(message), \
         (extract(epoch FROM min(first_failed_at)) * 1000000)::bigint, \
         (extract(epoch FROM max(last_failed_at)) * 1000000)::bigint, min(key), count(*) OVER () \
         FROM (SELECT object, category, {SHAPE} AS shape, message, key, first_failed_at, last_failed_at FROM hubsyncd.failure) f \
         GROUP BY object, category, shape \
         ORDER BY (category = 'paused') DESC, count(*) DESC, object, category, shape LIMIT $1"
    );
    let step = Step::new(sql).with(i64::try_from(limit).unwrap_or(i64::MAX), Type::INT8);
    let answers = pipeline::send(session, &[step]).await;
    let answers = answers.map_err(|error| Error::from_client("grouping the failures by cause", error))?;
    let rows = || answers.iter().flatten();
    let all = rows().next().map_or(0, |row| row.get::<_, i64>(8).unsigned_abs());
    let causes: Vec<Cause> = rows().map(cause).collect();
    let more = all.saturating_sub(causes.len() as u64);
    Ok((causes, more))
}

fn cause(row: &Row) -> Cause {
    Cause {
        name: CauseName {
            object: row.get(0),
            category: row.get(1),
            shape: row.get(2),
        },
        records: row.get::<_, i64>(3).unsigned_abs(),
        message: row.get(4),
        first_failed_at: row.get(5),
        last_failed_at: row.get(6),
        key: Some(row.get::<_, String>(7)).filter(|key| !key.is_empty()),
    }
}

/// Names the rows of a cause as changed, so that they are tried again. Answers how many. Rings no doorbell: look
/// afterwards.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn retry(session: &Session, cause: &CauseName) -> Result<u64, Error> {
    let sql = naming(&format!("object = $1 AND category = $2 AND {SHAPE} = $3"));
    let parameters = [&cause.object, &cause.category, &cause.shape];
    let [object, category, shape] = parameters.map(|text| (text as _, Type::TEXT));
    let named = session.execute_typed(&sql, &[object, category, shape]).await;
    named.map_err(|error| Error::from_client("naming the failed rows of a cause", error))
}
