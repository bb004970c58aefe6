//! Registries that are slow, broken or hostile: what is made of their answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use punktfunk_update::error::UpdateError;
use punktfunk_update::name::{BlobDigest, Channel};
use punktfunk_update::statement::MAX_ENVELOPE_BYTES;
use punktfunk_update::transport::bundle::{MAX_MANIFEST_BYTES, write_envelope_manifest};
use punktfunk_update::transport::{Cancel, Patience, Registry, Source, Store, Wanted};

mod support;

use support::made::{Made, noise, repository};
use support::server::{Answer, Asked, Server};

/// Long enough for a machine that is busy, short enough to wait for.
const IDLE: Duration = Duration::from_secs(1);

fn registry_at(url: &str, roots: &Path, idle: Duration) -> Registry {
    let patience = Patience { idle, ..Patience::default() };
    Registry::new(url.parse().unwrap(), roots, false, patience)
}

fn registry(server: &Server) -> Registry {
    registry_at(&server.url("/box"), Path::new("/nowhere"), Duration::from_secs(60))
}

fn wanted(bytes: &[u8]) -> Wanted {
    Wanted { digest: BlobDigest::of(bytes), total_bytes: bytes.len() as u64, is_manifest: false }
}

/// What comes of a blob from an offset on.
fn take(registry: &Registry, blob: Wanted, offset: u64) -> (Vec<u8>, Result<(), UpdateError>) {
    let mut came = Vec::new();
    let mut take = |piece: &[u8]| {
        came.extend_from_slice(piece);
        Ok(())
    };
    let result = registry.blob(blob, offset, &mut take, &Cancel::default());
    (came, result)
}

#[track_caller]
fn is_unreachable(result: Result<(), UpdateError>) {
    assert!(matches!(result, Err(UpdateError::Unreachable { .. })), "{result:?}");
}

#[track_caller]
fn is_content(result: Result<(), UpdateError>) {
    assert!(matches!(result, Err(UpdateError::Content { .. })), "{result:?}");
}

#[test]
fn a_blob_comes_whole_or_from_an_offset() {
    let bytes = noise(1, 100_000);
    let own = bytes.clone();
    let good = Server::new(move |asked| Answer::good(asked, &own));
    let own = bytes.clone();
    let ignorant = Server::new(move |_| Answer::whole(&own));
    let own = bytes.clone();
    // Without a length, the end of the connection is the end.
    let silent = Server::new(move |_| Answer { length: None, ..Answer::whole(&own) });
    for (server, whole) in [(&good, false), (&ignorant, true), (&silent, true)] {
        let registry = registry(server);
        assert_eq!(take(&registry, wanted(&bytes), 0), (bytes.clone(), Ok(())));
        assert_eq!(take(&registry, wanted(&bytes), 70_000), (bytes[70_000..].to_vec(), Ok(())));
        assert_eq!(server.log()[1].1, if whole { 100_000 } else { 30_000 });
        let (asked, _) = &server.log()[0];
        assert_eq!(asked.path, format!("/v2/box/blobs/{}", BlobDigest::of(&bytes)));
    }
}

#[test]
fn what_breaks_off_is_gone_on_with() {
    let made = Made::new("a", &[&[&noise(1, 200_000)]]);
    let (layer, blobs) = (made.layers[0], made.blobs.clone());
    let dies = AtomicUsize::new(0);
    let server = Server::new(move |asked: &Asked| {
        let digest = asked.path.rsplit_once('/').unwrap().1.parse().unwrap();
        let answer = Answer::good(asked, &blobs[&digest]);
        let dies = digest == layer && dies.fetch_add(1, Ordering::Relaxed) < 3;
        if dies { answer.cut(60_000) } else { answer }
    });
    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("repo");
    repository(&repo, &[]);
    let store = Store::open(&folder.path().join("updates")).unwrap();
    let registry = registry(&server);
    let mut attempts = 0;
    while let Err(error) =
        store.download(&registry, &made.release, &repo, &mut |_, _| {}, &Cancel::default())
    {
        assert!(matches!(error, UpdateError::Unreachable { .. }), "{error}");
        attempts += 1;
    }
    assert_eq!(attempts, 3);
    // Not one byte of it was given twice.
    assert_eq!(server.served(&layer.digits()), made.blobs[&layer].len());
    let offsets: Vec<usize> = server.log().iter().map(|(asked, _)| asked.offset()).collect();
    assert_eq!(offsets.iter().filter(|offset| **offset > 0).count(), 3, "{offsets:?}");
}

