//! What the owner set in the console: settings by their keys. What a value means is `config`'s business.

use rusqlite::params;

use super::revision::Part;
use super::{Store, StoreError, sql, unix_now};

/// As many settings are kept, and read: more than there are, so that a newer host's are not lost.
const MAX_SETTINGS: usize = 1024;

impl Store {
    /// The settings: keys, with values in JSON.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn settings(&self) -> Result<Vec<(String, String)>, StoreError> {
        let doing = "read what the console set";
        let connection = self.connection();
        let mut statement = connection
            .prepare("SELECT key, value FROM setting ORDER BY key LIMIT ?1")
            .map_err(sql(doing))?;
        let rows = statement
            .query_map([MAX_SETTINGS.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(sql(doing))?;
        rows.collect::<Result<_, _>>().map_err(sql(doing))
    }

    /// Keeps all of these settings, or none.
    ///
    /// # Errors
    /// The disk failed; everything is as it was.
    pub fn put_settings(&self, settings: &[(String, String)]) -> Result<(), StoreError> {
        let doing = "keep what the console set";
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(sql(doing))?;
        for (key, value) in settings {
            transaction
                .execute(
                    "INSERT INTO setting (key, value, set_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value, set_at = excluded.set_at",
                    params![key, value, unix_now().cast_signed()],
                )
                .map_err(sql(doing))?;
        }
        transaction.commit().map_err(sql(doing))?;
        self.changed(Part::Settings);
        Ok(())
    }

    /// Forgets a setting, if it is there.
    ///
    /// # Errors
    /// The disk failed; it is still there.
    pub fn remove_setting(&self, key: &str) -> Result<(), StoreError> {
        self.connection()
            .execute("DELETE FROM setting WHERE key = ?1", [key])
            .map_err(sql("reset a setting"))?;
        self.changed(Part::Settings);
        Ok(())
    }

    /// Forgets all settings.
    ///
    /// # Errors
    /// The disk failed; they are still there.
    pub fn remove_settings(&self) -> Result<(), StoreError> {
        self.connection().execute("DELETE FROM setting", []).map_err(sql("reset the settings"))?;
        self.changed(Part::Settings);
        Ok(())
    }
}
