//! From a method and a path to what is asked: all versions' paths of one call meet here.

use super::fault::Endpoint;

/// A version of HubSpot's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// `v3` and `v4`, whose rules are the same.
    Numbered,
    March2026,
    September2026,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    Get,
    Update,
    Archive,
    List,
    BatchCreate,
    BatchUpdate,
    BatchUpsert,
    BatchRead,
    BatchArchive,
    Merge,
    Search,
    ListLinks,
    PutDefaultLink,
    PutLink,
    DeleteLink,
    BatchLinkDefault,
    BatchLink,
    BatchReadLinks,
    BatchArchiveLinks,
    BatchArchiveLabels,
    Labels,
    CreateLabel,
    Properties,
    Property,
    CreateProperty,
    UpdateProperty,
    ArchiveProperty,
    BatchReadProperties,
    BatchCreateProperties,
    Schemas,
    Schema,
    CreateSchemaLink,
    Details,
    Usage,
    TokenInfo,
}

/// A call with what its path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub version: Version,
    pub call: Call,
    /// The object type, or what it starts from; empty where there is none.
    pub object: String,
    pub id: String,
    /// The object type at the other end.
    pub to: String,
    pub to_id: String,
}

impl Route {
    /// The call that a method and a path name; `None` for what HubSpot would answer with 404.
    pub(super) fn of(method: &str, path: &str) -> Option<Self> {
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
        let words: Vec<&str> = parts.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["crm", "v3" | "v4", "objects", rest @ ..] => objects(Version::Numbered, method, rest),
            ["crm", "objects", version, rest @ ..] => objects(Version::of(version)?, method, rest),
            ["crm", "v4", "associations", from, to, rest @ ..] => {
                links(Version::Numbered, method, from, to, rest)
            }
            ["crm", "associations", version, from, to, rest @ ..] => {
                links(Version::of(version)?, method, from, to, rest)
            }
            ["crm", "v3", "properties", object, rest @ ..] => {
                properties(Version::Numbered, method, object, rest)
            }
            ["crm", "properties", version, object, rest @ ..] => {
                properties(Version::of(version)?, method, object, rest)
            }
            ["crm", "v3", "schemas", rest @ ..] => schemas(Version::Numbered, method, rest),
            ["crm-object-schemas", version, "schemas", rest @ ..] => {
                schemas(Version::of(version)?, method, rest)
            }
            ["account-info", version, "details"] if method == "GET" => {
                Some(bare(Version::of(version)?, Call::Details))
            }
            ["account-info", version, "api-usage", "daily", "private-apps"] if method == "GET" => {
                Some(bare(Version::of(version)?, Call::Usage))
            }
            ["oauth", "v2", "private-apps", "get", "access-token-info"] if method == "POST" => {
                Some(bare(Version::Numbered, Call::TokenInfo))
            }
            _ => None,
        }
    }

    /// What kind of request it is, for faults and the log.
    pub(super) fn endpoint(&self) -> Endpoint {
        match self.call {
            Call::Create | Call::BatchCreate => Endpoint::Create,
            Call::BatchUpsert => Endpoint::Upsert,
            Call::Update | Call::BatchUpdate => Endpoint::Update,
            Call::Get | Call::BatchRead => Endpoint::Read,
            Call::List => Endpoint::List,
            Call::Archive | Call::BatchArchive => Endpoint::Archive,
            Call::Merge => Endpoint::Merge,
            Call::Search => Endpoint::Search,
            Call::PutDefaultLink | Call::PutLink | Call::BatchLinkDefault | Call::BatchLink => {
                Endpoint::Associate
            }
            Call::ListLinks | Call::BatchReadLinks => Endpoint::AssociationRead,
            Call::DeleteLink | Call::BatchArchiveLinks | Call::BatchArchiveLabels => {
                Endpoint::AssociationArchive
            }
            Call::Labels | Call::CreateLabel => Endpoint::Labels,
            Call::Properties
            | Call::Property
            | Call::CreateProperty
            | Call::UpdateProperty
            | Call::ArchiveProperty
            | Call::BatchReadProperties
            | Call::BatchCreateProperties => Endpoint::Properties,
            Call::Schemas | Call::Schema | Call::CreateSchemaLink => Endpoint::Schemas,
            Call::Details | Call::Usage | Call::TokenInfo => Endpoint::Account,
        }
    }
}

impl Version {
    fn of(word: &str) -> Option<Self> {
        match word {
            "v3" | "v4" => Some(Version::Numbered),
            "2026-03" => Some(Version::March2026),
            "2026-09" => Some(Version::September2026),
            _ => None,
        }
    }
}

