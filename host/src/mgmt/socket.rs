//! Where the socket lies, and how it comes and goes.
//!
//! A daemon that died leaves its socket behind. Whether anyone answers there tells the two cases apart: a dead
//! daemon's socket is replaced, a live one's is not touched. Nothing that is not a socket is ever removed.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::MgmtError;

/// The folder of the socket of a host that runs as a service.
const SYSTEM_FOLDER: &str = "/run/punktfunk";
/// The folder inside a user's runtime folder, and the socket's name.
const FOLDER_NAME: &str = "punktfunk";
const SOCKET_NAME: &str = "host.sock";

/// What decides where the socket is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketEnvironment {
    /// `$PUNKTFUNK_SOCKET`: the socket itself.
    pub socket: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`: the user's runtime folder.
    pub runtime_folder: Option<PathBuf>,
    /// `$SUDO_UID`: who became root.
    pub sudo_uid: Option<u32>,
    /// The effective user.
    pub uid: u32,
}

impl SocketEnvironment {
    /// What the process was started with.
    pub fn of_process() -> Self {
        let path =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            socket: path("PUNKTFUNK_SOCKET"),
            runtime_folder: path("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()),
            sudo_uid: std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Where a host may answer, the likeliest first. A socket named by `$PUNKTFUNK_SOCKET` is the only candidate.
    pub fn candidates(&self) -> Vec<PathBuf> {
        if let Some(socket) = &self.socket {
            return vec![socket.clone()];
        }
        let in_folder = |folder: &Path| folder.join(FOLDER_NAME).join(SOCKET_NAME);
        let of_user = |uid: u32| in_folder(&Path::new("/run/user").join(uid.to_string()));
        let of_system = Path::new(SYSTEM_FOLDER).join(SOCKET_NAME);
        let mut candidates: Vec<PathBuf> =
            self.runtime_folder.as_deref().map(in_folder).into_iter().collect();
        if self.uid == 0 {
            candidates.insert(0, of_system);
            candidates.extend(self.sudo_uid.map(of_user));
        } else {
            // A service beside it would only refuse this user.
            candidates.extend([of_user(self.uid), of_system]);
        }
        candidates.dedup();
        candidates
    }
}

/// Where a host that is told nothing opens its socket: `$PUNKTFUNK_SOCKET`; the system's folder if this user can
/// write it (root can, and a service whose folder was made for it); else the user's runtime folder.
pub fn default_socket(environment: &SocketEnvironment) -> Option<PathBuf> {
    if environment.socket.is_some() {
        return environment.socket.clone();
    }
    let system = Path::new(SYSTEM_FOLDER);
    let is_ours = fs::metadata(system).is_ok_and(|folder| folder.uid() == environment.uid);
    if environment.uid == 0 || is_ours {
        return Some(system.join(SOCKET_NAME));
    }
    environment.runtime_folder.as_ref().map(|folder| folder.join(FOLDER_NAME).join(SOCKET_NAME))
}

/// A socket in the file system; removed when this is dropped, if it is still this one.
#[derive(Debug)]
pub(super) struct BoundSocket {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
    /// The folder, if it was made for this socket.
    made_folder: Option<PathBuf>,
}

impl BoundSocket {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if !is_ours {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, socket = %self.path.display(), "cannot remove the socket");
        }
        if let Some(folder) = &self.made_folder {
            // Somebody else may have put something there; then it stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

pub(super) fn bind(path: &Path) -> Result<(BoundSocket, UnixListener), MgmtError> {
    let made_folder = ensure_folder(path)?;
    let io = |source| MgmtError::Io { path: path.to_owned(), source };
    clear_stale(path)?;
    let listener = UnixListener::bind(path).map_err(io)?;
    // Whoever connects is judged by who it is; the mode would only keep the owner out.
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(io)?;
    let metadata = fs::symlink_metadata(path).map_err(io)?;
    let file = (metadata.dev(), metadata.ino());
    Ok((BoundSocket { path: path.to_owned(), file, made_folder }, listener))
}

fn ensure_folder(path: &Path) -> Result<Option<PathBuf>, MgmtError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let io = |source| MgmtError::Io { path: folder.to_owned(), source };
    let made = match DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => Some(folder.to_owned()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
        Err(error) => return Err(io(error)),
    };
    let metadata = fs::metadata(folder).map_err(io)?;
    let own = rustix::process::geteuid().as_raw();
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let is_sticky = mode & 0o1000 != 0;
    if (uid != own && uid != 0) || (mode & 0o022 != 0 && !is_sticky) {
        return Err(MgmtError::FolderNotSafe { path: folder.to_owned(), uid, mode });
    }
    Ok(made)
}

fn clear_stale(path: &Path) -> Result<(), MgmtError> {
    let io = |source| MgmtError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(MgmtError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(MgmtError::AlreadyRunning { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "replacing the socket of a dead host");
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(error)),
                _ => Ok(()),
            }
        }
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/host.sock");
        let (socket, listener) = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(MgmtError::AlreadyRunning { .. })));
        assert!(path.exists());
        // A daemon that is killed closes its socket and removes nothing.
        drop(listener);
        std::mem::forget(socket);
        let (socket, _listener) = bind(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        assert!(path.parent().unwrap().exists(), "the folder was there before");
    }

    #[test]
    fn what_was_made_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/host.sock");
        let (socket, _listener) = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert_eq!(fs::read(&path).unwrap(), b"another's");
        assert!(matches!(bind(&path), Err(MgmtError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"another's");
        fs::remove_file(&path).unwrap();
        fs::remove_dir(path.parent().unwrap()).unwrap();
        drop(bind(&path).unwrap());
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn a_folder_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let path = folder.path().join("host.sock");
        assert!(matches!(bind(&path), Err(MgmtError::FolderNotSafe { mode: 0o777, .. })));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        assert!(bind(&path).is_ok());
    }

    #[test]
    fn candidates_depend_on_who_asks() {
        let texts = |environment: &SocketEnvironment| -> Vec<String> {
            environment.candidates().iter().map(|path| path.display().to_string()).collect()
        };
        let user = SocketEnvironment {
            runtime_folder: Some("/run/user/1000".into()),
            uid: 1000,
            ..SocketEnvironment::default()
        };
        assert_eq!(
            texts(&user),
            ["/run/user/1000/punktfunk/host.sock", "/run/punktfunk/host.sock"]
        );
        let sudo = SocketEnvironment { sudo_uid: Some(1000), ..SocketEnvironment::default() };
        assert_eq!(
            texts(&sudo),
            ["/run/punktfunk/host.sock", "/run/user/1000/punktfunk/host.sock"]
        );
        let named = SocketEnvironment { socket: Some("/tmp/s".into()), ..user.clone() };
        assert_eq!(texts(&named), ["/tmp/s"]);
        assert_eq!(default_socket(&named), Some("/tmp/s".into()));
        assert_eq!(
            default_socket(&sudo),
            Some("/run/punktfunk/host.sock".into()),
            "root's host is the system's"
        );
    }
}
