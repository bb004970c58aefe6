//! The session's runtime folder: made, filled, looked through, emptied.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use punktfunk_agent::{MAX_SOCKETS, is_plain_name};
use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::complain;

/// Makes the folder ours alone and empty. What an agent that was killed left there is not to be trusted.
///
/// # Errors
/// It cannot be made, or belongs to somebody else.
pub(crate) fn prepare(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is not a folder of this user's"));
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    empty(folder)
}

/// Removes what is in the folder, and the folder if its parent allows that.
pub(crate) fn remove(folder: &Path) {
    if let Err(error) = empty(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        complain(&format!("punktfunk-agent: {} is not empty: {error}", folder.display()));
    }
    // The folder may belong to whoever starts agents; then it stays.
    let _ = fs::remove_dir(folder);
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A link is removed, never followed.
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a file of mode 0600.
///
/// # Errors
/// The name is not plain, or the disk refused.
pub(crate) fn write(folder: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let path = folder.join(plain(name)?);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    file.write_all(contents)
}

/// The names of the sockets, sorted.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn sockets(folder: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder)?
        .take(MAX_ENTRIES)
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_plain_name(name))
        .collect();
    names.sort();
    names.truncate(MAX_SOCKETS);
    Ok(names)
}

/// Connects to a stream socket without waiting; `None`: its queue is full just now.
///
/// A program that hangs accepts nobody, and once its short queue is full a plain `connect` would wait for ever.
///
/// # Errors
/// The name is not plain, or nobody listens there.
pub(crate) fn try_connect(folder: &Path, name: &str) -> io::Result<Option<OwnedFd>> {
    let address = SocketAddrUnix::new(folder.join(plain(name)?))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) => {
            let status = rustix::fs::fcntl_getfl(&socket)?;
            rustix::fs::fcntl_setfl(&socket, status - OFlags::NONBLOCK)?;
            Ok(Some(socket))
        }
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn plain(name: &str) -> io::Result<&str> {
    if is_plain_name(name) {
        return Ok(name);
    }
    Err(io::Error::other("this is no name of a file in the session's folder"))
}

/// As many entries of the folder are looked at.
const MAX_ENTRIES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_folder_is_made_private_and_what_was_left_there_goes() {
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("run");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(outside.path().join("precious"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.join("link")).unwrap();
        prepare(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert!(outside.path().join("precious").exists());
        remove(&folder);
        assert!(!folder.exists());
        std::os::unix::fs::symlink(outside.path(), &folder).unwrap();
        assert!(prepare(&folder).is_err(), "a link is no folder");
    }

    #[test]
    fn sockets_are_listed_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(sockets(folder.path()).unwrap(), Vec::<String>::new());
        fs::write(folder.path().join("wayland-1.lock"), "").unwrap();
        let listen = |name: &str| UnixListener::bind(folder.path().join(name)).unwrap();
        let _open = [listen("wayland-1"), listen("sway.sock"), listen("odd name"), listen(".a")];
        assert_eq!(sockets(folder.path()).unwrap(), ["sway.sock", "wayland-1"]);
    }

    #[test]
    fn a_file_is_private_and_lies_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "sway.conf", b"old and long").unwrap();
        write(folder.path(), "sway.conf", b"new").unwrap();
        let file = folder.path().join("sway.conf");
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        std::os::unix::fs::symlink(&file, folder.path().join("link")).unwrap();
        for name in ["../x", "a/b", "", "link"] {
            assert!(write(folder.path(), name, b"").is_err(), "{name}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn a_program_that_accepts_nobody_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let hung = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .unwrap();
        rustix::net::bind(&hung, &SocketAddrUnix::new(folder.path().join("hung")).unwrap())
            .unwrap();
        assert!(try_connect(folder.path(), "hung").is_err(), "nobody listens yet");
        rustix::net::listen(&hung, 1).unwrap();
        let tries: Vec<_> =
            (0..4).map(|_| try_connect(folder.path(), "hung").unwrap().is_some()).collect();
        assert!(tries[0] && !tries[3], "{tries:?}");
        assert!(try_connect(folder.path(), "../hung").is_err());
    }
}
