//! stub
use super::{Error, Session};
use crate::daemon::operations::Page;
use crate::mapping::Mapping;
use crate::sync::report::Failure;
pub async fn counts(_s: &Session, _m: &Mapping) -> Result<Vec<u64>, Error> {
    Ok(vec![])
}
pub async fn list(_s: &Session, _a: Option<&str>, _l: usize) -> Result<Page<Failure>, Error> {
    Ok(Page {
        items: vec![],
        next: None,
    })
}
pub async fn retry(_s: &Session, _a: Option<&str>, _l: Option<&str>) -> Result<u64, Error> {
    Ok(0)
}
