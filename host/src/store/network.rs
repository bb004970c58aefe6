//! The network that an owner prepared, kept until the host has joined it.
//!
//! It is written together with the claim that came with it, so that a host that dies in between has both or neither. It
//! is in no backup, which may be taken to another house; what is removed is overwritten.
//!
//! Deliberately absent: networks that a host has joined. Whoever joins them keeps them.

use std::fmt;

use rusqlite::{Connection, OptionalExtension as _, params};
use zeroize::Zeroizing;

use super::{Store, StoreError, sql};

/// A Wi-Fi network to join. Its passphrase is wiped when this is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PreparedNetwork {
    /// Its name.
    pub ssid: String,
    /// Its passphrase; `None` if it is open.
    pub passphrase: Option<Zeroizing<String>>,
}

impl fmt::Debug for PreparedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedNetwork").finish_non_exhaustive()
    }
}

impl Store {
    /// The network that was prepared, if there is one that nobody has joined.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn prepared_network(&self) -> Result<Option<PreparedNetwork>, StoreError> {
        self.connection()
            .query_row("SELECT ssid, passphrase FROM prepared_network", [], |row| {
                let passphrase: Option<String> = row.get(1)?;
                let passphrase = passphrase.map(Zeroizing::new);
                Ok(PreparedNetwork { ssid: row.get(0)?, passphrase })
            })
            .optional()
            .map_err(sql("read which network was prepared"))
    }

    /// Forgets the network that was prepared; it may be forgotten already.
    ///
    /// # Errors
    /// The disk failed; it may still be there.
    pub fn forget_prepared_network(&self) -> Result<(), StoreError> {
        self.connection()
            .execute("DELETE FROM prepared_network", [])
            .map_err(sql("forget the network that was prepared"))?;
        Ok(())
    }
}

/// Keeps this one, or none, in place of what was prepared before. A part of a transaction.
pub(super) fn replace_prepared_network(
    connection: &Connection,
    network: Option<&PreparedNetwork>,
    at: u64,
) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM prepared_network", [])?;
    let Some(network) = network else { return Ok(()) };
    let passphrase = network.passphrase.as_ref().map(|text| text.as_str());
    connection.execute(
        "INSERT INTO prepared_network (id, ssid, passphrase, kept_at) VALUES (1, ?1, ?2, ?3)",
        params![network.ssid, passphrase, at.cast_signed()],
    )?;
    Ok(())
}
