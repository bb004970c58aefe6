//! From a repository to another one by way of layers, with the real OSTree: what is staged is the commit that was made, and
//! only what changed is transferred.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use punktfunk_publish::archive::archive;
use punktfunk_publish::encapsulate::{Encapsulated, encapsulate};
use punktfunk_publish::layout::Layout;
use punktfunk_publish::push::Push;
use punktfunk_update::error::UpdateError;
use punktfunk_update::name::{BlobDigest, Channel, Version};
use punktfunk_update::statement::Release;
use punktfunk_update::transport::bundle::{Blob, Manifest};
use punktfunk_update::transport::{
    Archive, Cancel, Expected, Limits, Patience, Registry, STAGED_REF, Source, Store,
};

#[path = "../../update/tests/support/mod.rs"]
mod support;

use support::made::noise;
use support::server::{Answer, Server};

/// What our own programs have in these tests, in bytes: enough for a layer each.
const PROGRAM_BYTES: usize = 4 << 20;

/// A repository of those who make systems, one of a box, and the box's folder for updates.
struct Desk {
    folder: tempfile::TempDir,
    store: Store,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("updates")).unwrap();
        let desk = Self { folder, store };
        desk.ostree("repo", &["init", "--mode=bare-user"]);
        desk.ostree("box", &["init", "--mode=bare"]);
        desk.fill();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn ostree(&self, repo: &str, words: &[&str]) -> String {
        let repo = format!("--repo={}", self.path(repo).display());
        let ran = Command::new("ostree").arg(repo).args(words).output().unwrap();
        assert!(ran.status.success(), "{words:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    fn put(&self, path: &str, bytes: &[u8], mode: u32) {
        let path = self.path("tree").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A small system: packages, our own programs, and whatever files may be.
    fn fill(&self) {
        let tree = self.path("tree");
        self.put("usr/bin/empty", b"", 0o644);
        self.put("usr/bin/suid", b"#!/bin/true\n", 0o4755);
        self.put("usr/etc/secret", b"x", 0o600);
        chown(tree.join("usr/etc/secret"), Some(7), Some(42)).unwrap();
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(tree.join("usr/bin/suid"), "user.kept", b"yes", none).unwrap();
        self.put("usr/share/ä b/-> c", b"odd", 0o644);
        // Around the ends of blocks.
        for (at, length) in [65_534, 65_535, 65_536, 131_070, 131_071].into_iter().enumerate() {
            self.put(&format!("usr/bin/edge{at}"), &noise(at as u64, length), 0o755);
        }
        symlink("suid", tree.join("usr/bin/link")).unwrap();
        symlink("/".repeat(300), tree.join("usr/bin/long")).unwrap();
        self.put("usr/share/big/data", &noise(40, 5 << 20), 0o644);
        self.put("usr/share/big/zeros", &vec![0; 1 << 20], 0o644);
        let info = "usr/lib/sysimage/dpkg/info";
        let big = b"/usr/share/big/data\n/usr/share/big/zeros\n";
        self.put(&format!("{info}/big.list"), big, 0o644);
        self.put(&format!("{info}/small:amd64.list"), b"/bin/suid\n/etc/secret\n", 0o644);
        self.put("usr/libexec/punktfunk/daemon", &noise(50, PROGRAM_BYTES), 0o755);
        self.put("usr/libexec/punktfunk/other", &noise(51, PROGRAM_BYTES), 0o755);
    }

    /// Makes a commit of the tree.
    fn commit(&self, version: &str) -> String {
        let tree = format!("--tree=dir={}", self.path("tree").display());
        let version = format!("--add-metadata-string=version={version}");
        self.ostree("repo", &["commit", "-b", "pf", &tree, &version])
    }

    /// Makes a release of a commit.
    fn release(&self, commit: &str) -> (Release, Encapsulated, Layout) {
        let out = self.path("layout");
        let made = encapsulate(&self.path("repo"), commit, &out, 3).unwrap();
        let layout = Layout::open(&out).unwrap();
        (stated(commit, &layout.manifest().unwrap().1), made, layout)
    }

    /// Downloads and stages. Gives how much had to come of layers, in bytes: manifest and index came before it was counted.
    fn update(&self, source: &dyn Source, release: &Release) -> Result<u64, UpdateError> {
        let (repo, cancel) = (self.path("box"), Cancel::default());
        let mut first = None;
        let mut tell = |done, _| {
            first.get_or_insert(done);
        };
        self.store.download(source, release, &repo, &mut tell, &cancel)?;
        self.store.stage(release, &repo, &cancel)?;
        Ok(release.size_bytes - first.unwrap())
    }

    /// Whether the box has exactly this commit and all of it.
    #[track_caller]
    fn has(&self, commit: &str) {
        assert_eq!(self.ostree("box", &["rev-parse", STAGED_REF]), commit);
        self.ostree("box", &["fsck", "--quiet"]);
        let here = self.ostree("repo", &["ls", "-R", "-C", "-X", commit]);
        assert_eq!(self.ostree("box", &["ls", "-R", "-C", "-X", commit]), here);
        assert!(!self.path("updates/scratch").exists());
        assert_eq!(self.store.fetched(), None);
    }
}

/// What is stated of the release with this manifest.
fn stated(commit: &str, manifest: &[u8]) -> Release {
    let read = Manifest::parse(manifest).unwrap();
    Release {
        version: Version::new(0, 2, 0),
        commit: commit.parse().unwrap(),
        image: BlobDigest::of(manifest),
        size_bytes: read.size_bytes(),
        unpacked_bytes: read.unpacked_bytes(),
        minimum: Version::new(0, 1, 0),
        changes: Vec::new(),
    }
}

/// How long manifest and index are, in bytes.
fn small_bytes(layout: &Layout) -> u64 {
    let (_, _, manifest) = layout.manifest().unwrap();
    manifest.own_bytes + manifest.index.size_bytes
}

/// A registry in memory that takes what is pushed by whoever knows the password.
fn registry() -> Server {
    let kept: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::default();
    Server::new(move |asked| {
        let mut kept = kept.lock().unwrap();
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let said = asked.headers.get("authorization").map(String::as_str);
        match asked.method.as_str() {
            "GET" | "HEAD" => {
                kept.get(path).map_or(Answer::status(404), |it| Answer::good(asked, it))
            }
            _ if said != Some("Basic bWU6c2VjcmV0") => {
                Answer::status(401).with("www-authenticate", "Basic realm=\"x\"")
            }
            "POST" => Answer::status(202).with("location", "/v2/box/blobs/uploads/7?state=a"),
            _ => {
                let digest = BlobDigest::of(&asked.body);
                let by_digest = |kind: &str| format!("/v2/box/{kind}/{digest}");
                match query.strip_prefix("state=a&digest=") {
                    Some(said) if said == digest.to_string() => {
                        kept.insert(by_digest("blobs"), asked.body.clone());
                    }
                    Some(_) => return Answer::status(400),
                    None => {
                        kept.insert(by_digest("manifests"), asked.body.clone());
                        kept.insert(path.to_owned(), asked.body.clone());
                    }
                }
                Answer::status(201)
            }
        }
    })
}

fn push(
    server: &Server,
    layout: &Layout,
    stated: Option<(&Path, &str)>,
    credentials: &str,
) -> anyhow::Result<()> {
    let to = server.url("/box").parse().unwrap();
    let credentials = Some(credentials.to_owned());
    Push { layout, to, stated, credentials, plain: false }.run()
}

fn source(server: &Server) -> Registry {
    let address = server.url("/box").parse().unwrap();
    Registry::new(address, Path::new("/nowhere"), false, Patience::default())
}

#[test]
#[ignore = "needs root and ostree"]
fn only_what_changed_is_transferred() {
    let desk = Desk::new();
    let server = registry();
    let v1 = desk.commit("0.1.0");
    let (release, made, layout) = desk.release(&v1);
    assert_eq!((made.size_bytes, made.image), (release.size_bytes, release.image));
    push(&server, &layout, None, "me:secret").unwrap();
    let layers = release.size_bytes - small_bytes(&layout);
    assert_eq!(desk.update(&source(&server), &release).unwrap(), layers);
    desk.has(&v1);
    // The same commit gives the same bytes.
    assert_eq!(desk.release(&v1).1, made);

    desk.put("usr/libexec/punktfunk/daemon", &noise(60, PROGRAM_BYTES), 0o755);
    let v2 = desk.commit("0.2.0");
    let (release, _, layout) = desk.release(&v2);
    let puts = || {
        server
            .log()
            .iter()
            .filter(|(asked, _)| {
                asked.method == "PUT" && asked.headers.contains_key("authorization")
            })
            .count()
    };
    let before = puts();
    push(&server, &layout, None, "me:secret").unwrap();
    // The daemon's layer, what is no file, the index and the manifest.
    assert_eq!(puts() - before, 4);
    let served = server.served("");
    let transferred = desk.update(&source(&server), &release).unwrap();
    assert_eq!((server.served("") - served) as u64, transferred + small_bytes(&layout));
    let program = PROGRAM_BYTES as u64;
    assert!((program..program + 20_000).contains(&transferred), "{transferred}");
    desk.has(&v2);
    // What is there already is only named.
    assert_eq!(desk.update(&source(&server), &release).unwrap(), 0);
    desk.has(&v2);
}

#[test]
#[ignore = "needs root and ostree"]
fn an_archive_is_as_good() {
    let desk = Desk::new();
    let v1 = desk.commit("0.1.0");
    let (release, _, layout) = desk.release(&v1);
    let (envelope, out) = (desk.path("envelope"), desk.path("out.tar"));
    fs::write(&envelope, "stated").unwrap();
    archive(&out, &envelope, &layout).unwrap();
    let limits = Limits { max_bytes: 1 << 30, keep_free_bytes: 0, stated_within: Duration::MAX };
    let given = fs::File::open(&out).unwrap();
    let cancel = Cancel::default();
    let mut judge = |envelope: &[u8]| {
        assert_eq!(envelope, b"stated");
        Ok(Expected::of([release.size_bytes].into_iter()))
    };
    let taken = Archive::take_in(
        given.into(),
        &desk.path("taken"),
        limits,
        &|| Duration::ZERO,
        &mut judge,
        &cancel,
    );
    let taken = taken.unwrap();
    assert_eq!(taken.envelope(Channel::Stable, "slim", &cancel).unwrap(), b"stated");
    desk.update(&taken, &release).unwrap();
    desk.has(&v1);
    // When nothing of it is held any more, all of it comes again.
    desk.ostree("box", &["refs", "--delete", STAGED_REF]);
    desk.ostree("box", &["prune", "--refs-only"]);
    let layers = release.size_bytes - small_bytes(&layout);
    assert_eq!(desk.update(&taken, &release).unwrap(), layers);
    desk.has(&v1);
    // So does what alone was lost.
    let listed = desk.ostree("box", &["ls", "-C", &v1, "/usr/libexec/punktfunk/daemon"]);
    let checksum = listed.split_ascii_whitespace().nth(4).unwrap();
    let object = format!("box/objects/{}/{}.file", &checksum[..2], &checksum[2..]);
    fs::remove_file(desk.path(&object)).unwrap();
    let again = desk.update(&taken, &release).unwrap();
    assert!(again < release.size_bytes / 2, "{again}");
    desk.has(&v1);
}

#[test]
#[ignore = "needs root and ostree"]
fn what_is_stated_is_found_under_its_tag() {
    let desk = Desk::new();
    let v1 = desk.commit("0.1.0");
    let (_, _, layout) = desk.release(&v1);
    let envelope = desk.path("envelope");
    fs::write(&envelope, "stated").unwrap();
    let server = registry();
    assert!(push(&server, &layout, None, "me:guess").is_err());
    push(&server, &layout, Some((&envelope, "next-slim")), "me:secret").unwrap();
    let get = |channel| source(&server).envelope(channel, "slim", &Cancel::default());
    assert_eq!(get(Channel::Next).unwrap(), b"stated");
    assert!(get(Channel::Stable).is_err());
}

#[test]
#[ignore = "needs root and ostree"]
fn what_rots_is_fetched_again_and_what_was_cut_off_is_begun_anew() {
    let desk = Desk::new();
    let v1 = desk.commit("0.1.0");
    let (release, _, layout) = desk.release(&v1);
    let server = registry();
    push(&server, &layout, None, "me:secret").unwrap();
    let (repo, cancel) = (desk.path("box"), Cancel::default());
    let stage = || desk.store.stage(&release, &repo, &cancel);
    assert_eq!(stage(), Err(UpdateError::NothingDownloaded));
    let download = || {
        desk.store.download(&source(&server), &release, &repo, &mut |_, _| {}, &cancel).unwrap();
    };
    download();
    // Of another release nothing is here.
    let mut other = release.clone();
    other.commit = "ab".repeat(32).parse().unwrap();
    assert_eq!(desk.store.stage(&other, &repo, &cancel), Err(UpdateError::NothingDownloaded));
    let (_, _, manifest) = layout.manifest().unwrap();
    let layer = &manifest.layers[1];
    let path = desk.path("updates/blobs/sha256").join(layer.digest.digits());
    let mut bytes = fs::read(&path).unwrap();
    bytes[50] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(stage(), Err(UpdateError::Content { .. })));
    assert!(!path.exists());
    assert_eq!(stage(), Err(UpdateError::NothingDownloaded));
    let served = server.served("");
    download();
    assert_eq!((server.served("") - served) as u64, layer.size_bytes);
    // A stop leaves what was fetched; so does a cut, whose scratch the next start removes.
    let stopped = Cancel::default();
    stopped.cancel();
    assert_eq!(desk.store.stage(&release, &repo, &stopped), Err(UpdateError::Stopped));
    let scratch = desk.path("updates/scratch");
    fs::create_dir_all(scratch.join("objects/aa")).unwrap();
    Store::open(&desk.path("updates")).unwrap();
    assert!(!scratch.exists());
    // A cut in OSTree's own work leaves a mark that not all of a commit is there.
    stage().unwrap();
    desk.has(&v1);
    fs::write(repo.join(format!("state/{v1}.commitpartial")), "").unwrap();
    desk.update(&source(&server), &release).unwrap();
    desk.has(&v1);
    assert!(!repo.join(format!("state/{v1}.commitpartial")).exists());
}