fn bare(version: Version, call: Call) -> Route {
    let none = String::new;
    Route {
        version,
        call,
        object: none(),
        id: none(),
        to: none(),
        to_id: none(),
    }
}

fn objects(version: Version, method: &str, rest: &[&str]) -> Option<Route> {
    let (object, rest) = rest.split_first()?;
    let route = |call| {
        Some(Route {
            object: (*object).to_owned(),
            ..bare(version, call)
        })
    };
    match (method, rest) {
        ("POST", []) => route(Call::Create),
        ("GET", []) => route(Call::List),
        ("POST", ["batch", "create"]) => route(Call::BatchCreate),
        ("POST", ["batch", "update"]) => route(Call::BatchUpdate),
        ("POST", ["batch", "upsert"]) => route(Call::BatchUpsert),
        ("POST", ["batch", "read"]) => route(Call::BatchRead),
        ("POST", ["batch", "archive"]) => route(Call::BatchArchive),
        ("POST", ["search"]) => route(Call::Search),
        ("POST", ["merge"]) => route(Call::Merge),
        (_, [id]) => {
            let call = match method {
                "GET" => Call::Get,
                "PATCH" => Call::Update,
                "DELETE" => Call::Archive,
                _ => return None,
            };
            Some(Route {
                id: (*id).to_owned(),
                ..route(call)?
            })
        }
        ("GET", [id, "associations", to]) => Some(Route {
            id: (*id).to_owned(),
            to: (*to).to_owned(),
            ..route(Call::ListLinks)?
        }),
        ("PUT", [id, "associations", "default", to, to_id]) => {
            pair(route(Call::PutDefaultLink)?, id, to, to_id)
        }
        ("PUT", [id, "associations", to, to_id]) => pair(route(Call::PutLink)?, id, to, to_id),
        ("DELETE", [id, "associations", to, to_id]) => pair(route(Call::DeleteLink)?, id, to, to_id),
        _ => None,
    }
}

fn pair(route: Route, id: &str, to: &str, to_id: &str) -> Option<Route> {
    Some(Route {
        id: id.to_owned(),
        to: to.to_owned(),
        to_id: to_id.to_owned(),
        ..route
    })
}

fn links(version: Version, method: &str, from: &str, to: &str, rest: &[&str]) -> Option<Route> {
    let call = match (method, rest) {
        ("POST", ["batch", "associate", "default"]) => Call::BatchLinkDefault,
        ("POST", ["batch", "create"]) => Call::BatchLink,
        ("POST", ["batch", "read"]) => Call::BatchReadLinks,
        ("POST", ["batch", "archive"]) => Call::BatchArchiveLinks,
        ("POST", ["batch", "labels", "archive"]) => Call::BatchArchiveLabels,
        ("GET", ["labels"]) => Call::Labels,
        ("POST", ["labels"]) => Call::CreateLabel,
        _ => return None,
    };
    Some(Route {
        object: from.to_owned(),
        to: to.to_owned(),
        ..bare(version, call)
    })
}

fn properties(version: Version, method: &str, object: &str, rest: &[&str]) -> Option<Route> {
    let (call, id) = match (method, rest) {
        ("GET", []) => (Call::Properties, ""),
        ("POST", []) => (Call::CreateProperty, ""),
        ("POST", ["batch", "read"]) => (Call::BatchReadProperties, ""),
        ("POST", ["batch", "create"]) => (Call::BatchCreateProperties, ""),
        ("GET", [name]) => (Call::Property, *name),
        ("PATCH", [name]) => (Call::UpdateProperty, *name),
        ("DELETE", [name]) => (Call::ArchiveProperty, *name),
        _ => return None,
    };
    Some(Route {
        object: object.to_owned(),
        id: id.to_owned(),
        ..bare(version, call)
    })
}

fn schemas(version: Version, method: &str, rest: &[&str]) -> Option<Route> {
    let (call, object) = match (method, rest) {
        ("GET", []) => (Call::Schemas, ""),
        ("GET", [object]) => (Call::Schema, *object),
        ("POST", [object, "associations"]) => (Call::CreateSchemaLink, *object),
        _ => return None,
    };
    Some(Route {
        object: object.to_owned(),
        ..bare(version, call)
    })
}

/// A path segment without its percent signs; what is no valid escape stays as it is.
fn decoded(segment: &str) -> String {
    let mut bytes: Vec<u8> = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
