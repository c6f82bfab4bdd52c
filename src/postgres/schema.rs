//! The schema: the pieces that `setup` installs for a mapping, and what of them a database has.
//!
//! A piece is SQL with a hash. What is installed is remembered by those hashes in `hubsyncd.meta`, and the catalogs
//! are asked whether it is still there, so that nothing to do is known without a lock on any table.

use super::capture::{self, AUDIT_FUNCTION, AUDIT_TRIGGER};
use super::catalog::{Shape, inspect};
use super::quote::{identifier, literal, table as quoted};
use super::views::views;
use super::{Error, Inspection, Session};
use crate::mapping::{Mapping, Object, TableName};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// The tables of schema `hubsyncd`.
pub(super) const TABLES: [&str; 9] = [
    "change", "intent", "failure", "archived", "link", "run", "lease", "meta", "granted",
];
/// The sequences of schema `hubsyncd`.
pub(super) const SEQUENCES: [&str; 1] = ["change_seq_seq"];
/// The views of schema `hubsyncd`, each with a function of its name and `_now`.
pub(super) const VIEWS: [&str; 2] = ["awaiting_id", "last_sync"];
/// The mirror's tables.
pub(super) const MIRROR_TABLES: [&str; 5] = [
    "mirror_contacts",
    "mirror_companies",
    "mirror_deals",
    "mirror_association",
    "mirror_state",
];
/// The mirror's views.
pub(super) const MIRROR_VIEWS: [&str; 3] = ["mirrored_contacts", "mirrored_companies", "mirrored_deals"];
/// The mirror's functions, each with the type of its argument.
pub(super) const MIRROR_FUNCTIONS: [(&str, &str); 3] = [
    ("mirror_record", "json"),
    ("mirror_moment", "text"),
    ("mirror_number", "text"),
];

/// What stands before a piece's name in `hubsyncd.meta`.
const META: &str = "setup:";

/// A piece of what setup installs; one transaction.
pub(super) struct Piece {
    /// Its name in `hubsyncd.meta`, e.g. `capture:bookings`.
    pub(super) name: String,
    /// What it is, for people.
    pub(super) what: String,
    /// The statements; they may be run again at any time.
    pub(super) sql: String,
    /// The functions it makes in schema `hubsyncd`.
    functions: Vec<String>,
    /// The triggers it makes: table, name, function.
    pub(super) triggers: Vec<(TableName, String, String)>,
    /// The relations it makes in schema `hubsyncd`.
    relations: Vec<&'static str>,
}

