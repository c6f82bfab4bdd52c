//! What stands behind the question mark, each name once.

use super::routes::{Failure, failure};
use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use std::collections::BTreeMap;

/// The parameters of a request. One that is given twice is refused: nobody can tell which of the two was meant.
pub(super) struct Parameters(pub(super) BTreeMap<String, String>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Parameters, Failure> {
        let refuse = |words: String| failure(StatusCode::BAD_REQUEST, words);
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = pairs.map_err(|_| refuse("the parameters cannot be read".to_owned()))?;
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            if parameters.insert(name, value).is_some() {
                return Err(refuse("a parameter is given more than once".to_owned()));
            }
        }
        Ok(Parameters(parameters))
    }
}

/// Refuses a parameter that is not one of these.
pub(super) fn check_parameters(parameters: &BTreeMap<String, String>, known: &[&str]) -> Result<(), Failure> {
    if parameters.keys().all(|name| known.contains(&name.as_str())) {
        return Ok(());
    }
    let words = match known {
        [] => "there are no parameters here".to_owned(),
        known => format!("unknown parameter; known here: {}", known.join(", ")),
    };
    Err(failure(StatusCode::BAD_REQUEST, words))
}
