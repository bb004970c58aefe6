//! What a client may do, and until when: the owner's word, beside the pairing.
//!
//! A client without a row may do everything for ever, which is what pairing has always meant. What a newer host allows
//! and this one does not know is left out when it is read: nobody gets more than was said.

use rusqlite::{Connection, params};

use super::revision::Part;
use super::{ClientId, PairedClient, PoisonError, Store, StoreError, sql, unix_now};

/// The latest end of a stay that can be named, in seconds since 1970: the end of the year 9999.
pub const MAX_EXPIRES_AT: u64 = 253_402_300_799;

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Start apps. Without it, it may come back to what runs for it.
    Launch,
    /// Use keyboard and pointer. Without it, it only watches.
    Input,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Launch, Self::Input];

    /// Its name, in the database and to the owner.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Input => "input",
        }
    }
}

/// What a client may do, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// It may start apps.
    pub launch: bool,
    /// It may use keyboard and pointer.
    pub input: bool,
    /// It is a guest until then, in seconds since 1970.
    pub expires_at: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { launch: true, input: true, expires_at: None }
    }
}

impl Policy {
    /// Whether it has this permission, expired or not.
    pub const fn allows(&self, permission: Permission) -> bool {
        match permission {
            Permission::Launch => self.launch,
            Permission::Input => self.input,
        }
    }

    /// Whether its time was over at `now`, in seconds since 1970.
    pub fn has_expired_at(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|until| until <= now)
    }

    /// Whether its time is over.
    pub fn has_expired(&self) -> bool {
        self.has_expired_at(unix_now())
    }

    /// This policy with exactly these permissions.
    #[must_use]
    pub fn with(self, permissions: &[Permission]) -> Self {
        let has = |permission| permissions.contains(&permission);
        Self { launch: has(Permission::Launch), input: has(Permission::Input), ..self }
    }

    /// Its permissions.
    pub fn permissions(&self) -> Vec<Permission> {
        Permission::ALL.into_iter().filter(|permission| self.allows(*permission)).collect()
    }

    /// From its columns.
    pub(super) fn read(permissions: &str, expires_at: Option<i64>) -> Self {
        let named =
            |permission: &Permission| permissions.split(',').any(|n| n == permission.name());
        let known: Vec<Permission> = Permission::ALL.into_iter().filter(named).collect();
        // A moment before 1970 is long over.
        let expires_at = expires_at.map(|until| u64::try_from(until).unwrap_or(0));
        Self { expires_at, ..Self::default() }.with(&known)
    }
}

impl Store {
    /// What this client may do; `None` if it is not paired. Does not touch the disk.
    pub fn policy(&self, id: ClientId) -> Option<Policy> {
        self.trusted().get(&id).map(|client| client.policy)
    }

    /// Says what a client may do, and until when; nothing if it is not paired.
    ///
    /// # Errors
    /// The disk failed; all stays as it was.
    pub fn set_policy(
        &self,
        id: ClientId,
        policy: Policy,
    ) -> Result<Option<PairedClient>, StoreError> {
        let connection = self.connection();
        let Some(mut client) = self.client(id) else { return Ok(None) };
        client.policy = policy;
        write(&connection, id, &policy).map_err(sql("keep what a device may do"))?;
        self.inner
            .trusted
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, client.clone());
        self.changed(Part::Clients);
        Ok(Some(client))
    }
}

pub(super) fn write(
    connection: &Connection,
    id: ClientId,
    policy: &Policy,
) -> rusqlite::Result<()> {
    let names: Vec<&str> = policy.permissions().into_iter().map(Permission::name).collect();
    connection.execute(
        "INSERT INTO client_policy (client, permissions, expires_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (client) DO UPDATE SET permissions = excluded.permissions,
             expires_at = excluded.expires_at",
        params![id.0, names.join(","), policy.expires_at.map(u64::cast_signed)],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::NewClient;
    use super::*;

    #[test]
    fn only_what_is_known_is_allowed_and_the_moment_itself_is_too_late() {
        let policy = Policy::read("input,fly,launched", Some(100));
        assert_eq!(policy, Policy { launch: false, input: true, expires_at: Some(100) });
        assert_eq!((policy.has_expired_at(99), policy.has_expired_at(100)), (false, true));
        assert!(Policy::read("", Some(-5)).has_expired_at(0));
        assert_eq!(Policy::default().permissions(), Permission::ALL);
        assert!(!Policy::default().has_expired_at(u64::MAX));
    }

    #[test]
    fn what_a_client_may_is_kept_and_goes_with_its_pairing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state");
        let store = Store::open(&folder).unwrap();
        let new = NewClient {
            certificate_der: b"one".to_vec(),
            name: "TV".to_owned(),
            remote: [10, 0, 0, 5].into(),
        };
        let id = store.add_client(new.clone()).unwrap().id;
        let over = Policy { launch: false, input: true, expires_at: Some(5) };
        assert_eq!(store.set_policy(id, over).unwrap().unwrap().policy, over);
        assert_eq!(store.set_policy(ClientId([0; 32]), over).unwrap(), None);
        drop(store);
        let store = Store::open(&folder).unwrap();
        assert_eq!(store.policy(id), Some(over));
        // Who pairs again is no guest of the past any more, and may do no more than before.
        let again = store.add_client(new.clone()).unwrap();
        assert_eq!(again.policy, Policy { expires_at: None, ..over });
        store.remove_client(id).unwrap();
        assert_eq!(store.policy(id), None);
        assert_eq!(store.add_client(new).unwrap().policy, Policy::default());
        drop(store);
        assert_eq!(Store::open(&folder).unwrap().policy(id), Some(Policy::default()));
    }
}
