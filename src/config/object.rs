//! `[[object]]`, `[columns.*]` and `[audit]`: the mapping, checked as far as the file alone allows.
//!
//! What only the database or HubSpot can say (does the table exist, is the property writable) is asked of them.

use super::columns::rename_columns;
use super::names::{column_name, identifier, object_name, object_type, table_name};
use super::property::properties;
use super::section::{Fault, Findings, Section, a_kind, text};
use crate::mapping::{Adopt, Link, Mapping, Object, On, OnDelete, OnMissing, TableName};
use toml::Spanned;
use toml::de::DeValue;

const OBJECT: &[&str] = &[
    "name",
    "table",
    "type",
    "key",
    "hubspot-id",
    "synced-at",
    "match-on",
    "adopt",
    "create",
    "capture",
    "on-missing",
    "on-delete",
    "where",
    "from",
    "watch",
    "properties",
    "link",
];

/// The mapping that the file declares, or the built-in one.
pub(super) fn mapping<'a>(findings: &'a Findings<'a>, root: &Section<'a>) -> Mapping {
    let declared = root.value("object");
    let mut mapping = if let Some(declared) = declared {
        if root.value("columns").is_some() {
            let fault = Fault::new(
                "renames columns of the built-in mapping, which [[object]] replaces",
                "name the columns in [[object]]",
            );
            root.refuse("columns", fault);
        }
        Mapping {
            objects: objects(findings, root, declared),
            audit: None,
        }
    } else {
        let mut mapping = Mapping::built_in();
        rename_columns(findings, root, &mut mapping);
        mapping
    };
    if root.value("audit").is_some() {
        let audit = Section::of(findings, "audit", root.value("audit"), &["table"]);
        let hint = "e.g. \"hubspot_sync.supabase_audit_log\", or take [audit] out";
        mapping.audit = audit.required("table", hint, |value| table_name(&text(value)?));
    }
    mapping
}

fn objects<'a>(
    findings: &'a Findings<'a>,
    root: &Section<'a>,
    declared: &'a Spanned<DeValue<'a>>,
) -> Vec<Object> {
    let Some(tables) = declared.get_ref().as_array() else {
        let fault = Fault::new(
            format!("is {}", a_kind(declared.get_ref())),
            "write [[object]], twice bracketed",
        );
        root.refuse("object", fault);
        return Vec::new();
    };
    if tables.is_empty() {
        root.refuse(
            "object",
            Fault::new("declares nothing", "leave it out for the built-in mapping"),
        );
    }
    let objects: Vec<(Section<'a>, Object)> = tables
        .iter()
        .enumerate()
        .map(|(index, table)| object(findings, index, table))
        .collect();
    refuse_duplicates(&objects);
    refuse_bad_links(findings, &objects);
    objects.into_iter().map(|(_, object)| object).collect()
}

fn object<'a>(
    findings: &'a Findings<'a>,
    index: usize,
    value: &'a Spanned<DeValue<'a>>,
) -> (Section<'a>, Object) {
    let given = value
        .get_ref()
        .as_table()
        .and_then(|table| table.get("name"))
        .and_then(|name| name.get_ref().as_str());
    let shown = given.map_or_else(
        || format!("object {}", index + 1),
        |name| format!("object {name}"),
    );
    let section = Section::of(findings, shown, Some(value), OBJECT);
    let nothing = TableName {
        schema: String::new(),
        name: String::new(),
    };
    let object = Object {
        name: section
            .required("name", "e.g. \"bookings\"", object_name)
            .unwrap_or_default(),
        table: section
            .required("table", "e.g. \"public.bookings\"", |value| {
                table_name(&text(value)?)
            })
            .unwrap_or(nothing),
        from: section.read("from", |value| table_name(&text(value)?)),
        watch: section.texts("watch").unwrap_or_default(),
        object_type: section
            .required(
                "type",
                "HubSpot's object type id, e.g. \"0-1\" or \"2-50158943\"",
                object_type,
            )
            .unwrap_or_default(),
        key: column(&section, "key", "id"),
        hubspot_id: column(&section, "hubspot-id", "hubspot_id"),
        synced_at: column(&section, "synced-at", "hubspot_last_sync_at"),
        match_on: section.text("match-on"),
        adopt: section
            .choice(
                "adopt",
                &[
                    ("overwrite", Adopt::Overwrite),
                    ("update-only", Adopt::UpdateOnly),
                    ("fail", Adopt::Fail),
                ],
            )
            .unwrap_or(Adopt::Overwrite),
        create: section.truth("create").unwrap_or(true),
        capture: section.truth("capture").unwrap_or(true),
        on_missing: section
            .choice(
                "on-missing",
                &[("fail", OnMissing::Fail), ("recreate", OnMissing::Recreate)],
            )
            .unwrap_or(OnMissing::Fail),
        on_delete: section
            .choice(
                "on-delete",
                &[("keep", OnDelete::Keep), ("archive", OnDelete::Archive)],
            )
            .unwrap_or(OnDelete::Keep),
        condition: section.text("where"),
        properties: properties(findings, &section),
        links: links(findings, &section),
    };
    check_object(&section, &object);
    (section, object)
}

