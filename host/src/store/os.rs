//! What the daemon writes down about updates: one state, and a bounded history. The room `os` knows what they mean.

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, sql};

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsRow {
    /// When, in seconds since 1970.
    pub at: u64,
    /// What, as JSON.
    pub event: String,
}

impl Store {
    /// The state that this backend wrote last, and the newest `limit` lines of its history, oldest first.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn os_load(
        &self,
        backend: &str,
        limit: u32,
    ) -> Result<(Option<String>, Vec<OsRow>), StoreError> {
        let doing = "read what is known about updates";
        let connection = self.connection();
        let state = connection
            .query_row("SELECT state FROM os_state WHERE backend = ?1", [backend], |row| row.get(0))
            .optional()
            .map_err(sql(doing))?;
        let mut statement = connection
            .prepare("SELECT at, event FROM os_event WHERE backend = ?1 ORDER BY id DESC LIMIT ?2")
            .map_err(sql(doing))?;
        let rows = statement
            .query_map(params![backend, limit], |row| {
                let at: i64 = row.get(0)?;
                Ok(OsRow { at: u64::try_from(at).unwrap_or(0), event: row.get(1)? })
            })
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(sql(doing))?;
        Ok((state, rows.into_iter().rev().collect()))
    }

    /// Writes the state and new lines of the history together, and forgets all but the newest `limit` lines.
    ///
    /// # Errors
    /// The disk failed; nothing of it is written then.
    pub fn os_save(
        &self,
        backend: &str,
        state: &str,
        news: &[OsRow],
        limit: u32,
    ) -> Result<(), StoreError> {
        let doing = "write down what is known about updates";
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(sql(doing))?;
        transaction
            .execute(
                "INSERT INTO os_state (backend, state) VALUES (?1, ?2)
                 ON CONFLICT (backend) DO UPDATE SET state = excluded.state",
                [backend, state],
            )
            .map_err(sql(doing))?;
        for row in news {
            transaction
                .execute(
                    "INSERT INTO os_event (at, backend, event) VALUES (?1, ?2, ?3)",
                    params![i64::try_from(row.at).unwrap_or(i64::MAX), backend, row.event],
                )
                .map_err(sql(doing))?;
        }
        if !news.is_empty() {
            transaction
                .execute(
                    "DELETE FROM os_event WHERE backend = ?1 AND id NOT IN
                     (SELECT id FROM os_event WHERE backend = ?1 ORDER BY id DESC LIMIT ?2)",
                    params![backend, limit],
                )
                .map_err(sql(doing))?;
        }
        transaction.commit().map_err(sql(doing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: u64) -> OsRow {
        OsRow { at, event: format!("{{\"number\":{at}}}") }
    }

    #[test]
    fn state_and_history_survive_and_the_oldest_lines_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.os_load("one", 3).unwrap(), (None, vec![]));
        for at in 1..=5 {
            store.os_save("one", &format!("state {at}"), &[row(at)], 3).unwrap();
        }
        store.os_save("one", "newest", &[], 3).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let expected = (Some("newest".to_owned()), vec![row(3), row(4), row(5)]);
        assert_eq!(store.os_load("one", 100).unwrap(), expected);
    }

    #[test]
    fn one_backend_does_not_read_what_another_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        store.os_save("simulated", "a", &[row(1), row(2)], 9).unwrap();
        store.os_save("real", "b", &[row(3)], 1).unwrap();
        assert_eq!(store.os_load("real", 9).unwrap(), (Some("b".to_owned()), vec![row(3)]));
        assert_eq!(store.os_load("simulated", 9).unwrap().1.len(), 2);
        assert_eq!(store.os_load("other", 9).unwrap(), (None, vec![]));
    }
}