impl Piece {
    /// What tells whether the database has this very piece.
    pub(super) fn hash(&self) -> String {
        let digest = Sha256::digest(self.sql.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The statement that remembers the piece.
    pub(super) fn remember(&self) -> String {
        let key = literal(&format!("{META}{}", self.name));
        let hash = literal(&self.hash());
        format!(
            "INSERT INTO hubsyncd.meta (key, value) VALUES ({key}, {hash})\n    ON CONFLICT (key) DO UPDATE SET value \
             = excluded.value;\n"
        )
    }
}

/// The pieces for a mapping, in the order in which they need each other.
pub(super) fn pieces(mapping: &Mapping, shapes: &[Shape]) -> Vec<Piece> {
    let mut pieces = vec![Piece {
        name: "schema".to_owned(),
        what: "schema hubsyncd and its tables".to_owned(),
        sql: include_str!("../../sql/schema.sql").to_owned(),
        functions: Vec::new(),
        triggers: Vec::new(),
        relations: TABLES.into(),
    }];
    for (object, shape) in mapping.objects.iter().zip(shapes) {
        if object.capture {
            pieces.extend(pieces_of_object(mapping, object, shape));
        }
    }
    if let Some(audit) = &mapping.audit {
        pieces.extend(pieces_of_audit(mapping, shapes, audit));
    }
    pieces.push(Piece {
        name: "views".to_owned(),
        what: "views awaiting_id and last_sync".to_owned(),
        sql: views(mapping, shapes),
        functions: VIEWS.map(|view| format!("{view}_now")).into(),
        triggers: Vec::new(),
        relations: VIEWS.into(),
    });
    // Always there, so that a reload is enough to switch the mirror on.
    pieces.push(Piece {
        name: "mirror".to_owned(),
        what: "the mirror's tables, views and functions".to_owned(),
        sql: include_str!("../../sql/mirror.sql").to_owned(),
        functions: MIRROR_FUNCTIONS.map(|(name, _)| name.to_owned()).into(),
        triggers: Vec::new(),
        relations: MIRROR_TABLES.into_iter().chain(MIRROR_VIEWS).collect(),
    });
    pieces
}

/// The function and the triggers apart, so that a mapping that changed replaces the function and takes no lock on
/// the application's table.
fn pieces_of_object(mapping: &Mapping, object: &Object, shape: &Shape) -> [Piece; 2] {
    let function = capture::function_of(object);
    let trigger = |name| (object.table.clone(), name, function.clone());
    [
        Piece {
            name: format!("capture:{}", object.name),
            what: format!("capture function of {}", object.name),
            sql: capture::function(mapping, object, shape),
            functions: vec![function.clone()],
            triggers: Vec::new(),
            relations: Vec::new(),
        },
        Piece {
            name: format!("triggers:{}", object.name),
            what: format!("triggers on {}", object.table),
            sql: capture::triggers(object),
            functions: Vec::new(),
            triggers: capture::triggers_of(object).map(trigger).into(),
            relations: Vec::new(),
        },
    ]
}

fn pieces_of_audit(mapping: &Mapping, shapes: &[Shape], audit: &TableName) -> [Piece; 2] {
    [
        Piece {
            name: "audit".to_owned(),
            what: "capture function of the audit log".to_owned(),
            sql: capture::audit_function(mapping, shapes, audit),
            functions: vec![AUDIT_FUNCTION.to_owned()],
            triggers: Vec::new(),
            relations: Vec::new(),
        },
        Piece {
            name: "audit-trigger".to_owned(),
            what: format!("trigger on {audit}"),
            sql: capture::audit_trigger(audit),
            functions: Vec::new(),
            triggers: vec![(audit.clone(), AUDIT_TRIGGER.to_owned(), AUDIT_FUNCTION.to_owned())],
            relations: Vec::new(),
        },
    ]
}

/// A trigger of ours as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trigger {
    /// Its function, in schema `hubsyncd`.
    pub(super) function: String,
    /// `pg_trigger.tgenabled`: `O` on, `A` always, `D` disabled, `R` on replicas only.
    pub(super) enabled: char,
}

impl Trigger {
    /// Whether it fires for an ordinary session.
    pub(super) fn fires(&self) -> bool {
        matches!(self.enabled, 'O' | 'A')
    }
}

/// What of the schema a database has.
#[derive(Debug, Default)]
pub(super) struct Installed {
    /// The hashes by piece.
    hashes: BTreeMap<String, String>,
    /// The functions in schema `hubsyncd`.
    functions: BTreeSet<String>,
    /// The tables and views in schema `hubsyncd`.
    pub(super) relations: BTreeSet<String>,
    /// Every trigger whose function is in schema `hubsyncd`, by table and name.
    pub(super) triggers: BTreeMap<(TableName, String), Trigger>,
}

impl Installed {
    /// Asks the catalogs and `hubsyncd.meta`; no lock on a table of the application.
    ///
    /// # Errors
    /// When the database cannot be asked, or the role may not read `hubsyncd.meta`.
    pub(super) async fn read(session: &Session) -> Result<Installed, Error> {
        let failed = |error| Error::from_client("reading what setup has installed", error);
        let mut installed = Installed::default();
        let ours = "
            SELECT 'function', p.proname::text, NULL, NULL, NULL FROM pg_catalog.pg_proc p
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'hubsyncd'
            UNION ALL
            SELECT 'relation', c.relname::text, NULL, NULL, NULL FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'hubsyncd' AND c.relkind IN ('r', 'v')
            UNION ALL
            SELECT t.tgenabled::text, p.proname::text, s.nspname::text, c.relname::text, t.tgname::text
            FROM pg_catalog.pg_trigger t
            JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
            JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
            WHERE n.nspname = 'hubsyncd' AND NOT t.tgisinternal";
        for row in session.query(ours, &[]).await.map_err(failed)? {
            let kind: String = row.try_get(0).map_err(failed)?;
            let name: String = row.try_get(1).map_err(failed)?;
            match kind.as_str() {
                "function" => drop(installed.functions.insert(name)),
                "relation" => drop(installed.relations.insert(name)),
                enabled => {
                    let schema = row.try_get(2).map_err(failed)?;
                    let table = TableName {
                        schema,
                        name: row.try_get(3).map_err(failed)?,
                    };
                    let enabled = enabled.chars().next().unwrap_or('D');
                    let trigger = Trigger {
                        function: name,
                        enabled,
                    };
                    installed
                        .triggers
                        .insert((table, row.try_get(4).map_err(failed)?), trigger);
                }
            }
        }
        if installed.relations.contains("meta") {
            let hashes = "SELECT substr(key, 7), value FROM hubsyncd.meta WHERE key LIKE 'setup:%'";
            for row in session.query(hashes, &[]).await.map_err(failed)? {
                let (name, hash) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
                installed.hashes.insert(name, hash);
            }
        }
        Ok(installed)
    }

    /// Whether the piece was installed as it is, whatever became of it.
    fn knows(&self, piece: &Piece) -> bool {
        self.hashes.get(&piece.name) == Some(&piece.hash())
    }

