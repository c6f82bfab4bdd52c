//! The mapping: which table is which HubSpot object, declared as data.
//!
//! The engine knows no table by name. A [`Mapping`] is a list of [`Object`]s in the order in which a
//! sweep takes them. Identifiers in it are validated when it is read ([`crate::config`]) and quoted in one
//! place when SQL is made of them ([`crate::postgres`]); they are never pasted.

/// The whole mapping: objects in sweep order, and the application's audit log if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The mapped objects, in the order of a sweep.
    pub objects: Vec<Object>,
    /// The application's audit log, whose entries name rows and are marked when those are pushed.
    pub audit: Option<TableName>,
}

/// A schema-qualified table or view name, unquoted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The schema, as in `pg_namespace.nspname`.
    pub schema: String,
    /// The relation, as in `pg_class.relname`.
    pub name: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What the mirror copies from HubSpot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mirrored {
    /// Contacts, `0-1`.
    Contacts,
    /// Companies, `0-2`.
    Companies,
    /// Deals, `0-3`.
    Deals,
}

impl Mirrored {
    /// All of them, in the order in which a pull takes them.
    pub const ALL: [Mirrored; 3] = [Mirrored::Contacts, Mirrored::Companies, Mirrored::Deals];

    /// The name in configuration, SQL, routes, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Mirrored::Contacts => "contacts",
            Mirrored::Companies => "companies",
            Mirrored::Deals => "deals",
        }
    }

    /// HubSpot's object type id.
    pub fn object_type(self) -> &'static str {
        match self {
            Mirrored::Contacts => "0-1",
            Mirrored::Companies => "0-2",
            Mirrored::Deals => "0-3",
        }
    }

    /// The HubSpot property that holds when a record was last modified.
    pub fn modified(self) -> &'static str {
        match self {
            Mirrored::Contacts => "lastmodifieddate",
            Mirrored::Companies | Mirrored::Deals => "hs_lastmodifieddate",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Mirrored> {
        Mirrored::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One mapped table and the HubSpot object type that its rows become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The name in configuration, SQL, logs and metrics, e.g. `bookings` (`[a-z][a-z0-9_]*`).
    pub name: String,
    /// The table whose changes are captured and that is written back to.
    pub table: TableName,
    /// Where values are read instead of `table`, for computed values.
    pub from: Option<TableName>,
    /// With `from`: the columns of `table` whose change names the row.
    pub watch: Vec<String>,
    /// HubSpot's object type id, e.g. `0-1` or `2-50158943`.
    pub object_type: String,
    /// The key column: int2, int4, int8, uuid, text or varchar.
    pub key: String,
    /// The text column that holds HubSpot's id; blank counts as null.
    pub hubspot_id: String,
    /// The timestamptz column that takes the time of the read of the last confirmed push.
    pub synced_at: String,
    /// The HubSpot property that is the record's natural key; always a mapped property.
    pub match_on: Option<String>,
    /// What to do when an unowned record with that natural key exists already.
    pub adopt: Adopt,
    /// Whether rows without a HubSpot id are created; if not they are left alone.
    pub create: bool,
    /// Whether triggers are installed.
    pub capture: bool,
    /// What to do when the HubSpot record of a row is gone.
    pub on_missing: OnMissing,
    /// What to do when a row is deleted.
    pub on_delete: OnDelete,
    /// An SQL condition over the columns read; rows outside it are not pushed.
    pub condition: Option<String>,
    /// The mapped properties, in declaration order.
    pub properties: Vec<Property>,
    /// The links, in declaration order.
    pub links: Vec<Link>,
}

/// What to do when an unowned HubSpot record with a row's natural key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopt {
    /// Take it over and write create and update properties.
    Overwrite,
    /// Take it over and write update properties only.
    UpdateOnly,
    /// Refuse the row.
    Fail,
}

/// What to do when the HubSpot record of a row is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissing {
    /// The row is a failure until somebody decides.
    Fail,
    /// The record is created anew.
    Recreate,
}

/// What to do when a row is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// HubSpot's record stays as it is.
    Keep,
    /// HubSpot's record is archived.
    Archive,
}

/// One column and the HubSpot property that it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// HubSpot's internal property name.
    pub name: String,
    /// The column of `from`, else of `table`.
    pub column: String,
    /// When it is sent.
    pub on: On,
    /// How the value is written; `None`: by the type of the HubSpot property.
    pub kind: Option<Kind>,
    /// What a null becomes; on create a `Clear` is omitted (a create never clears).
    pub null: Null,
    /// The IANA time zone in which a timestamp without zone is read.
    pub zone: String,
}

/// When a property is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Only when the record is created (or adopted by a row that was never pushed).
    Create,
    /// Only when the record exists.
    Update,
    /// Always.
    Both,
}

/// How a value is written for HubSpot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The value's text.
    Text,
    /// A number without fraction.
    Integer,
    /// A plain decimal number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `YYYY-MM-DD`.
    Date,
    /// `YYYY-MM-DDTHH:MM:SS.mmmZ`, UTC.
    DateTime,
    /// Array elements joined by `;`, empty ones dropped.
    Multi,
}

/// What a null becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Null {
    /// The property is not sent.
    Omit,
    /// The property is cleared by the empty string.
    Clear,
    /// The property takes this text.
    Literal(String),
}

/// A link (association) of an object's records to those of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The name of the object linked to; always declared in the same mapping.
    pub to: String,
    /// The column that holds the target's HubSpot id, if there is one.
    pub column: Option<String>,
    /// Used when `column` is null: (column of `to`'s table, own column) pairs that must be equal.
    pub lookup: Vec<(String, String)>,
    /// The association label; `None`: the unlabelled one.
    pub label: Option<String>,
}

impl Mapping {
    /// The position of the object called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.objects.iter().position(|object| object.name == name)
    }

    /// The first object whose rows become records of the same HubSpot type as those of the object at `object`: what
    /// concerns records, whosever rows they are, is kept under that one.
    pub fn first_alike(&self, object: usize) -> usize {
        let of_type = &self.objects[object].object_type;
        let mut objects = self.objects.iter();
        objects
            .position(|other| other.object_type == *of_type)
            .unwrap_or(object)
    }

    /// Whether records of this object's type are archived, be it as those of another object's rows.
    pub fn archives_alike(&self, object: usize) -> bool {
        let of_type = &self.objects[object].object_type;
        let mut objects = self.objects.iter();
        objects.any(|other| other.object_type == *of_type && other.on_delete == OnDelete::Archive)
    }

    /// The other objects whose rows, in other tables, become records of that type.
    pub fn alike_elsewhere(&self, object: usize) -> impl Iterator<Item = usize> {
        let own = &self.objects[object];
        let objects = self.objects.iter().enumerate();
        objects
            .filter(|(_, other)| other.object_type == own.object_type && other.table != own.table)
            .map(|(at, _)| at)
    }
}

impl Object {
    /// The property that is the natural key, if the object declares one.
    pub fn match_property(&self) -> Option<&Property> {
        let name = self.match_on.as_deref()?;
        self.properties.iter().find(|property| property.name == name)
    }

    /// Whether the natural key is an e-mail address, which HubSpot compares trimmed and lower-cased.
    pub fn matches_on_email(&self) -> bool {
        self.object_type == "0-1" && self.match_on.as_deref() == Some("email")
    }
}

impl Link {
    /// The name of this link in `hubsyncd.link`: the target's name, and the label if there is one.
    pub fn name(&self) -> String {
        match &self.label {
            Some(label) => format!("{}:{label}", self.to),
            None => self.to.clone(),
        }
    }
}
