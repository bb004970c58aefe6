//! Sessions that have ended, the newest of them.

use std::time::Duration;

use rusqlite::{Row, params};

use super::{ClientId, Store, StoreError, sql, unix_now};

/// As many are kept; the oldest go first.
pub const MAX_PAST_SESSIONS: u32 = 500;

/// The longest text of a row, in characters: a reason may hold a program's last words.
const MAX_TEXT_CHARS: usize = 1_000;

/// A session that ends now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSession {
    /// Whose it was.
    pub client: ClientId,
    /// What that client was called.
    pub client_name: String,
    /// The title of its app.
    pub app: String,
    /// Its last mode, in words.
    pub mode: String,
    /// How long it lasted.
    pub lasted: Duration,
    /// Why it ended, in words.
    pub reason: String,
    /// What is known of its streams, as JSON.
    pub figures: String,
}

/// A session that has ended, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastSession {
    /// Counts past sessions; a later one has a higher number.
    pub id: u64,
    /// Whose it was; 64 hex digits. The client may be paired no more.
    pub client: String,
    /// What that client was called then.
    pub client_name: String,
    /// The title of its app.
    pub app: String,
    /// Its last mode, in words.
    pub mode: String,
    /// When it began, in seconds since 1970.
    pub began_at: u64,
    /// When it ended, in seconds since 1970.
    pub ended_at: u64,
    /// Why it ended, in words.
    pub reason: String,
    /// What is known of its streams, as JSON.
    pub figures: String,
}

impl Store {
    /// Remembers a session that ends now, and forgets the oldest if there are too many.
    ///
    /// # Errors
    /// The disk failed; nothing is changed.
    pub fn remember_session(&self, ended: &EndedSession) -> Result<(), StoreError> {
        self.remember_session_at(ended, unix_now())
    }

    fn remember_session_at(&self, ended: &EndedSession, now: u64) -> Result<(), StoreError> {
        let failed = || sql("remember a session");
        let cut = |text: &str| text.chars().take(MAX_TEXT_CHARS).collect::<String>();
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(failed())?;
        transaction
            .execute(
                "INSERT INTO past_session
                 (client, client_name, app, mode, began_at, ended_at, reason, figures)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    ended.client.0,
                    cut(&ended.client_name),
                    cut(&ended.app),
                    cut(&ended.mode),
                    now.saturating_sub(ended.lasted.as_secs()).cast_signed(),
                    now.cast_signed(),
                    cut(&ended.reason),
                    ended.figures,
                ],
            )
            .map_err(failed())?;
        transaction
            .execute(
                "DELETE FROM past_session
                 WHERE id <= (SELECT MAX(id) FROM past_session) - ?1",
                [MAX_PAST_SESSIONS],
            )
            .map_err(failed())?;
        transaction.commit().map_err(failed())
    }

    /// The newest past sessions, newest first, at most `limit` of them; with `before`, of those with a lower number.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn past_sessions(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<PastSession>, StoreError> {
        let failed = || sql("read past sessions");
        let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let connection = self.connection();
        let mut statement = connection
            .prepare(
                "SELECT id, client, client_name, app, mode, began_at, ended_at, reason, figures
                 FROM past_session WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            )
            .map_err(failed())?;
        let rows = statement.query_map(params![before, limit], from_row).map_err(failed())?;
        rows.collect::<Result<_, _>>().map_err(failed())
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<PastSession> {
    let number = |index| row.get::<_, i64>(index).map(|value| u64::try_from(value).unwrap_or(0));
    let client: Vec<u8> = row.get(1)?;
    Ok(PastSession {
        id: number(0)?,
        client: client.iter().map(|byte| format!("{byte:02x}")).collect(),
        client_name: row.get(2)?,
        app: row.get(3)?,
        mode: row.get(4)?,
        began_at: number(5)?,
        ended_at: number(6)?,
        reason: row.get(7)?,
        figures: row.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(app: &str) -> EndedSession {
        EndedSession {
            client: ClientId([0xab; 32]),
            client_name: "TV".to_owned(),
            app: app.to_owned(),
            mode: "1280x720@60".to_owned(),
            lasted: Duration::from_secs(90),
            reason: "x".repeat(MAX_TEXT_CHARS + 1),
            figures: "{}".to_owned(),
        }
    }

    #[test]
    fn the_newest_are_kept_and_are_there_after_a_restart() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state");
        let store = Store::open(&folder).unwrap();
        store.connection().execute_batch("PRAGMA synchronous = OFF").unwrap();
        for number in 0..MAX_PAST_SESSIONS + 3 {
            store.remember_session_at(&ended(&format!("app {number}")), 1_000).unwrap();
        }
        drop(store);
        let store = Store::open(&folder).unwrap();
        let all = store.past_sessions(None, u32::MAX).unwrap();
        assert_eq!(all.len(), MAX_PAST_SESSIONS as usize);
        assert_eq!((all[0].app.as_str(), all[499].app.as_str()), ("app 502", "app 3"));
        assert_eq!((all[0].began_at, all[0].ended_at), (910, 1_000));
        assert_eq!((all[0].client.len(), all[0].reason.len()), (64, MAX_TEXT_CHARS));
        let page = store.past_sessions(Some(all[0].id), 2).unwrap();
        let apps: Vec<_> = page.iter().map(|past| past.app.as_str()).collect();
        assert_eq!(apps, ["app 501", "app 500"]);
        assert!(store.past_sessions(Some(0), 10).unwrap().is_empty());
    }
}
