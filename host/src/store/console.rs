//! The console's certificate and key, as they lie in the store; `identity` gives them a meaning.

use rusqlite::{OptionalExtension as _, params};
use zeroize::Zeroizing;

use super::{Store, StoreError, sql};

/// The console's identity as it lies in the store.
pub struct StoredConsole {
    /// Its certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Its private key, PKCS#8.
    pub private_key_der: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for StoredConsole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredConsole")
            .field("private_key_der", &"redacted")
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The console's certificate and key; `None` before there are any.
    ///
    /// # Errors
    /// The disk failed.
    pub fn console_identity(&self) -> Result<Option<StoredConsole>, StoreError> {
        self.connection()
            .query_row(
                "SELECT certificate_der, private_key_der FROM console_identity WHERE id = 1",
                [],
                |row| {
                    Ok(StoredConsole {
                        certificate_der: row.get(0)?,
                        private_key_der: Zeroizing::new(row.get(1)?),
                    })
                },
            )
            .optional()
            .map_err(sql("read the console's certificate"))
    }

    /// Keeps the console's certificate and key; those that were there go. Unlike the host's own identity they may be
    /// replaced: no device pins them, and the owner is shown the new fingerprint.
    ///
    /// # Errors
    /// The disk failed; what was there stays.
    pub fn put_console_identity(&self, console: &StoredConsole) -> Result<(), StoreError> {
        self.connection()
            .execute(
                "INSERT OR REPLACE INTO console_identity (id, certificate_der, private_key_der)
                 VALUES (1, ?1, ?2)",
                params![console.certificate_der, *console.private_key_der],
            )
            .map(drop)
            .map_err(sql("keep the console's certificate"))
    }
}