#[test]
fn what_stalls_is_given_up_and_may_be_stopped() {
    let bytes = noise(1, 10_000);
    for head in [false, true] {
        let own = bytes.clone();
        let server = Server::new(move |_| {
            let answer = Answer { stalls: true, ..Answer::whole(&own) };
            if head { Answer { length: None, ..answer.cut(0) } } else { answer.cut(5000) }
        });
        let impatient = registry_at(&server.url("/box"), Path::new("/nowhere"), IDLE);
        let (came, result) = take(&impatient, wanted(&bytes), 0);
        is_unreachable(result);
        assert_eq!(came.len(), if head { 0 } else { 5000 });
    }
    let own = bytes.clone();
    let server = Server::new(move |_| Answer { stalls: true, ..Answer::whole(&own) }.cut(5000));
    // It would be waited for as long as the whole test may take.
    let patient =
        registry_at(&server.url("/box"), Path::new("/nowhere"), Duration::from_secs(3600));
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            server.wait_for_stall();
            cancel.cancel();
        });
        let result = patient.blob(wanted(&bytes), 0, &mut |_| Ok(()), &cancel);
        assert_eq!(result, Err(UpdateError::Stopped));
    });
}

#[test]
fn lies_about_length_and_place_are_seen() {
    let bytes = noise(1, 10_000);
    let with = |answer: Answer| {
        let server = Server::new(move |_| answer.clone());
        let result = take(&registry(&server), wanted(&bytes), 4000);
        assert!(result.0.len() <= 6000);
        result.1
    };
    let longer = noise(2, 20_000);
    is_content(with(Answer::whole(&longer)));
    is_content(with(Answer { length: None, endless: true, ..Answer::whole(&longer) }));
    is_content(with(Answer::whole(&bytes[1..])));
    // Said to be longer than it is.
    is_unreachable(with(Answer::whole(&bytes).cut(9000)));
    for range in ["bytes 0-9999/10000", "bytes 4001-9999/10000", "bytes x-9999/10000", ""] {
        let answer = Answer { status: 206, ..Answer::whole(&bytes[4000..]) };
        is_unreachable(with(answer.with("content-range", range)));
    }
    for status in [204, 404, 416, 500, 403, 304] {
        is_unreachable(with(Answer::status(status)));
    }
    // A part that nobody asked for.
    let answer =
        Answer { status: 206, ..Answer::whole(&bytes) }.with("content-range", "bytes 0-9999/10000");
    let server = Server::new(move |_| answer.clone());
    is_unreachable(take(&registry(&server), wanted(&bytes), 0).1);
}

#[test]
fn wrong_bytes_are_removed() {
    let made = Made::new("a", &[&[&noise(1, 9000)]]);
    let (layer, mut blobs) = (made.layers[0], made.blobs.clone());
    let length = blobs[&layer].len();
    blobs.insert(layer, noise(7, length));
    let server = Server::new(move |asked| {
        Answer::good(asked, &blobs[&asked.path.rsplit_once('/').unwrap().1.parse().unwrap()])
    });
    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("repo");
    repository(&repo, &[]);
    let store = Store::open(&folder.path().join("updates")).unwrap();
    let download = store.download(
        &registry(&server),
        &made.release,
        &repo,
        &mut |_, _| {},
        &Cancel::default(),
    );
    is_content(download.map(drop));
    let blobs = folder.path().join("updates/blobs/sha256");
    assert!(!blobs.join(layer.digits()).exists());
    assert!(!blobs.join(format!("{}.part", layer.digits())).exists());
    assert_eq!(server.served(&layer.digits()), length);
}

#[test]
fn redirects_are_followed_with_care() {
    let bytes = noise(1, 10_000);
    let own = bytes.clone();
    let store = Server::new(move |asked| {
        assert!(!asked.headers.contains_key("authorization"), "{asked:?}");
        Answer::good(asked, &own)
    });
    let place = store.url("/somewhere?x=y");
    let token = "{\"token\":\"let-me-in\"}";
    let server = Server::new(move |asked: &Asked| {
        let said = asked.headers.get("authorization").map(String::as_str);
        match (asked.path.starts_with("/token"), said) {
            (true, _) => Answer::whole(token.as_bytes()),
            (false, Some("Bearer let-me-in")) => Answer::to(&place),
            _ => {
                let said = format!(
                    "Bearer realm=\"http://{}/token\",service=\"s\"",
                    asked.headers["host"]
                );
                Answer::status(401).with("www-authenticate", &said)
            }
        }
    });
    let registry = registry(&server);
    assert_eq!(take(&registry, wanted(&bytes), 3000), (bytes[3000..].to_vec(), Ok(())));
    assert_eq!(store.served(""), 7000);
    let asked = server.log();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[1].0.path, "/token?scope=repository%3Abox%3Apull&service=s");
    // The token is kept.
    take(&registry, wanted(&bytes), 0).1.unwrap();
    assert_eq!(server.log().len(), 4);

    // Nothing is asked beyond loopback without https: were it, this would not return before the patience ends.
    for location in
        ["http://192.0.2.1/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "//x", "", "http://"]
    {
        let location = location.to_owned();
        let server = Server::new(move |_| Answer::to(&location));
        is_unreachable(take(&self::registry(&server), wanted(&bytes), 0).1);
        assert_eq!(server.log().len(), 1);
    }
    let server = Server::new(|_| Answer::to("/v2/again"));
    is_unreachable(take(&self::registry(&server), wanted(&bytes), 0).1);
    assert_eq!(server.log().len(), 6);
    // One that wants another token again and again is asked no more than once for each.
    let server = Server::new(move |asked: &Asked| match asked.path.starts_with("/token") {
        true => Answer::whole(token.as_bytes()),
        false => Answer::status(401).with(
            "www-authenticate",
            &format!("Bearer realm=\"http://{}/token\"", asked.headers["host"]),
        ),
    });
    is_unreachable(take(&self::registry(&server), wanted(&bytes), 0).1);
    assert_eq!(server.log().len(), 3);
    for said in
        ["Basic realm=\"x\"", "Bearer realm=\"http://192.0.2.1/t\"", "Bearer", "Bearer realm=\"x\""]
    {
        let server = Server::new(move |_| Answer::status(401).with("www-authenticate", said));
        is_unreachable(take(&self::registry(&server), wanted(&bytes), 0).1);
        assert_eq!(server.log().len(), 1);
    }
}

