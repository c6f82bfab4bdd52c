//! stub
use super::{Error, Session};
use crate::sync::report::Run;
pub async fn keep(_s: &Session, _m: &Run) -> Result<(), Error> {
    Ok(())
}
pub async fn abandoned(_s: &Session) -> Result<(), Error> {
    Ok(())
}
pub async fn list(_s: &Session, _a: Option<&str>, _l: usize) -> Result<Vec<Run>, Error> {
    Ok(vec![])
}
pub async fn last_complete(_s: &Session) -> Result<Option<Run>, Error> {
    Ok(None)
}