    /// Whether the piece is there, as it is and in force.
    pub(super) fn holds(&self, piece: &Piece) -> bool {
        self.knows(piece)
            && piece
                .functions
                .iter()
                .all(|function| self.functions.contains(function))
            && piece
                .relations
                .iter()
                .all(|relation| self.relations.contains(*relation))
            && piece.triggers.iter().all(|(table, name, function)| {
                let trigger = self.triggers.get(&(table.clone(), name.clone()));
                trigger.is_some_and(|trigger| trigger.fires() && trigger.function == *function)
            })
    }

    /// The pieces that are installed and no longer part of the mapping, by name.
    fn forgotten(&self, pieces: &[Piece]) -> Vec<String> {
        let names: BTreeSet<&str> = pieces.iter().map(|piece| piece.name.as_str()).collect();
        self.hashes
            .keys()
            .filter(|name| !names.contains(name.as_str()))
            .cloned()
            .collect()
    }

    /// What is to be taken away because the mapping no longer has it, each as what it is, the SQL and the tables that
    /// it locks: first the triggers, a table at a time, then the functions and the memory of them.
    pub(super) fn leftovers(&self, pieces: &[Piece]) -> Vec<(String, String, BTreeSet<TableName>)> {
        let expected: BTreeSet<(&TableName, &str)> = pieces
            .iter()
            .flat_map(|piece| {
                piece
                    .triggers
                    .iter()
                    .map(|(table, name, _)| (table, name.as_str()))
            })
            .collect();
        let mut by_table: BTreeMap<&TableName, String> = BTreeMap::new();
        for (table, name) in self.triggers.keys() {
            if !expected.contains(&(table, name.as_str())) {
                by_table
                    .entry(table)
                    .or_default()
                    .push_str(&drop_trigger(table, name));
            }
        }
        let mut leftovers: Vec<_> = by_table
            .into_iter()
            .map(|(table, sql)| {
                (
                    format!("triggers on {table} that the mapping no longer wants"),
                    sql,
                    [table.clone()].into(),
                )
            })
            .collect();
        let kept: BTreeSet<&String> = pieces.iter().flat_map(|piece| &piece.functions).collect();
        let mut sql: String = self
            .functions
            .iter()
            .filter(|name| is_capture(name) && !kept.contains(name))
            .map(|name| format!("DROP FUNCTION IF EXISTS hubsyncd.{}();\n", identifier(name)))
            .collect();
        for name in self.forgotten(pieces) {
            let key = literal(&format!("{META}{name}"));
            sql.push_str(&format!("DELETE FROM hubsyncd.meta WHERE key = {key};\n"));
        }
        if !sql.is_empty() {
            let what = "functions that the mapping no longer wants".to_owned();
            leftovers.push((what, sql, BTreeSet::new()));
        }
        leftovers
    }

    /// Whether anything of ours is there.
    pub(super) fn exists(&self) -> bool {
        !self.relations.is_empty() || !self.functions.is_empty()
    }

    /// The functions in schema `hubsyncd` that setup makes.
    pub(super) fn our_functions(&self) -> impl Iterator<Item = &String> {
        let of_view = |name: &str| VIEWS.iter().any(|view| name.strip_suffix("_now") == Some(view));
        self.functions
            .iter()
            .filter(move |name| is_capture(name) || of_view(name))
    }
}

/// Whether a function in schema `hubsyncd` is one of capture's.
fn is_capture(name: &str) -> bool {
    name.starts_with("capture_") || name == AUDIT_FUNCTION
}

/// The statement that drops one of our triggers.
pub(super) fn drop_trigger(table: &TableName, name: &str) -> String {
    format!(
        "DROP TRIGGER IF EXISTS {} ON {};\n",
        identifier(name),
        quoted(table)
    )
}

/// Whether what setup installed fits the mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing is installed.
    Missing,
    /// Something is, but not for this mapping, or by another version of the program: these pieces are not current.
    Outdated(Vec<String>),
    /// All of it is installed for this mapping.
    Current,
}

/// Says whether what setup installed fits the mapping. Triggers that were disabled or dropped since are the
/// [inventory](super::inventory::inventory)'s to find.
///
/// # Errors
/// When the database cannot be asked; [`super::ErrorKind::Denied`] if the role may not read `hubsyncd.meta`.
pub async fn installed(session: &Session, mapping: &Mapping, shapes: &[Shape]) -> Result<State, Error> {
    let installed = Installed::read(session).await?;
    if !installed.relations.contains("meta") {
        return Ok(State::Missing);
    }
    let pieces = pieces(mapping, shapes);
    let changed = pieces
        .iter()
        .filter(|piece| !installed.knows(piece))
        .map(|piece| piece.name.clone());
    let outdated: Vec<String> = changed.chain(installed.forgotten(&pieces)).collect();
    Ok(if outdated.is_empty() {
        State::Current
    } else {
        State::Outdated(outdated)
    })
}

/// The pieces for the mapping, as this database's columns want them.
pub(super) async fn pieces_here(session: &Session, mapping: &Mapping) -> Result<Vec<Piece>, Inspection> {
    Ok(pieces(mapping, &inspect(session, mapping).await?))
}