/// What the settings of one object say about each other.
fn check_object(section: &Section<'_>, object: &Object) {
    let refuse = |key: &str, message: String, hint: &str| section.refuse(key, Fault::new(message, hint));
    if object.on_delete == OnDelete::Archive && !object.capture {
        refuse(
            "on-delete",
            "archives nothing while capture = false: only a trigger learns which record a deleted row had"
                .to_owned(),
            "set capture = true, or on-delete = \"keep\"",
        );
    }
    if object.properties.is_empty() {
        let message = "there is nothing to send".to_owned();
        refuse(
            "properties",
            message,
            "declare [object.properties] with at least one property",
        );
    }
    match &object.match_on {
        Some(name) => match object.match_property() {
            None => refuse(
                "match-on",
                format!("`{name}` is not among the properties"),
                "map it in [object.properties]: it is how HubSpot finds the record again",
            ),
            Some(property) if property.on == On::Update => refuse(
                "match-on",
                format!("`{name}` is sent on update only"),
                "a create must carry it: on = \"create\" or \"both\"",
            ),
            Some(_) => {}
        },
        None if object.create && section.value("match-on").is_none() => refuse(
            "match-on",
            "is missing, and create = true wants it".to_owned(),
            "name the unique property that finds a record again, or write create = false",
        ),
        None => {}
    }
    let own = [
        ("key", &object.key),
        ("hubspot-id", &object.hubspot_id),
        ("synced-at", &object.synced_at),
    ];
    for (index, (setting, name)) in own.iter().enumerate() {
        if let Some((other, _)) = own[..index].iter().find(|(_, other)| other == name) {
            refuse(
                setting,
                format!("is the same column as `{other}`"),
                "each wants a column of its own",
            );
        }
    }
    let echoes = object
        .properties
        .iter()
        .any(|property| property.column == object.synced_at);
    if echoes || object.watch.contains(&object.synced_at) {
        let message = format!(
            "`{}` is written after every push and would cause the next",
            object.synced_at
        );
        refuse("synced-at", message, "do not map or watch it");
    }
    for watched in &object.watch {
        if let Err(fault) = identifier(watched) {
            section.refuse("watch", fault);
        }
    }
    match (&object.from, object.watch.is_empty()) {
        (None, false) => refuse(
            "watch",
            "means nothing without `from`".to_owned(),
            "mapped columns are watched anyway",
        ),
        (Some(_), true) if object.capture => refuse(
            "watch",
            "is missing, and `from` wants it".to_owned(),
            "list the columns of `table` whose change makes the view's row another, or write capture = false",
        ),
        _ => {}
    }
}

