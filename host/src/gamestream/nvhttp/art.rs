//! Box art: an app's own picture, or one that ships with the host.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::session::App;

/// The largest picture that is sent, in bytes; consoles hold it in memory.
// spec: gamestream 2.10
const MAX_ART_BYTES: u64 = 1024 * 1024;

const DEFAULT: &[u8] = include_bytes!("../../../assets/art/default.png");
const DESKTOP: &[u8] = include_bytes!("../../../assets/art/desktop.png");
const TEST_CARD: &[u8] = include_bytes!("../../../assets/art/test-card.png");

/// The PNG picture of an app; any picture is better than none, which clients would store as a broken one.
pub(super) async fn of(app: Option<App>) -> Bytes {
    let Some(app) = app else { return Bytes::from_static(DEFAULT) };
    let shipped = Bytes::from_static(shipped(&app));
    let Some(path) = app.art else { return shipped };
    match spawn_blocking(move || read(&path)).await {
        Ok(Ok(own)) => own.into(),
        Ok(Err(error)) => {
            tracing::warn!(%error, app = app.title, "an app's picture cannot be used");
            shipped
        }
        Err(_) => shipped,
    }
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
    const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
    let unfit = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_ART_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_ART_BYTES {
        return unfit("the file is larger than 1 MiB");
    }
    if !bytes.starts_with(PNG_SIGNATURE) {
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
        App { id: AppId(1), title: title.into(), display: display.into(), commands: vec![], art }
    }

    // spec: gamestream 13 item 18
    #[tokio::test]
    async fn every_app_has_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad, large) =
            (folder.path().join("a.png"), folder.path().join("b"), folder.path().join("c.png"));
        std::fs::write(&good, b"\x89PNG\r\n\x1a\nown").unwrap();
        std::fs::write(&bad, b"<svg/>").unwrap();
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        bytes.resize(MAX_ART_BYTES as usize + 1, 0);
        std::fs::write(&large, bytes).unwrap();

        assert_eq!(of(None).await, DEFAULT);
        assert_eq!(of(Some(app("Desktop", "sway", None))).await, DESKTOP);
        assert_eq!(of(Some(app("Test card", "pattern", None))).await, TEST_CARD);
        assert_eq!(of(Some(app("Game", "sway", Some(good)))).await, &b"\x89PNG\r\n\x1a\nown"[..]);
        for unfit in [bad, large, folder.path().join("absent")] {
            assert_eq!(of(Some(app("Game", "sway", Some(unfit)))).await, DEFAULT);
        }
    }

    #[test]
    fn the_shipped_pictures_are_portrait_png_of_the_usual_size() {
        for picture in [DEFAULT, DESKTOP, TEST_CARD] {
            assert_eq!(&picture[..8], b"\x89PNG\r\n\x1a\n");
            let side = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
            assert_eq!((side(16), side(20)), (600, 800));
            assert!(picture.len() as u64 <= MAX_ART_BYTES);
        }
    }
}
