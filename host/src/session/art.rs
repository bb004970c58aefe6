//! Box art: an app's own picture, or one that ships with the host.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bytes::Bytes;

use super::App;
use crate::config::{self, AppArt};
use crate::store::Store;

pub use crate::config::art::{ArtError, MAX_ART_BYTES, MAX_ART_SIDE, check};

const DEFAULT: &[u8] = include_bytes!("../../assets/art/default.png");
const DESKTOP: &[u8] = include_bytes!("../../assets/art/desktop.png");
const TEST_CARD: &[u8] = include_bytes!("../../assets/art/test-card.png");

/// The PNG picture of an app; any picture is better than none, which clients would store as a broken one. Waits for the
/// disk.
pub fn of(app: Option<&App>, store: &Store) -> Bytes {
    let Some(app) = app else { return of_nobody() };
    let own = match &app.art {
        Some(AppArt::File(path)) => read(path),
        Some(AppArt::Stored) => store
            .app_art(&app.title)
            .map_err(io::Error::other)
            .and_then(|art| art.ok_or_else(|| io::ErrorKind::NotFound.into())),
        None => return Bytes::from_static(shipped(app)),
    };
    match own {
        Ok(own) => own.into(),
        Err(error) => {
            tracing::warn!(%error, app = app.title, "an app's picture cannot be used");
            Bytes::from_static(shipped(app))
        }
    }
}

/// The picture of an app that is not there.
pub fn of_nobody() -> Bytes {
    Bytes::from_static(DEFAULT)
}

fn shipped(app: &App) -> &'static [u8] {
    if app.display == "pattern" {
        TEST_CARD
    } else if app.title.eq_ignore_ascii_case("desktop") {
        DESKTOP
    } else {
        DEFAULT
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let unfit = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let mut bytes = Vec::new();
    // A pipe that nobody writes to must keep nobody waiting.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return unfit("it is no file");
    }
    file.take(MAX_ART_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_ART_BYTES {
        return unfit("the file is larger than 1 MiB");
    }
    if !config::art::is_png(&bytes) {
        return unfit("the file is no PNG picture");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::session::AppId;

    fn app(title: &str, display: &str, art: Option<PathBuf>) -> App {
        let art = art.map(AppArt::File);
        App { id: AppId(1), title: title.into(), display: display.into(), commands: vec![], art }
    }

    // spec: gamestream 13 item 18
    #[test]
    fn every_app_has_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad, large) =
            (folder.path().join("a.png"), folder.path().join("b"), folder.path().join("c.png"));
        std::fs::write(&good, b"\x89PNG\r\n\x1a\nown").unwrap();
        std::fs::write(&bad, b"<svg/>").unwrap();
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        bytes.resize(MAX_ART_BYTES + 1, 0);
        std::fs::write(&large, bytes).unwrap();

        let store = Store::open(&folder.path().join("state")).unwrap();
        let of = |app: Option<App>| of(app.as_ref(), &store);
        assert_eq!(of(None), DEFAULT);
        assert_eq!(of(Some(app("Desktop", "sway", None))), DESKTOP);
        assert_eq!(of(Some(app("Test card", "pattern", None))), TEST_CARD);
        assert_eq!(of(Some(app("Game", "sway", Some(good)))), &b"\x89PNG\r\n\x1a\nown"[..]);
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        for unfit in [bad, large, pipe, folder.path().to_owned(), folder.path().join("absent")] {
            assert_eq!(of(Some(app("Game", "sway", Some(unfit)))), DEFAULT);
        }
        let stored = App { art: Some(AppArt::Stored), ..app("Game", "sway", None) };
        assert_eq!(of(Some(stored.clone())), DEFAULT);
        store.put_app("Game", "{}").unwrap();
        assert!(store.put_app_art("Game", b"own").unwrap());
        assert_eq!(of(Some(stored)), &b"own"[..]);
    }

    #[test]
    fn the_shipped_pictures_are_portrait_png_of_the_usual_size() {
        for picture in [DEFAULT, DESKTOP, TEST_CARD] {
            assert_eq!(&picture[..8], b"\x89PNG\r\n\x1a\n");
            let side = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
            assert_eq!((side(16), side(20)), (600, 800));
            assert_eq!(check(picture), Ok(()));
        }
    }

    #[test]
    fn what_is_no_picture_of_bounded_size_is_refused() {
        let damaged = |at: usize, byte: u8| {
            let mut picture = DEFAULT.to_vec();
            picture[at] = byte;
            check(&picture)
        };
        assert_eq!(damaged(0, b'x'), Err(ArtError::NotPng));
        assert_eq!(damaged(12, b'x'), Err(ArtError::NotPng));
        assert_eq!(damaged(16, 1), Err(ArtError::Sides { width: 0x100_0258, height: 800 }));
        assert!(matches!(damaged(21, 0xff), Err(ArtError::Sides { .. })));
        for end in 0..DEFAULT.len() {
            assert!(check(&DEFAULT[..end]).is_err(), "{end} bytes are a picture");
        }
        let mut longer = DEFAULT.to_vec();
        longer.push(0);
        assert_eq!(check(&longer), Err(ArtError::Damaged));
        let large = vec![0; MAX_ART_BYTES + 1];
        assert_eq!(check(&large), Err(ArtError::TooLarge { got: MAX_ART_BYTES + 1 }));
    }
}
