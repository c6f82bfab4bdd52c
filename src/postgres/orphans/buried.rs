//! Buried creates: intents of creates whose outcome is not known and whose rows are gone.

use super::{BEGIN, Orphans};
use crate::postgres::pipeline::Step;
use crate::postgres::{Error, ErrorKind, Session, inventory, select};
use crate::sync::change::Key;
use std::collections::HashSet;
use tokio_postgres::types::Type;

/// A create that was sent, or was about to be, for a row that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buried {
    /// The row's key.
    pub key: Key,
    /// The natural key that it was sent under, as the row had it.
    pub match_value: String,
    /// When it was noted last, microseconds since the Unix epoch.
    pub noted_at: i64,
    /// When it was noted first, if it was repeated.
    pub first_at: i64,
}

impl Orphans {
    /// Of these rows, those that are gone from the table, not merely outside the mapping's condition, and that have a
    /// create whose outcome is not known.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the table may hide rows from this role, so that none is known to be gone; else
    /// [`Error`] as the database has it.
    pub async fn buried(&self, session: &Session, keys: &[Key]) -> Result<Vec<Buried>, Error> {
        let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
        let sql = "SELECT key, match_value, (extract(epoch FROM noted_at) * 1000000)::bigint, \
                   (extract(epoch FROM coalesce(first_at, noted_at)) * 1000000)::bigint FROM hubsyncd.intent \
                   WHERE object = $1 AND key = ANY($2) AND match_value IS NOT NULL AND hubspot_id IS NULL";
        let step = Step::new(sql)
            .with(self.name.as_str(), Type::TEXT)
            .with(keys, Type::TEXT_ARRAY);
        let answers = self.send(session, &[step]).await?;
        let mut buried: Vec<Buried> = answers
            .iter()
            .flatten()
            .map(|row| Buried {
                key: Key::from(row.get::<_, &str>(0)),
                match_value: row.get(1),
                noted_at: row.get(2),
                first_at: row.get(3),
            })
            .collect();
        if buried.is_empty() {
            return Ok(buried);
        }
        let there = self.there_within(session, &buried).await;
        let ended = session.batch_execute("ROLLBACK").await;
        let there = there?;
        ended.map_err(|error| self.failed(error))?;
        buried.retain(|one| !there.contains(&*one.key));
        Ok(buried)
    }

    /// Which of the rows the table has, whose policies nobody can change meanwhile.
    async fn there_within(&self, session: &Session, buried: &[Buried]) -> Result<HashSet<String>, Error> {
        let Some(own) = self.tables.first() else {
            return Ok(HashSet::new());
        };
        let keys: Vec<&str> = buried
            .iter()
            .map(|one| &*one.key)
            .filter(|key| select::can_be_key(own.key_type, key))
            .collect();
        let steps = [
            Step::simple(BEGIN),
            Step::new(&own.seen).with(keys, Type::TEXT_ARRAY),
        ];
        let answers = self.send(session, &steps).await?;
        let lacking = inventory::access(session, &self.mapping).await?;
        if !lacking.is_empty() {
            let words: Vec<String> = lacking.iter().map(ToString::to_string).collect();
            let told = format!(
                "it cannot be told which rows of {} are gone: {}",
                self.name,
                words.join("; ")
            );
            return Err(Error::new(ErrorKind::Denied, told));
        }
        Ok(answers.iter().flatten().map(|row| row.get(0)).collect())
    }
}
