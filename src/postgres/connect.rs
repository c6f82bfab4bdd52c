//! Sessions: how a connection is made, and what every session of ours is pinned to.

use super::{Error, ErrorKind};

/// One connection, driven in the background, with the settings our SQL relies on (`TimeZone` UTC,
/// `DateStyle` ISO, `extra_float_digits` 1, `bytea_output` hex).
pub struct Session {
    client: tokio_postgres::Client,
}

impl std::ops::Deref for Session {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

impl std::ops::DerefMut for Session {
    fn deref_mut(&mut self) -> &mut tokio_postgres::Client {
        &mut self.client
    }
}

/// Opens a session.
///
/// # Errors
/// [`ErrorKind::Unreachable`] or [`ErrorKind::Denied`].
pub async fn connect(url: &str) -> Result<Session, Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .map_err(|error| Error::with_source(ErrorKind::Unreachable, "connecting to the database", error))?;
    tokio::spawn(connection);
    client
        .batch_execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET extra_float_digits = 1")
        .await
        .map_err(|error| Error::from_client("pinning the session's settings", error))?;
    Ok(Session { client })
}