#[test]
fn envelopes_come_by_channel_and_flavour() {
    let envelope = b"{\"statement\":\"..\"}".to_vec();
    let manifest = write_envelope_manifest(&envelope).unwrap();
    let digest = BlobDigest::of(&envelope);
    let talk = move |manifest: Vec<u8>, envelope: Vec<u8>| {
        move |asked: &Asked| match asked.path.as_str() {
            "/v2/box/manifests/next-slim" => Answer::good(asked, &manifest),
            path if path == format!("/v2/box/blobs/{digest}") => Answer::good(asked, &envelope),
            _ => Answer::status(404),
        }
    };
    let get =
        |server: &Server| registry(server).envelope(Channel::Next, "slim", &Cancel::default());
    let server = Server::new(talk(manifest.clone(), envelope.clone()));
    assert_eq!(get(&server), Ok(envelope.clone()));
    let other = registry(&server).envelope(Channel::Stable, "slim", &Cancel::default());
    is_unreachable(other.map(drop));
    // Another envelope than the manifest names, a manifest that is none, and some that are too long.
    let server = Server::new(talk(manifest.clone(), b"{\"statement\":\"!!\"}".to_vec()));
    is_content(get(&server).map(drop));
    let long = noise(1, MAX_ENVELOPE_BYTES as usize + 1);
    let text = String::from_utf8(manifest).unwrap();
    let lying =
        text.replace(&format!("\"size\":{}", envelope.len()), &format!("\"size\":{}", long.len()));
    assert_ne!(lying, text);
    let garbage = [
        "",
        "{}",
        "[]",
        "null",
        "{\"schemaVersion\":2}",
        &"[".repeat(100_000),
        "{\"layers\":1e999}",
    ];
    for manifest in garbage.into_iter().map(String::from).chain([lying]) {
        let server = Server::new(talk(manifest.into_bytes(), envelope.clone()));
        is_content(get(&server).map(drop));
    }
    let huge = Arc::new(vec![b' '; MAX_MANIFEST_BYTES as usize]);
    let server =
        Server::new(move |_| Answer { length: None, endless: true, ..Answer::whole(&huge) });
    is_content(get(&server).map(drop));
    // It was not read on and on.
    assert!(server.served("") < 8 << 20);
}

/// A key of its own authority, and what believes it.
fn authority(folder: &Path) -> (rustls::ServerConfig, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let roots = folder.join("roots.pem");
    std::fs::write(&roots, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (config, roots)
}

#[test]
fn https_is_believed_by_its_roots_and_not_left() {
    let folder = tempfile::tempdir().unwrap();
    let (config, roots) = authority(folder.path());
    let bytes = noise(1, 300_000);
    let own = bytes.clone();
    let plain = Server::new(move |asked| Answer::good(asked, &own));
    let (own, elsewhere) = (bytes.clone(), plain.url("/x"));
    let leaves = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let leave = Arc::clone(&leaves);
    let server = Server::with_tls(config, move |asked| {
        if leave.load(Ordering::Relaxed) {
            Answer::to(&elsewhere)
        } else {
            Answer::good(asked, &own)
        }
    });
    let url = format!("https://{}/box", server.address);
    let registry = registry_at(&url, &roots, Duration::from_secs(60));
    assert_eq!(take(&registry, wanted(&bytes), 0), (bytes.clone(), Ok(())));
    assert_eq!(take(&registry, wanted(&bytes), 9), (bytes[9..].to_vec(), Ok(())));
    leaves.store(true, Ordering::Relaxed);
    is_unreachable(take(&registry, wanted(&bytes), 0).1);
    assert_eq!(plain.log().len(), 0);
    // Somebody else's authority, and none at all.
    let (_, others) = authority(tempfile::tempdir().unwrap().keep().as_path());
    for roots in [others.as_path(), Path::new("/nowhere")] {
        is_unreachable(take(&registry_at(&url, roots, IDLE), wanted(&bytes), 0).1);
    }
}