fn refuse_duplicates(objects: &[(Section<'_>, Object)]) {
    for (index, (section, object)) in objects.iter().enumerate() {
        let before = &objects[..index];
        if before
            .iter()
            .any(|(_, other)| other.name == object.name && !object.name.is_empty())
        {
            let fault = Fault::new(
                format!("\"{}\" is declared twice", object.name),
                "each object wants its own name",
            );
            section.refuse("name", fault);
        }
        let same_columns = before.iter().find(|(_, other)| {
            other.table == object.table
                && (other.hubspot_id == object.hubspot_id || other.synced_at == object.synced_at)
        });
        if let Some((_, other)) = same_columns
            && !object.table.name.is_empty()
        {
            let fault = Fault::new(
                format!(
                    "`{}` writes the same columns of {} back",
                    other.name, object.table
                ),
                "give one of them its own `hubspot-id` and `synced-at`",
            );
            section.refuse("table", fault);
        }
    }
}

fn refuse_bad_links(findings: &Findings<'_>, objects: &[(Section<'_>, Object)]) {
    let known: Vec<&str> = objects.iter().map(|(_, object)| object.name.as_str()).collect();
    for (section, object) in objects {
        let starts: Vec<usize> = section
            .value("link")
            .and_then(|links| links.get_ref().as_array())
            .map(|links| links.iter().map(|link| link.span().start).collect())
            .unwrap_or_default();
        for (index, link) in object.links.iter().enumerate() {
            let at = starts.get(index).copied().unwrap_or_default();
            if !link.to.is_empty() && !known.contains(&link.to.as_str()) {
                let hint = super::problem::suggestion(&link.to, &known);
                let fault = Fault::new(format!("\"{}\" is no object of this mapping", link.to), hint);
                findings.at(at, section.key("link.to"), fault);
            }
            if object.links[..index]
                .iter()
                .any(|other| other.name() == link.name())
            {
                let fault = Fault::new(
                    "is declared twice",
                    "two links to one object want different labels",
                );
                findings.at(at, section.key("link"), fault);
            }
        }
    }
}

fn links<'a>(findings: &'a Findings<'a>, section: &Section<'a>) -> Vec<Link> {
    let Some(value) = section.value("link") else {
        return Vec::new();
    };
    let Some(links) = value.get_ref().as_array() else {
        section.refuse(
            "link",
            Fault::new(format!("is {}", a_kind(value.get_ref())), "write [[object.link]]"),
        );
        return Vec::new();
    };
    links
        .iter()
        .map(|value| {
            let link = Section::of(
                findings,
                section.key("link"),
                Some(value),
                &["to", "column", "lookup", "label"],
            );
            let declared = Link {
                to: link
                    .required("to", "the name of another object of this file", text)
                    .unwrap_or_default(),
                column: link.read("column", column_name),
                lookup: link.read("lookup", lookup).unwrap_or_default(),
                label: link.text("label"),
            };
            if link.value("column").is_none() && link.value("lookup").is_none() {
                let hint = "the column that holds the target's HubSpot id, or a `lookup`, or both";
                link.refuse("column", Fault::new("is missing", hint));
            }
            declared
        })
        .collect()
}

/// `{ to's column = my column, … }`, in the order of the file.
fn lookup<'a>(value: &'a DeValue<'a>) -> Result<Vec<(String, String)>, Fault> {
    let hint = "{ student_id = \"student_id\" }: the other table's column = a column of this one";
    let table = value
        .as_table()
        .filter(|table| !table.is_empty())
        .ok_or_else(|| Fault::new(format!("is {}, or an empty one", a_kind(value)), hint))?;
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(theirs, _)| theirs.span().start);
    pairs
        .into_iter()
        .map(|(theirs, mine)| {
            identifier(theirs.get_ref())?;
            Ok((theirs.get_ref().to_string(), column_name(mine.get_ref())?))
        })
        .collect()
}

fn column(section: &Section<'_>, key: &str, default: &str) -> String {
    section
        .read(key, column_name)
        .unwrap_or_else(|| default.to_owned())
}
