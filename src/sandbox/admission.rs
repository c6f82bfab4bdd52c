//! Who may ask, and how often: the token, its scopes, the limits.

use super::fault::Endpoint;
use super::http::Incoming;
use super::limits::{Class, Headers, refused};
use super::reply::Reply;
use super::route::{Call, Route};
use super::{Shared, World};
use axum::http::{HeaderMap, header};
use serde_json::json;

/// Longer URLs are refused; HubSpot's own limit is not documented.
const URL_MAX_BYTES: usize = 8_000;

impl Shared {
    /// Whether a request may pass, with the rate headers that its answer carries either way.
    pub(super) fn admit<'a>(
        &self,
        route: Option<&'a Route>,
        request: &Incoming,
    ) -> Result<(&'a Route, Headers), Box<(Reply, Headers)>> {
        let plain = |reply| Box::new((reply, Headers::new()));
        if request.uri.to_string().len() > URL_MAX_BYTES {
            return Err(plain(Reply::text(
                414,
                "text/html",
                "<html><body>414 URI Too Long</body></html>",
            )));
        }
        let world = self.world();
        let asks_about_token = route.is_some_and(|route| route.call == Call::TokenInfo);
        if !asks_about_token && !authorised(&request.headers, &world.settings.token) {
            return Err(plain(unauthorised()));
        }
        let Some(route) = route else {
            return Err(plain(Reply::not_found()));
        };
        if let Some(scope) = missing_scope(&world, route) {
            return Err(plain(forbidden(&scope)));
        }
        let class = match route.call {
            Call::Search => Class::Search,
            Call::TokenInfo => Class::Free,
            _ => Class::Counted,
        };
        let (now_ms, portal_id) = (world.now_ms(), world.settings.portal_id);
        drop(world);
        let mut limits = self.limits();
        let admitted = limits.admit(class, now_ms);
        let headers = limits.headers(class);
        match admitted {
            Ok(()) => Ok((route, headers)),
            Err(policy) => Err(Box::new((refused(policy, portal_id), headers))),
        }
    }
}

fn authorised(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    given.and_then(|value| value.strip_prefix("Bearer ")) == Some(token)
}

pub(super) fn unauthorised() -> Reply {
    Reply::error(
        401,
        "INVALID_AUTHENTICATION",
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more \
         details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
    )
}

pub(super) fn forbidden(scope: &str) -> Reply {
    let message = "This app hasn't been granted all required scopes to make this call. Read more about required \
                   scopes here: https://developers.hubspot.com/scopes.";
    let errors = json!([{
        "message": "One or more of the following scopes are required.",
        "context": {"requiredGranularScopes": [scope]},
    }]);
    Reply::error(403, "MISSING_SCOPES", message)
        .with("errors", errors)
        .with(
            "links",
            json!({"scopes": "https://developers.hubspot.com/scopes"}),
        )
}

/// The scope that a call needs and the token lacks.
fn missing_scope(world: &World, route: &Route) -> Option<String> {
    let object = world
        .type_position(&route.object)
        .map(|kind| &world.types[kind])?;
    let family = if object.is_custom() {
        "custom"
    } else {
        object.name.as_str()
    };
    let needed: Vec<String> = match route.endpoint() {
        Endpoint::Create
        | Endpoint::Upsert
        | Endpoint::Update
        | Endpoint::Archive
        | Endpoint::Merge
        | Endpoint::Associate
        | Endpoint::AssociationArchive => vec![format!("crm.objects.{family}.write")],
        Endpoint::Properties | Endpoint::Schemas => {
            vec![
                format!("crm.objects.{family}.read"),
                format!("crm.schemas.{family}.read"),
            ]
        }
        _ => vec![format!("crm.objects.{family}.read")],
    };
    let held = needed.iter().any(|scope| world.scopes.contains(scope));
    (!held).then(|| needed.into_iter().next()).flatten()
}
