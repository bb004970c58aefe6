//! The file that an owner may have prepared before the first start, read once when the host starts.
//!
//! It lies where the machine's own configuration says, on media that anybody may have written: it is read in bounds, as a
//! regular file, and whatever is wrong with it is told to the owner and keeps no door from opening.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::access::{Access, Preseed, PreseedOutcome};

/// More bytes are not read; the file may have fewer.
const MAX_READ_BYTES: u64 = 64 * 1024;

/// Takes what was prepared, if this is the first time that this host sees it. What is returned the owner has to know.
pub(super) fn take(file: &Path, access: &Access) -> Option<String> {
    let shown = file.display();
    let bytes = match read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            return Some(format!(
                "the prepared file {shown} cannot be read ({error}), so that nothing of it holds; use the link or the \
                 code that the host shows, or mend the file and start the host again"
            ));
        }
    };
    let prepared = match Preseed::parse(&bytes) {
        Ok(prepared) => prepared,
        Err(error) => return Some(format!("{shown}: {error}; nothing of it holds")),
    };
    match access.take_preseed(&prepared) {
        Ok(PreseedOutcome::Taken { has_network: false }) => {
            tracing::info!(file = %shown, "the prepared name and claim hold");
            None
        }
        Ok(PreseedOutcome::Taken { has_network: true }) => Some(format!(
            "the name and the claim in the prepared file {shown} hold, but its network waits: it is kept until this host \
             can join networks; until then plug in a cable, or join it in the system's own settings"
        )),
        Ok(PreseedOutcome::Used | PreseedOutcome::Claimed) => None,
        Err(error) => Some(format!("the prepared file {shown} was not taken: {error}")),
    }
}

fn read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // A pipe with nobody at its other end would keep the host from starting.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    // As large as it may become from the start: what grows leaves copies behind.
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_READ_BYTES).unwrap_or(0)));
    file.take(MAX_READ_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::AccessOptions;
    use crate::store::Store;

    /// A host that nobody owns, and what it says of a prepared file with this text.
    fn told(text: &str) -> (Option<String>, Store) {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let store = Store::open(&state).unwrap();
        let options = AccessOptions::of_machine(state).dangerous_with_cheap_hashes();
        let access = Access::open(store.clone(), options).unwrap();
        let file = folder.path().join("prepared.json");
        std::fs::write(&file, text).unwrap();
        (take(&file, &access), store)
    }

    #[test]
    fn what_is_not_there_is_no_problem_and_what_cannot_be_read_is_one() {
        let (_, store) = told("{}");
        let folder = tempfile::tempdir().unwrap();
        let options = AccessOptions::of_machine(folder.path().to_owned());
        let access = Access::open(store, options.dangerous_with_cheap_hashes()).unwrap();
        assert_eq!(take(&folder.path().join("absent"), &access), None);
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        for file in [folder.path(), &pipe] {
            let told = take(file, &access).unwrap();
            assert!(told.contains("no regular file"), "{told}");
        }
    }

    #[test]
    fn a_file_that_holds_is_silent_and_one_that_does_not_is_told_without_its_secret() {
        let secret = "00112233445566778899aabbccddeeff";
        let good = format!(r#"{{"name": "Den", "claim_secret": "{secret}"}}"#);
        let (problem, store) = told(&good);
        assert_eq!(problem, None);
        assert_eq!(store.claim().unwrap().unwrap().reason, "prepared");
        let wrong = format!(r#"{{"name": "Den", "claim_secret": "{secret}00"}}"#);
        for text in [&wrong, "no json", &" ".repeat(40_000)] {
            let (problem, store) = told(text);
            let problem = problem.unwrap();
            assert!(problem.contains("nothing of it holds") && !problem.contains(secret));
            assert_ne!(store.claim().unwrap().unwrap().reason, "prepared");
        }
    }

    #[test]
    fn a_network_that_nobody_joins_is_told_and_kept() {
        let (problem, store) = told(
            r#"{"name": "Den", "claim_secret": "00112233445566778899aabbccddeeff",
                "network": {"ssid": "attic", "passphrase": "very secret"}}"#,
        );
        let problem = problem.unwrap();
        assert!(
            problem.contains("its network waits") && !problem.contains("very secret"),
            "{problem}"
        );
        assert_eq!(store.prepared_network().unwrap().unwrap().ssid, "attic");
    }
}
