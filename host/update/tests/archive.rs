//! Archives that somebody gives: good ones, cut ones, and tricks.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use punktfunk_update::error::UpdateError;
use punktfunk_update::name::{BlobDigest, Channel};
use punktfunk_update::statement::MAX_ENVELOPE_BYTES;
use punktfunk_update::transport::{
    Archive, BLOBS, Cancel, ENVELOPE, Expected, Limits, Source, Store, Wanted,
};

mod support;

use support::made::{Made, noise, repository, tar};

const LIMITS: Limits =
    Limits { max_bytes: 1 << 20, keep_free_bytes: 0, stated_within: Duration::from_secs(60) };

/// A clock that stands still.
fn still() -> Duration {
    Duration::ZERO
}

/// Whatever is stated is believed.
fn all(_: &[u8]) -> Result<Expected, UpdateError> {
    Ok(Expected { least_bytes: 0, most_bytes: u64::MAX })
}

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn take_in(&self, bytes: &[u8], limits: Limits) -> Result<Archive, UpdateError> {
        let given = self.folder.path().join("given");
        fs::write(&given, bytes).unwrap();
        Archive::take_in(
            File::open(&given).unwrap().into(),
            &self.path(),
            limits,
            &still,
            &mut all,
            &Cancel::default(),
        )
    }

    /// Whether nothing was left of one that was refused.
    fn is_clean(&self) -> bool {
        !self.path().exists() && !self.folder.path().join("archive.part").exists()
    }
}

/// The files of an archive of a release.
fn files(made: &Made) -> Vec<(String, Vec<u8>)> {
    let blobs = made
        .blobs
        .iter()
        .map(|(digest, bytes)| (format!("{BLOBS}{}", digest.digits()), bytes.clone()));
    std::iter::once((ENVELOPE.to_owned(), b"stated".to_vec())).chain(blobs).collect()
}

#[test]
fn a_release_comes_out_of_an_archive() {
    let made = Made::new("a", &[&[&noise(1, 9000)], &[&noise(2, 512)]]);
    let bytes = tar(&files(&made));
    let desk = Desk::new();
    let archive = desk.take_in(&bytes, LIMITS).unwrap();
    // What was given may change afterwards.
    fs::write(desk.folder.path().join("given"), "").unwrap();
    let cancel = Cancel::default();
    assert_eq!(archive.envelope(Channel::Stable, "slim", &cancel).unwrap(), b"stated");
    let repo = desk.folder.path().join("repo");
    repository(&repo, &[]);
    let store = Store::open(&desk.folder.path().join("updates")).unwrap();
    let mut last = 0;
    let mut tell = |done, _| last = done;
    store.download(&archive, &made.release, &repo, &mut tell, &cancel).unwrap();
    assert_eq!(last, made.release.size_bytes);
    assert!(Archive::open(&desk.path()).is_ok());
    assert_eq!(Archive::open(&repo.join("none")).unwrap_err(), UpdateError::NothingDownloaded);
    // Through a pipe it is the same, and a bad one leaves the good one where it is.
    let (read, mut write) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || write.write_all(&bytes).unwrap());
        Archive::take_in(read.into(), &desk.path(), LIMITS, &still, &mut all, &cancel).unwrap();
    });
    assert!(desk.take_in(b"no", LIMITS).is_err());
    let archive = Archive::open(&desk.path()).unwrap();
    let layer = &made.blobs[&made.layers[0]];
    let wanted =
        Wanted { digest: made.layers[0], total_bytes: layer.len() as u64, is_manifest: false };
    let mut came = Vec::new();
    let mut take = |piece: &[u8]| {
        came.extend_from_slice(piece);
        Ok(())
    };
    archive.blob(wanted, 100, &mut take, &cancel).unwrap();
    assert_eq!(came, layer[100..]);
    // Of another length, or not there.
    for wrong in [
        Wanted { total_bytes: wanted.total_bytes - 1, ..wanted },
        Wanted { total_bytes: wanted.total_bytes + 1, ..wanted },
        Wanted { digest: BlobDigest::of(b"x"), ..wanted },
    ] {
        let error = archive.blob(wrong, 0, &mut |_| Ok(()), &cancel).unwrap_err();
        assert!(matches!(error, UpdateError::Content { .. }), "{error}");
    }
}

