//! Tables as they are, for a backup: rows of named columns, so that a column that a newer host added is carried along,
//! and one that this host does not have is left out.
//!
//! Deliberately absent: who the owner is, who is logged in, tokens, the claim - a backup gives nobody a way in - and the
//! profiles: their numbers name folders on this machine's disk, and an older list of them would give one device's folder
//! to another.

use std::fmt;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};
use zeroize::Zeroizing;

use super::revision::Part;
use super::{ClientId, Store, StoreError, client, schema, sql};

/// The tables of a backup, and as many rows as each may have.
pub const COPIED_TABLES: &[(&str, usize)] = &[
    ("identity", 1),
    ("console_identity", 1),
    ("setting", 1024),
    ("app", 1024),
    ("client", super::MAX_CLIENTS),
    // One that has no client may be left of each that had.
    ("client_policy", 4 * super::MAX_CLIENTS),
];

/// One value of a row.
#[derive(Clone, PartialEq, Eq)]
pub enum Cell {
    /// None.
    Null,
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
    /// Bytes, which may be a key.
    Blob(Zeroizing<Vec<u8>>),
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Integer(number) => write!(f, "Integer({number})"),
            Self::Text(text) => write!(f, "Text({text:?})"),
            Self::Blob(bytes) => write!(f, "Blob({} bytes)", bytes.len()),
        }
    }
}

/// A table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableCopy {
    /// Its name.
    pub name: String,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its rows, each with a cell per column.
    pub rows: Vec<Vec<Cell>>,
}

impl TableCopy {
    /// The cell of a row under this name.
    pub fn cell<'a>(&self, row: &'a [Cell], column: &str) -> Option<&'a Cell> {
        row.get(self.columns.iter().position(|name| name == column)?)
    }

    /// The bytes of a row under this name.
    pub fn blob<'a>(&self, row: &'a [Cell], column: &str) -> Option<&'a [u8]> {
        match self.cell(row, column)? {
            Cell::Blob(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// What is in the tables of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreCopy {
    /// The oldest schema version that may read it.
    pub min_reader: u32,
    /// The tables.
    pub tables: Vec<TableCopy>,
}

impl StoreCopy {
    /// The table of this name.
    pub fn table(&self, name: &str) -> Option<&TableCopy> {
        self.tables.iter().find(|table| table.name == name)
    }
}

impl Store {
    /// The newest schema version that this daemon knows.
    pub fn known_schema() -> u32 {
        u32::try_from(schema::SHIPPED.0.len()).unwrap_or(u32::MAX)
    }

    /// Copies the tables of a backup, all as of one moment.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn copy(&self) -> Result<StoreCopy, StoreError> {
        let failed = sql("copy the database");
        let connection = self.connection();
        let min_reader = connection
            .query_row("SELECT min_reader FROM compatibility WHERE id = 1", [], |row| row.get(0))
            .map_err(&failed)?;
        let copied = COPIED_TABLES.iter().map(|(name, max)| table(&connection, name, *max));
        let tables = copied.collect::<rusqlite::Result<_>>().map_err(&failed)?;
        Ok(StoreCopy { min_reader, tables })
    }

    /// Puts these tables in the place of those that are there: all, or none. A table that the copy does not have stays
    /// as it is. Who is trusted and what each client may do holds at once. Gives back the clients that are not trusted
    /// any more, and those that have lost keyboard and pointer.
    ///
    /// # Errors
    /// The disk failed, or a row does not fit its table; everything is as it was.
    pub fn restore(&self, copy: &StoreCopy) -> Result<(Vec<ClientId>, Vec<ClientId>), StoreError> {
        let failed = sql("restore a backup");
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(&failed)?;
        for (name, _) in COPIED_TABLES {
            if let Some(table) = copy.table(name) {
                replace(&transaction, name, table).map_err(&failed)?;
            }
        }
        let restored = client::load_all(&transaction).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        let mut trusted =
            self.inner.trusted.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (mut gone, mut curbed) = (Vec::new(), Vec::new());
        for (id, before) in trusted.iter() {
            match restored.get(id) {
                None => gone.push(*id),
                Some(now) if before.policy.input && !now.policy.input => curbed.push(*id),
                Some(_) => {}
            }
        }
        *trusted = restored;
        self.changed(Part::Clients);
        self.changed(Part::Settings);
        Ok((gone, curbed))
    }
}

/// `name` is one of [`COPIED_TABLES`], never from outside.
fn table(connection: &Connection, name: &str, max: usize) -> rusqlite::Result<TableCopy> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {name} LIMIT {max}"))?;
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let count = columns.len();
    let rows = statement
        .query_map([], |row| (0..count).map(|index| Ok(cell(row.get_ref(index)?))).collect())?
        .collect::<rusqlite::Result<_>>()?;
    Ok(TableCopy { name: name.to_owned(), columns, rows })
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(Zeroizing::new(bytes.to_vec())),
        // No column of a copied table holds a fraction.
        ValueRef::Real(_) => Cell::Null,
    }
}

fn replace(connection: &Connection, name: &str, table: &TableCopy) -> rusqlite::Result<()> {
    let known: Vec<String> = connection
        .prepare(&format!("SELECT * FROM {name} LIMIT 0"))?
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    // Only names that the database itself has get into a statement.
    let taken: Vec<(usize, &str)> = known
        .iter()
        .filter_map(|own| {
            let at = table.columns.iter().position(|column| column == own)?;
            Some((at, own.as_str()))
        })
        .collect();
    connection.execute(&format!("DELETE FROM {name}"), [])?;
    if taken.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = taken.iter().map(|(_, name)| *name).collect();
    let marks = vec!["?"; taken.len()].join(", ");
    let text = format!("INSERT INTO {name} ({}) VALUES ({marks})", names.join(", "));
    let mut statement = connection.prepare(&text)?;
    for row in &table.rows {
        let value = |index: usize| match row.get(index) {
            None | Some(Cell::Null) => Value::Null,
            Some(Cell::Integer(number)) => Value::Integer(*number),
            Some(Cell::Text(text)) => Value::Text(text.clone()),
            Some(Cell::Blob(bytes)) => Value::Blob(bytes.to_vec()),
        };
        statement.execute(params_from_iter(taken.iter().map(|(index, _)| value(*index))))?;
    }
    Ok(())
}
