//! The claim where somebody at the machine sees it: a note on the stick's FAT partition, and a few lines on the screen
//! and on the serial line.
//!
//! When the host is claimed the note is overwritten before it is removed. On flash memory that is a courtesy and no
//! promise, but the claim in it is dead by then.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::Claim;
use crate::files::{self, FileError};

/// The file on the boot loader's partition.
pub const NAME: &str = "CLAIM.txt";

/// Where people look.
pub const SCREENS: &[&str] = &["/dev/tty1", "/dev/ttyS0"];

/// What people read. Lines end as every system's editor wants them.
pub fn text(claim: &Claim) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::from("This punktfunk box has no owner yet.\r\n\r\n"));
    let (code, token) = (claim.code.expose(), claim.token.expose());
    text.push_str("Open one of these on a computer or phone in the same network:\r\n");
    for name in &claim.names {
        text.push_str(&format!("  {name}/#claim={token}\r\n"));
    }
    text.push_str(&format!(
        "\r\nor open the address without what follows the # and type\r\n  {code}\r\n"
    ));
    text.push_str(&format!(
        "\r\nThe fingerprint of its certificate is\r\n  {}\r\n",
        claim.fingerprint
    ));
    text
}

/// What is shown on screens, which have no room for more and may be seen by others.
pub fn lines(claim: &Claim) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::from("\r\npunktfunk: to own this box, open\r\n"));
    for name in &claim.names {
        text.push_str(&format!("  {name}\r\n"));
    }
    text.push_str(&format!("and type  {}\r\n", claim.code.expose()));
    text
}

/// What is shown on screens when the owner has proved to want a reset, and somebody at the machine is to allow it.
pub const AWAITED: &str = "\r\npunktfunk: the owner of this box has asked to forget everything on it: games, saved\r\n\
    games, settings and devices. Three short presses of the power button within ten\r\n\
    minutes allow it. If nobody of you has asked, do not press, and change the password.\r\n";

/// Writes the note, in one step and to the disk.
pub fn write(esp: &Path, claim: &Claim) -> Result<(), FileError> {
    files::replace(&esp.join(NAME), text(claim).as_bytes(), 0o600)
}

/// Overwrites the note and removes it; none is fine.
pub fn erase(esp: &Path) -> Result<(), FileError> {
    let path = esp.join(NAME);
    for path in [files::part(&path), path] {
        let failed = |source| FileError::new("erase", &path, source);
        match overwrite(&path).and_then(|()| fs::remove_file(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            done => done.map_err(failed)?,
        }
        files::sync_folder_of(&path)?;
    }
    Ok(())
}

fn overwrite(path: &PathBuf) -> io::Result<()> {
    let bytes = fs::metadata(path)?.len().min(1 << 16);
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(&vec![b' '; usize::try_from(bytes).unwrap_or(0)])?;
    file.sync_all()
}

/// Shows lines on a screen, if there is one; nobody waits for a serial line that nobody reads.
pub fn show(screen: &Path, lines: &str) -> io::Result<()> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let mut screen = OpenOptions::new().write(true).custom_flags(flags).open(screen)?;
    screen.write_all(lines.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::FromDaemon;
    use super::super::tests::CLAIM;
    use super::*;

    fn claim() -> Claim {
        match FromDaemon::parse(CLAIM.as_bytes()) {
            Ok(FromDaemon::Claim(claim)) => claim,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_note_says_how_and_goes() {
        let esp = tempfile::tempdir().unwrap();
        erase(esp.path()).unwrap();
        write(esp.path(), &claim()).unwrap();
        let path = esp.path().join(NAME);
        let text = fs::read_to_string(&path).unwrap();
        let token = "00112233445566778899aabbccddeeff";
        assert!(text.contains(&format!("https://punktfunk-1a2b.local:47990/#claim={token}\r\n")));
        assert!(text.contains("ABCD2345"));
        // A second name of the file still sees what was in it: blanks.
        let other = esp.path().join("other");
        fs::hard_link(&path, &other).unwrap();
        erase(esp.path()).unwrap();
        assert!(!path.exists());
        let left = fs::read_to_string(&other).unwrap();
        assert!(left.len() == text.len() && left.trim().is_empty(), "{left}");
    }

    #[test]
    fn screens_see_the_code_and_not_the_token() {
        let screen = tempfile::NamedTempFile::new().unwrap();
        show(screen.path(), &lines(&claim())).unwrap();
        let shown = fs::read_to_string(screen.path()).unwrap();
        assert!(shown.contains("ABCD2345") && !shown.contains("0011"), "{shown}");
        assert!(show(Path::new("/nowhere/tty"), "x").is_err());
    }
}