#[test]
fn tricks_are_refused() {
    let made = Made::new("a", &[&[&noise(1, 600)]]);
    let good = files(&made);
    let name = |at: usize, name: &str| {
        let mut files = good.clone();
        files[at].0 = name.to_owned();
        tar(&files)
    };
    let digits = "0".repeat(64);
    let whole = tar(&good);
    let mut twice = good.clone();
    twice.push(good[1].clone());
    let mut late = good.clone();
    late.rotate_left(1);
    let mut long = good.clone();
    long[0].1 = vec![0; MAX_ENVELOPE_BYTES as usize + 1];
    let mut empty = good.clone();
    empty[0].1.clear();
    let many = |count: usize| -> Vec<u8> {
        let more = (0..count).map(|at| (format!("{BLOBS}{at:064}"), Vec::new()));
        tar(&good[..1].iter().cloned().chain(more).collect::<Vec<_>>())
    };
    let mut link = whole.clone();
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_path(format!("{BLOBS}{digits}")).unwrap();
    header.set_link_name("/etc/shadow").unwrap();
    header.set_size(0);
    header.set_cksum();
    link.splice(1024..1024, header.as_bytes().iter().copied());
    let mut ghost = whole.clone();
    // A header that claims more than there is.
    ghost.truncate(1024);
    ghost.extend_from_slice(
        &punktfunk_update::transport::tarball::header(&format!("{BLOBS}{digits}"), (1 << 33) - 1)
            .unwrap(),
    );
    let desk = Desk::new();
    for (what, bytes) in [
        ("another first", name(0, "envelope")),
        ("a way out", name(1, &format!("../{BLOBS}{digits}"))),
        ("another name", name(1, &format!("{BLOBS}{}", "g".repeat(64)))),
        ("a short name", name(1, BLOBS)),
        ("an absolute name", name(1, &format!("/{BLOBS}{digits}"))),
        ("one twice", tar(&twice)),
        ("the statement late", tar(&late)),
        ("a long statement", tar(&long)),
        ("no statement", tar(&empty)),
        ("only an end", tar(&[])),
        ("too many", many(1000)),
        ("a link", link),
        ("a claim", ghost),
        ("more behind it", [whole.as_slice(), &[0; 512]].concat()),
        ("nothing", Vec::new()),
    ] {
        let refused = desk.take_in(&bytes, LIMITS);
        assert!(matches!(refused, Err(UpdateError::Content { .. })), "{what}: {refused:?}");
        assert!(desk.is_clean(), "{what}");
    }
    desk.take_in(&many(100), LIMITS).unwrap();
    fs::remove_file(desk.path()).unwrap();
    for length in (0..whole.len()).step_by(97) {
        assert!(desk.take_in(&whole[..length], LIMITS).is_err(), "{length}");
        assert!(desk.is_clean());
    }
}

#[test]
fn it_takes_no_more_room_than_it_may() {
    let made = Made::new("a", &[&[&noise(1, 9000)]]);
    let bytes = tar(&files(&made));
    let desk = Desk::new();
    let exact = Limits { max_bytes: bytes.len() as u64, ..LIMITS };
    desk.take_in(&bytes, exact).unwrap();
    fs::remove_file(desk.path()).unwrap();
    let less = Limits { max_bytes: bytes.len() as u64 - 1, ..LIMITS };
    assert!(matches!(desk.take_in(&bytes, less), Err(UpdateError::Content { .. })));
    assert!(desk.is_clean());
    let full = Limits { keep_free_bytes: u64::MAX, ..LIMITS };
    assert!(matches!(desk.take_in(&bytes, full), Err(UpdateError::NoSpace { .. })));
    assert!(desk.is_clean());
    // A pipe that never ends, and what is no file at all.
    let (read, mut write) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || while write.write_all(&[0; 4096]).is_ok() {});
        let taken = Archive::take_in(
            read.into(),
            &desk.path(),
            LIMITS,
            &still,
            &mut all,
            &Cancel::default(),
        );
        assert!(matches!(taken, Err(UpdateError::Content { .. })));
    });
    assert!(desk.is_clean());
    for path in ["/dev/zero", "/"] {
        let from = OwnedFd::from(File::open(path).unwrap());
        let taken =
            Archive::take_in(from, &desk.path(), LIMITS, &still, &mut all, &Cancel::default());
        assert!(matches!(taken, Err(UpdateError::Content { .. })), "{path}");
    }
    assert!(desk.is_clean());
}

#[test]
fn who_gives_a_pipe_cannot_have_it_waited_for() {
    let desk = Desk::new();
    let cancel = Cancel::default();
    let (read, mut write) = std::io::pipe().unwrap();
    let same = read.try_clone().unwrap();
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| {
            Archive::take_in(read.into(), &desk.path(), LIMITS, &still, &mut all, &cancel)
        });
        write.write_all(&[0; 100]).unwrap();
        while rustix::io::ioctl_fionread(&same).unwrap() > 0 {
            std::thread::yield_now();
        }
        rustix::fs::fcntl_setfl(&same, rustix::fs::OFlags::empty()).unwrap();
        cancel.cancel();
        assert_eq!(taken.join().unwrap().unwrap_err(), UpdateError::Stopped);
    });
    drop(write);
    let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let taken =
        Archive::take_in(socket.into(), &desk.path(), LIMITS, &still, &mut all, &Cancel::default());
    assert!(matches!(taken, Err(UpdateError::Content { .. })));
    assert!(desk.is_clean());
}

