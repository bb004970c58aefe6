//! The inside of a backup: JSON, so that whoever has the passphrase can read it without us.
//!
//! A cell is a text whose first letter says what it is: `n` nothing, `i7` a number, `tsofa` a text, `x00ff` bytes in hex.
//! So no cell is ever held in a half-read form that would not be wiped.

use std::fmt::{self, Write as _};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::BackupError;
use crate::store::{COPIED_TABLES, Cell, StoreCopy, TableCopy};

/// As many columns a table may have.
const MAX_COLUMNS: usize = 64;

#[derive(Serialize, Deserialize)]
struct Contents {
    /// The version of the host that made it.
    made_by: String,
    /// The oldest schema version that may read it.
    min_reader: u32,
    tables: Vec<Table>,
}

#[derive(Serialize, Deserialize)]
struct Table {
    name: String,
    columns: Vec<String>,
    rows: Vec<Vec<Written>>,
}

/// A cell as it is written.
struct Written(Cell);

/// Writes the copy behind what is in `room` already.
pub(super) fn write(
    copy: &StoreCopy,
    made_by: &str,
    room: Zeroizing<Vec<u8>>,
) -> Zeroizing<Vec<u8>> {
    let table = |table: &TableCopy| Table {
        name: table.name.clone(),
        columns: table.columns.clone(),
        rows: table.rows.iter().map(|row| row.iter().cloned().map(Written).collect()).collect(),
    };
    let contents = Contents {
        made_by: made_by.to_owned(),
        min_reader: copy.min_reader,
        tables: copy.tables.iter().map(table).collect(),
    };
    // All of its room is made at once: a buffer that grows leaves copies of keys behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(room.len() + most_bytes(copy)));
    whole.extend_from_slice(&room);
    // Writing to memory cannot fail, and none of these types can fail to be JSON.
    let _ = serde_json::to_writer(&mut *whole, &contents);
    whole
}

/// No copy is longer than this when it is written.
pub(super) fn most_bytes(copy: &StoreCopy) -> usize {
    let cell = |cell: &Cell| match cell {
        Cell::Null | Cell::Integer(_) => 32,
        // Each byte of a text may become an escape.
        Cell::Text(text) => 6 * text.len() + 8,
        Cell::Blob(bytes) => 2 * bytes.len() + 8,
    };
    let table = |table: &TableCopy| {
        let names: usize = table.columns.iter().map(|name| 6 * name.len() + 8).sum();
        let rows: usize =
            table.rows.iter().map(|row| row.iter().map(cell).sum::<usize>() + 8).sum();
        6 * table.name.len() + names + rows + 64
    };
    1024 + copy.tables.iter().map(table).sum::<usize>()
}

/// Reads what was decrypted; also which version of the host made it.
pub(super) fn read(opened: &[u8]) -> Result<(StoreCopy, String), BackupError> {
    let unfit = |what: String| BackupError::Unfit { what };
    let contents: Contents =
        serde_json::from_slice(opened).map_err(|error| unfit(error.to_string()))?;
    let mut tables: Vec<TableCopy> = Vec::new();
    for Table { name, columns, rows } in contents.tables {
        // A newer host may have tables that this one does not.
        let Some((_, max)) = COPIED_TABLES.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        let fits = rows.len() <= *max
            && columns.len() <= MAX_COLUMNS
            && rows.iter().all(|row| row.len() == columns.len())
            && !tables.iter().any(|other| other.name == name);
        if !fits {
            return Err(unfit(format!("its table \"{name}\" is not well formed")));
        }
        let cells = |row: Vec<Written>| row.into_iter().map(|Written(cell)| cell).collect();
        let rows = rows.into_iter().map(cells).collect();
        tables.push(TableCopy { name, columns, rows });
    }
    let made_by: String = contents.made_by.chars().filter(|c| !c.is_control()).take(64).collect();
    Ok((StoreCopy { min_reader: contents.min_reader, tables }, made_by))
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cell::Null => f.write_char('n'),
            Cell::Integer(number) => write!(f, "i{number}"),
            Cell::Text(text) => write!(f, "t{text}"),
            Cell::Blob(bytes) => {
                f.write_char('x')?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cell")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Written, E> {
                parse(text).map(Written).ok_or_else(|| E::custom("a cell cannot be read"))
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

fn parse(text: &str) -> Option<Cell> {
    let mut letters = text.chars();
    let kind = letters.next()?;
    let rest = letters.as_str();
    match kind {
        'n' => rest.is_empty().then_some(Cell::Null),
        'i' => rest.parse().ok().map(Cell::Integer),
        't' => Some(Cell::Text(rest.to_owned())),
        'x' => bytes(rest.as_bytes()).map(Cell::Blob),
        _ => None,
    }
}

fn bytes(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for pair in digits.chunks_exact(2) {
        bytes.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    Some(bytes)
}