#[test]
#[ignore = "needs root and ostree"]
fn layers_that_lie_about_an_object_are_found_out() {
    let desk = Desk::new();
    let v1 = desk.commit("0.1.0");
    let (_, _, layout) = desk.release(&v1);
    let (_, _, manifest) = layout.manifest().unwrap();
    let read = |blob: &Blob| (blob.digest, fs::read(layout.blob(blob.digest)).unwrap());
    let mut blobs: BTreeMap<_, _> = manifest.blobs().map(read).collect();
    // The daemon with one bit turned, in a layer that is signed and packed as it should be.
    let needle = &noise(50, PROGRAM_BYTES)[1000..1064];
    let mut layers = manifest.layers.clone();
    let mut turned = 0;
    for layer in &mut layers {
        let mut plain = zstd::decode_all(blobs[&layer.digest].as_slice()).unwrap();
        let found = plain.windows(needle.len()).position(|window| window == needle);
        let Some(at) = found else { continue };
        plain[at] ^= 1;
        turned += 1;
        let bytes = zstd::encode_all(plain.as_slice(), 1).unwrap();
        let (digest, size_bytes) = (BlobDigest::of(&bytes), bytes.len() as u64);
        *layer = Blob { digest, size_bytes, ..*layer };
        blobs.insert(digest, bytes);
    }
    assert_eq!(turned, 1);
    let bytes = Manifest::write(manifest.index, &layers).unwrap();
    let release = stated(&v1, &bytes);
    blobs.insert(release.image, bytes);
    let server = Server::new(move |asked| {
        let digest = asked.path.rsplit_once('/').unwrap().1.parse().unwrap();
        Answer::good(asked, &blobs[&digest])
    });
    let error = desk.update(&source(&server), &release).unwrap_err();
    assert!(matches!(error, UpdateError::Content { .. }), "{error}");
    assert_eq!(desk.ostree("box", &["refs"]), "");
    assert!(!desk.path("updates/scratch").exists());
}