#[test]
fn what_is_stated_is_judged_before_the_rest_has_come() {
    let made = Made::new("a", &[&[&noise(1, 100_000)]]);
    let bytes = tar(&files(&made));
    let desk = Desk::new();
    let cancel = Cancel::default();
    let judges = [
        ("expired", Err(UpdateError::Expired { version: "1.2.3".parse().unwrap() })),
        ("content", Ok(Expected { least_bytes: 0, most_bytes: 600 })),
        ("no-space", Ok(Expected { least_bytes: u64::MAX, most_bytes: u64::MAX })),
    ];
    for (code, says) in judges {
        let (read, mut write) = std::io::pipe().unwrap();
        // The pipe stays open: the end is not waited for.
        write.write_all(&bytes[..4096]).unwrap();
        let mut asked = Vec::new();
        let mut judge = |envelope: &[u8]| {
            asked.push(envelope.to_vec());
            says.clone()
        };
        let taken =
            Archive::take_in(read.into(), &desk.path(), LIMITS, &still, &mut judge, &cancel);
        let error = serde_json::to_value(taken.unwrap_err()).unwrap();
        assert_eq!((&error["code"], asked.as_slice()), (&code.into(), &[b"stated".to_vec()][..]));
        assert!(desk.is_clean(), "{code}");
    }
    // It comes in the smallest pieces, and is asked about once.
    let (read, mut write) = std::io::pipe().unwrap();
    let mut count = 0;
    let mut judge = |envelope: &[u8]| {
        count += 1;
        all(envelope)
    };
    std::thread::scope(|scope| {
        scope.spawn(move || bytes.iter().for_each(|byte| write.write_all(&[*byte]).unwrap()));
        Archive::take_in(read.into(), &desk.path(), LIMITS, &still, &mut judge, &cancel).unwrap();
    });
    assert_eq!(count, 1);
    let expected = Expected::of([3, 2].into_iter());
    assert_eq!((expected.least_bytes, expected.most_bytes > 5), (2, true));
    assert_eq!(Expected::of([u64::MAX; 2].into_iter()).most_bytes, u64::MAX);
}

#[test]
fn no_archive_is_the_beginning_of_another() {
    let made = Made::new("a", &[&[&noise(1, 600)], &[&noise(2, 5)]]);
    let whole = tar(&files(&made));
    let desk = Desk::new();
    let path = desk.folder.path().join("cut");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(Archive::open(&path).is_err(), "{length}");
    }
    fs::write(&path, &whole).unwrap();
    assert!(Archive::open(&path).unwrap().has(made.layers[0]));
}

#[test]
fn who_gives_nothing_is_not_waited_for_when_it_is_stopped() {
    let desk = Desk::new();
    let cancel = Cancel::default();
    let (read, mut write) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| {
            Archive::take_in(read.into(), &desk.path(), LIMITS, &still, &mut all, &cancel)
        });
        write.write_all(&[0; 100]).unwrap();
        cancel.cancel();
        assert_eq!(taken.join().unwrap().unwrap_err(), UpdateError::Stopped);
    });
    drop(write);
    assert!(desk.is_clean());
}

#[test]
fn what_is_stated_has_to_come_in_time_and_the_rest_has_all_of_it() {
    let made = Made::new("a", &[&[&noise(1, 100_000)]]);
    let bytes = tar(&files(&made));
    let desk = Desk::new();
    // Half the limit between one look at the clock and the next.
    let seconds = AtomicU64::new(0);
    let clock = move || Duration::from_secs(seconds.fetch_add(30, Ordering::Relaxed));
    let take_in = |read: std::io::PipeReader| {
        let (path, cancel) = (desk.path(), Cancel::default());
        Archive::take_in(read.into(), &path, LIMITS, &clock, &mut all, &cancel)
    };
    // A header and half of a statement. The pipe stays open.
    let (read, mut write) = std::io::pipe().unwrap();
    write.write_all(&bytes[..515]).unwrap();
    assert_eq!(take_in(read).unwrap_err(), UpdateError::Late { limit_s: 60 });
    assert!(desk.is_clean());
    let (read, mut write) = std::io::pipe().unwrap();
    write.write_all(&bytes[..1024]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut write = write;
            bytes[1024..].chunks(512).for_each(|piece| write.write_all(piece).unwrap());
        });
        take_in(read).unwrap();
    });
}
