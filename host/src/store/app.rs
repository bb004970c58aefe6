//! The apps that the owner added in the console, with their pictures. What a definition means is `config`'s business.

use rusqlite::{OptionalExtension, params};

use super::revision::Part;
use super::{Store, StoreError, sql, unix_now};

/// All pictures together, in bytes: a backup holds them.
pub const MAX_ART_TOTAL_BYTES: usize = 16 * 1024 * 1024;

/// As many apps are read.
const MAX_APPS: usize = 1024;

/// An app that was added in the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredApp {
    /// Its title.
    pub title: String,
    /// What it is, in JSON.
    pub definition: String,
    /// It has a picture here.
    pub has_art: bool,
}

impl Store {
    /// The apps, by title.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn apps(&self) -> Result<Vec<StoredApp>, StoreError> {
        let doing = "read the apps";
        let connection = self.connection();
        let mut statement = connection
            .prepare("SELECT title, definition, art IS NOT NULL FROM app ORDER BY title LIMIT ?1")
            .map_err(sql(doing))?;
        let rows = statement
            .query_map([MAX_APPS.cast_signed()], |row| {
                Ok(StoredApp { title: row.get(0)?, definition: row.get(1)?, has_art: row.get(2)? })
            })
            .map_err(sql(doing))?;
        rows.collect::<Result<_, _>>().map_err(sql(doing))
    }

    /// Keeps an app; one of the same title is replaced and keeps its picture.
    ///
    /// # Errors
    /// The disk failed; everything is as it was.
    pub fn put_app(&self, title: &str, definition: &str) -> Result<(), StoreError> {
        self.connection()
            .execute(
                "INSERT INTO app (title, definition, set_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (title) DO UPDATE
                     SET definition = excluded.definition, set_at = excluded.set_at",
                params![title, definition, unix_now().cast_signed()],
            )
            .map_err(sql("keep an app"))?;
        self.changed(Part::Settings);
        Ok(())
    }

    /// Forgets an app; says whether it was there.
    ///
    /// # Errors
    /// The disk failed; it is still there.
    pub fn remove_app(&self, title: &str) -> Result<bool, StoreError> {
        let removed = self
            .connection()
            .execute("DELETE FROM app WHERE title = ?1", [title])
            .map_err(sql("remove an app"))?;
        self.changed(Part::Settings);
        Ok(removed > 0)
    }

    /// An app's picture.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn app_art(&self, title: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self
            .connection()
            .query_row("SELECT art FROM app WHERE title = ?1", [title], |row| row.get(0))
            .optional()
            .map_err(sql("read an app's picture"))?;
        Ok(row.flatten())
    }

    /// Gives an app a picture; says whether there is such an app.
    ///
    /// # Errors
    /// With it there would be more than [`MAX_ART_TOTAL_BYTES`], or the disk failed; the app has what it had.
    pub fn put_app_art(&self, title: &str, art: &[u8]) -> Result<bool, StoreError> {
        let doing = "keep an app's picture";
        let connection = self.connection();
        let others: i64 = connection
            .query_row(
                "SELECT COALESCE(SUM(LENGTH(art)), 0) FROM app WHERE title != ?1",
                [title],
                |row| row.get(0),
            )
            .map_err(sql(doing))?;
        let others = usize::try_from(others).unwrap_or(usize::MAX);
        if others.saturating_add(art.len()) > MAX_ART_TOTAL_BYTES {
            return Err(StoreError::TooMuchArt { max: MAX_ART_TOTAL_BYTES });
        }
        let changed = connection
            .execute("UPDATE app SET art = ?2 WHERE title = ?1", params![title, art])
            .map_err(sql(doing))?;
        self.changed(Part::Settings);
        Ok(changed > 0)
    }
}
