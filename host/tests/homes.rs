//! Backups of homes through the real router over the local socket, with real agents and the system's `tar`; once with the
//! real launcher, where each home has a user of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set itself up has failed"
)]

mod agents;
#[path = "homes/trouble.rs"]
mod trouble;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use punktfunk_core::media::Codec;
use punktfunk_host::access::{Access, AccessOptions};
use punktfunk_host::agent::{
    Agent, AgentError, AgentStarter, Launched, Local, PLAYING, Place, Places, ProfileNumber, open,
};
use punktfunk_host::backup::homes::Homes;
use punktfunk_host::backup::{Backups, Strength};
use punktfunk_host::encode::x264::X264Backend;
use punktfunk_host::mgmt::{MgmtHandles, MgmtOptions, MgmtServer, Startup};
use punktfunk_host::pairing::{DeskMode, DeskOptions, PairingDesk};
use punktfunk_host::session::{SessionOptions, Sessions, Sounds};
use punktfunk_host::store::{ClientId, NewClient, Store};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde_json::{Value, json};

const WEAK: Strength = Strength { memory_kib: 8, passes: 1 };
const PASSPHRASE: &str = "correct horse battery";
const PATIENCE: Duration = Duration::from_secs(60);

/// Agents as the launcher starts them, each in a home of its own, but all as the user of this test.
struct Apart {
    folder: PathBuf,
    places: Places,
    /// Profiles that no agent comes to.
    barred: Arc<Mutex<BTreeSet<u16>>>,
}

impl AgentStarter for Apart {
    fn describe(&self) -> String {
        "each profile has a home of its own".to_owned()
    }

    fn isolates(&self) -> bool {
        true
    }

    fn take(&self, profile: ProfileNumber, purpose: &'static str) -> Result<Place, AgentError> {
        self.places.take(profile, purpose)
    }

    fn start_in(&self, place: &Place) -> Result<Arc<dyn Agent>, AgentError> {
        if self.barred.lock().unwrap().contains(&place.profile().0) {
            return Err(AgentError::Start { reason: "nobody comes here".to_owned() });
        }
        let number = place.profile().0.to_string();
        let (home, run) = (self.folder.join(&number), self.folder.join(format!("run-{number}")));
        fs::create_dir_all(&home).unwrap();
        let (ours, its) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let mut child = Command::new(agents::program())
            .arg("--runtime-dir")
            .arg(run)
            .arg("--home")
            .arg(home)
            .stdin(Stdio::from(its))
            .spawn()
            .unwrap();
        let place = place.clone();
        open(
            ours,
            Some(Box::new(move || {
                child.wait().unwrap();
                drop(place);
            })),
        )
    }
}

/// The part of a host that backups of homes reach.
struct Host {
    folder: tempfile::TempDir,
    homes: PathBuf,
    store: Store,
    agents: Arc<dyn AgentStarter>,
    barred: Arc<Mutex<BTreeSet<u16>>>,
    /// So often there is still room on the disk.
    room: Arc<AtomicUsize>,
    access: Access,
    socket: PathBuf,
    _server: MgmtServer,
    _runtime: tokio::runtime::Runtime,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    /// It came to its end.
    is_whole: bool,
}

impl Answer {
    fn read(stream: &mut UnixStream) -> Self {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no answer: {}", String::from_utf8_lossy(&answer));
        });
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut rest = &answer[end + 4..];
        if !head.contains("transfer-encoding: chunked") {
            return Self { status, body: rest.to_vec(), is_whole: true };
        }
        let mut body = Vec::new();
        let is_whole = loop {
            let Some(line) = rest.windows(2).position(|two| two == b"\r\n") else { break false };
            let length = std::str::from_utf8(&rest[..line]).unwrap();
            let length = usize::from_str_radix(length, 16).unwrap();
            let Some(piece) = rest.get(line + 2..line + 2 + length) else { break false };
            if length == 0 {
                break true;
            }
            body.extend_from_slice(piece);
            rest = &rest[line + 2 + length + 2..];
        };
        Self { status, body, is_whole }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn is_problem(&self, status: u16, code: &str, says: &str) {
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str().unwrap()), (status, code), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let homes = folder.path().join("homes");
        let barred = Arc::<Mutex<BTreeSet<u16>>>::default();
        let (places, barred_too) = (Places::default(), Arc::clone(&barred));
        let agents = Apart { folder: homes.clone(), places, barred: barred_too };
        Self { barred, ..Self::with(folder, homes, Arc::new(agents)) }
    }

    fn with(folder: tempfile::TempDir, homes: PathBuf, agents: Arc<dyn AgentStarter>) -> Self {
        let store = Store::open(&folder.path().join("state")).unwrap();
        let sessions = Sessions::new(SessionOptions {
            apps: vec![],
            displays: [].into(),
            encoder: Arc::new(X264Backend),
            codecs: vec![Codec::H264],
            sound: Sounds::default(),
            max_sessions: 4,
            agents: Arc::clone(&agents),
            profile: Box::new(|_| Err("nobody plays here".to_owned())),
        });
        let backups = Backups::new(store.clone(), WEAK);
        let desk = PairingDesk::new(DeskOptions::new(DeskMode::Armed));
        let room = Arc::new(AtomicUsize::new(usize::MAX));
        let left = Arc::clone(&room);
        let has_room =
            move |_: &Path| left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        let access =
            Access::open(store.clone(), AccessOptions::of_machine(folder.path().join("access")))
                .unwrap();
        let handles = MgmtHandles {
            homes: Homes::new(&backups, Arc::clone(&agents)).with_room(has_room),
            backups,
            ..MgmtHandles::bare(desk, store.clone(), Arc::new(sessions))
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let socket = folder.path().join("run/host.sock");
        let options = MgmtOptions { socket: socket.clone(), owner_uid: None, appliance: false };
        let server = {
            let _guard = runtime.enter();
            let startup = Startup::complete(handles).with_access(access.clone());
            MgmtServer::start(&options, startup).unwrap()
        };
        let barred = Arc::default();
        Self {
            folder,
            homes,
            store,
            agents,
            barred,
            room,
            access,
            socket,
            _server: server,
            _runtime: runtime,
        }
    }

    /// Pairs a device and gives it a home; its number.
    fn pair(&self, name: &str) -> ClientId {
        let new = NewClient {
            certificate_der: name.as_bytes().to_vec(),
            name: name.to_owned(),
            remote: [10, 0, 0, 1].into(),
        };
        self.store.add_client(new).unwrap().id
    }

    fn home(&self, device: ClientId) -> PathBuf {
        let home = self.homes.join(self.store.profile_of(device).unwrap().0.to_string());
        fs::create_dir_all(&home).unwrap();
        home
    }

    fn begin(&self, path: &str, length: usize) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let head = format!(
            "POST /api/v1/homes/{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    fn ask(&self, path: &str, body: &[u8]) -> Answer {
        let mut stream = self.begin(path, body.len());
        // A host that refuses a body may close before all of it is written.
        let _ = stream.write_all(body);
        Answer::read(&mut stream)
    }

    fn back_up(&self, games: bool) -> Vec<u8> {
        let ask = json!({"passphrase": PASSPHRASE, "games": games});
        let answer = self.ask("backup", ask.to_string().as_bytes());
        let said =
            String::from_utf8_lossy(&answer.body[..answer.body.len().min(1000)]).into_owned();
        assert!(answer.status == 200 && answer.is_whole, "{}: {said}", answer.status);
        answer.body
    }

    fn restore_with(&self, passphrase: &str, backup: &[u8]) -> Answer {
        self.ask("restore", &restore_body(passphrase, backup))
    }

    fn restore(&self, backup: &[u8]) -> Value {
        let answer = self.restore_with(PASSPHRASE, backup);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }
}

fn restore_body(passphrase: &str, backup: &[u8]) -> Vec<u8> {
    let mut body = json!({"passphrase": passphrase}).to_string().into_bytes();
    body.push(b'\n');
    body.extend_from_slice(backup);
    body
}

fn write(home: &Path, path: &str, words: &str) {
    let path = home.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, words).unwrap();
}

/// Everything in a home: names, kinds, modes, words.
fn seen(home: &Path) -> Vec<String> {
    let mut all = vec![];
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let kind = found.file_type();
            let words = if kind.is_file() {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            } else if kind.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else {
                format!("{}", kind.is_fifo())
            };
            let name = path.strip_prefix(home).unwrap().to_string_lossy().into_owned();
            all.push(format!("{name} {:o} {} {words}", found.mode(), found.nlink()));
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    all.sort();
    all
}

/// A home with what is not easily kept.
fn furnish(home: &Path) {
    write(home, "save", "level 7");
    write(home, ".config/game/settings.ini", "sound=1");
    write(home, "run.sh", "#!/bin/sh");
    fs::set_permissions(home.join("run.sh"), Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(home.join("save"), home.join("again")).unwrap();
    symlink("/etc/shadow", home.join("out")).unwrap();
    symlink("save", home.join("near")).unwrap();
    fs::create_dir(home.join("closed")).unwrap();
    write(home, "closed/inner", "x");
    fs::set_permissions(home.join("closed"), Permissions::from_mode(0o555)).unwrap();
    let odd = home.join(std::ffi::OsStr::from_bytes(b"odd\xff\n-name"));
    fs::write(odd, "odd").unwrap();
    let fifo = Command::new("mkfifo").arg(home.join("fifo")).status().unwrap();
    assert!(fifo.success());
    File::create(home.join("sparse")).unwrap().set_len(40 << 30).unwrap();
}

/// The same after a backup, which runs nothing as its owner, and without what takes long to look at.
fn without_sparse(mut home: Vec<String>) -> Vec<String> {
    home.retain(|line| !line.starts_with("sparse "));
    home.into_iter().map(|line| line.replace("run.sh 104755", "run.sh 100755")).collect()
}

fn look(home: &Path) -> Vec<String> {
    let sparse = home.join("sparse");
    if let Ok(found) = fs::metadata(&sparse) {
        assert_eq!((found.len(), found.blocks() < 100), (40 << 30, true), "holes stay holes");
        fs::rename(&sparse, home.with_extension("sparse")).unwrap();
    }
    let all = without_sparse(seen(home));
    let _ = fs::rename(home.with_extension("sparse"), sparse);
    all
}

#[test]
fn a_home_comes_back_as_it_was_and_where_nobody_has_it_it_is_told() {
    let old = Host::new();
    let (sofa, desk) = (old.pair("sofa"), old.pair("desk"));
    old.pair("never played");
    furnish(&old.home(sofa));
    write(&old.home(desk), "save", "level 1");
    let gone = old.pair("gone");
    write(&old.home(gone), "save", "of nobody");
    old.store.remove_client(gone).unwrap();
    let backup = old.back_up(true);
    assert!(backup.len() < 200_000, "holes and all: {} bytes", backup.len());
    assert!(!backup.windows(7).any(|seven| seven == b"level 7"));

    let new = Host::new();
    // Numbers of profiles are a host's own.
    let other = new.pair("other");
    write(&new.home(other), "save", "mine");
    assert_eq!(new.pair("sofa"), sofa);
    let told = new.restore(&backup);
    let homes = told["homes"].as_array().unwrap();
    assert_eq!(homes.len(), 2, "{told}");
    assert_eq!(homes[0]["id"], sofa.to_string());
    assert!(homes[0]["restored_bytes"].as_u64().unwrap() > 10_000, "{told}");
    assert_eq!(
        (&homes[1]["problem"]["code"], &homes[1]["name"]),
        (&json!("not-paired"), &json!("desk"))
    );
    assert_eq!(look(&new.home(sofa)), look(&old.home(sofa)));
    assert_eq!(fs::read_to_string(new.home(other).join("save")).unwrap(), "mine");

    // What came later is gone, also where nobody may write.
    let home = old.home(sofa);
    let before = look(&home);
    write(&home, "later/x", "y");
    write(&home, "save", "level 8");
    fs::set_permissions(home.join("later"), Permissions::from_mode(0o555)).unwrap();
    fs::remove_file(home.join("near")).unwrap();
    old.restore(&backup);
    assert_eq!(look(&home), before);
}

#[test]
fn what_is_in_the_way_of_a_restore_loses_no_games() {
    let host = Host::new();
    let home = host.home(host.pair("sofa"));
    let game = home.join("steamapps/common/Game");
    write(&home, "steamapps/common/Game/data", "a game");
    write(&home, "save", "one");
    write(&home, ".punktfunk-restored", "a file of a game's");
    fs::set_permissions(game.join("data"), Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(&game, Permissions::from_mode(0o555)).unwrap();
    let backup = host.back_up(false);
    write(&home, "save", "two");
    host.restore(&backup);
    assert_eq!(fs::read_to_string(game.join("data")).unwrap(), "a game");
    assert_eq!(fs::read_to_string(home.join("save")).unwrap(), "one");
    // What was there before is removed, and that changed nothing of what stays.
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&game), mode(&game.join("data"))), (0o555, 0o444));
    let names = fs::read_dir(&home).unwrap().map(|one| one.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with(".punktfunk")));

    // It cannot be taken along: the home stays as it is, with all that is in it.
    write(&home, "steamapps/common/Other/data", "another");
    let backup = host.back_up(false);
    write(&home, "save", "three");
    let bad = home.join("steamapps");
    fs::create_dir_all(bad.join("downloading/closed")).unwrap();
    fs::set_permissions(bad.join("downloading/closed"), Permissions::from_mode(0o000)).unwrap();
    host.restore(&backup);
    assert_eq!(fs::read_to_string(home.join("steamapps/common/Other/data")).unwrap(), "another");
    fs::set_permissions(bad.join("downloading/closed"), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_backup_without_games_leaves_those_that_are_there() {
    let host = Host::new();
    let home = host.home(host.pair("sofa"));
    let steam = ".local/share/Steam/steamapps";
    for path in ["common/Game/data", "shadercache/1", "appmanifest_7.acf", "compatdata/7/save"] {
        write(&home, &format!("{steam}/{path}"), "one");
    }
    write(&home, "Library/steamapps/common/Game/data", "one");
    write(&home, ".cache/shaders", "one");
    write(&home, "games.txt", "one");
    let backup = host.back_up(false);
    for path in ["common/Game/data", "appmanifest_7.acf", "compatdata/7/save"] {
        write(&home, &format!("{steam}/{path}"), "two");
    }
    write(&home, "games.txt", "two");
    assert_eq!(host.restore(&backup)["games"], false);
    let read = |path: &str| fs::read_to_string(home.join(path)).unwrap_or_default();
    assert_eq!(read("games.txt"), "one");
    assert_eq!(read(&format!("{steam}/compatdata/7/save")), "one");
    assert_eq!(read(&format!("{steam}/common/Game/data")), "two", "games stay");
    assert_eq!(read(&format!("{steam}/appmanifest_7.acf")), "two");
    assert_eq!(read("Library/steamapps/common/Game/data") + &read(".cache/shaders"), "oneone");

    let other = Host::new();
    let home = other.home(other.pair("sofa"));
    other.restore(&backup);
    assert!(home.join(steam).join("compatdata/7/save").exists() && home.join("games.txt").exists());
    let left_out =
        ["common", "shadercache", "appmanifest_7.acf"].map(|path| home.join(steam).join(path));
    assert!(!left_out.iter().any(|path| path.exists()) && !home.join(".cache").exists());
    let whole = host.back_up(true);
    other.restore(&whole);
    assert!(left_out[0].join("Game/data").exists());
}

#[test]
fn whoever_plays_is_named_and_nobody_begins_to_play_meanwhile() {
    let host = Host::new();
    let (sofa, desk) = (host.pair("sofa"), host.pair("desk"));
    write(&host.home(sofa), "save", "1");
    write(&host.home(desk), "save", "1");
    // More than one chunk, so that a restore knows whose it is before all of it has come.
    fs::write(host.home(sofa).join("large"), vec![7; 500_000]).unwrap();
    let backup = host.back_up(true);
    let profile = host.store.profile_of(desk).unwrap();
    let playing = host.agents.take(profile, PLAYING).unwrap();
    let ask = json!({"passphrase": PASSPHRASE}).to_string();
    host.ask("backup", ask.as_bytes()).is_problem(409, "home-in-use", "a home is in use: desk;");
    host.restore_with(PASSPHRASE, &backup).is_problem(409, "home-in-use", "desk");
    drop(playing);

    // A restore whose file is on its way.
    let body = restore_body(PASSPHRASE, &backup);
    let mut stream = host.begin("restore", body.len() + 1);
    stream.write_all(&body).unwrap();
    wait_for("something to lie beside", || fs::read_dir(host.home(sofa)).unwrap().count() == 3);
    let error = host.agents.start(profile).map(drop).unwrap_err().to_string();
    assert!(error.contains("being backed up or restored"), "{error}");
    host.ask("backup", ask.as_bytes()).is_problem(409, "backup-busy", "when it is done");
    drop(stream);
    wait_for("the restore to end", || host.agents.take(profile, "").is_ok());
    assert_eq!(seen(&host.home(desk)).len(), 1);
}

#[test]
fn what_is_no_whole_backup_changes_nothing() {
    let host = Host::new();
    let sofa = host.pair("sofa");
    let home = host.home(sofa);
    write(&home, "save", "1");
    fs::write(home.join("large"), vec![7; 500_000]).unwrap();
    let backup = host.back_up(true);
    let settings = Backups::new(host.store.clone(), WEAK);
    punktfunk_host::identity::Identity::load_or_create(&host.store).unwrap();
    let settings = settings.make(&punktfunk_host::backup::Passphrase::new(PASSPHRASE)).unwrap();
    write(&home, "save", "2");
    let before = seen(&home);
    host.restore_with("wrong horse battery", &backup).is_problem(422, "wrong-passphrase", "wrong");
    let mut changed = backup.clone();
    changed[300_000] ^= 1;
    host.restore_with(PASSPHRASE, &changed).is_problem(422, "unfit-backup", "changed or cut off");
    for length in [backup.len() - 1, 300_000, 65_536 + 16 + 51] {
        let cut = host.restore_with(PASSPHRASE, &backup[..length]);
        assert!(cut.status == 422, "{length}: {}", cut.json());
        assert_eq!(seen(&home), before, "cut at {length}");
    }
    host.restore_with(PASSPHRASE, &[&backup[..], b"more"].concat()).is_problem(
        422,
        "unfit-backup",
        "",
    );
    host.restore_with(PASSPHRASE, &settings).is_problem(422, "no-backup", "no backup");
    host.restore_with(PASSPHRASE, b"").is_problem(422, "no-backup", "no backup");
    host.ask("restore", b"{}").is_problem(400, "malformed", "first line");
    host.ask("restore", &[b'x'; 20_000]).is_problem(400, "malformed", "first line");
    host.ask("backup", br#"{"passphrase":"short"}"#).is_problem(422, "unfit-passphrase", "12");
    assert_eq!(seen(&home), before);
    // What an earlier try has left goes.
    write(&home, ".punktfunk-restore-1/closed/x", "half");
    let closed = home.join(".punktfunk-restore-1/closed");
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    host.restore(&backup);
    assert_eq!(fs::read_to_string(home.join("save")).unwrap(), "1");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 2, "{:?}", seen(&home));
}

#[test]
fn who_goes_away_ends_it() {
    let host = Host::new();
    let sofa = host.pair("sofa");
    let home = host.home(sofa);
    // More than lies between the two ends.
    fs::write(home.join("large"), vec![7; 8 << 20]).unwrap();
    let profile = host.store.profile_of(sofa).unwrap();
    let backup = host.back_up(true);
    let before = seen(&home);
    let ask = json!({"passphrase": PASSPHRASE}).to_string();
    let mut stream = host.begin("backup", ask.len());
    stream.write_all(ask.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    assert!(host.agents.take(profile, "").is_err());
    drop(stream);
    wait_for("the backup to end", || host.agents.take(profile, "").is_ok());

    let body = restore_body(PASSPHRASE, &backup);
    let mut stream = host.begin("restore", body.len());
    stream.write_all(&body[..4 << 20]).unwrap();
    wait_for("something to lie beside", || fs::read_dir(&home).unwrap().count() == 2);
    stream.shutdown(Shutdown::Both).unwrap();
    drop(stream);
    wait_for("the restore to end", || host.agents.take(profile, "").is_ok());
    assert_eq!(seen(&home), before);
    host.back_up(true);
}

#[test]
fn where_sessions_have_no_homes_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let agents = Local::new(folder.path().join("sessions"), Some(agents::program()));
    let host = Host::with(folder, "/nonexistent".into(), Arc::new(agents));
    let ask = json!({"passphrase": PASSPHRASE}).to_string();
    host.ask("backup", ask.as_bytes()).is_problem(503, "unavailable", "no homes of their own");
    host.restore_with(PASSPHRASE, b"x").is_problem(503, "unavailable", "no homes of their own");
}

#[test]
fn a_host_that_nobody_has_played_on_has_an_empty_backup() {
    let host = Host::new();
    let backup = host.back_up(true);
    assert_eq!(host.restore(&backup)["homes"], json!([]));
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The real launcher, whose profiles have users that this machine has not.
struct Launcher {
    process: Child,
    options: Vec<String>,
    binary: PathBuf,
}

const FIRST_UID: u32 = 161_000;

impl Launcher {
    fn start(folder: &Path) -> Self {
        // Others are to enter.
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        let agent = folder.join("punktfunk-agent");
        fs::copy(agents::program(), &agent).unwrap();
        let binary = agents::program().with_file_name("punktfunk-launcher");
        let path = |name: &str| folder.join(name).display().to_string();
        let options = [
            ("--daemon-uid", "160999".to_owned()),
            ("--first-uid", FIRST_UID.to_string()),
            ("--profiles", "8".to_owned()),
            ("--folder", path("launched")),
            ("--homes", path("homes")),
            ("--agent", agent.display().to_string()),
            ("--ports", "47984".to_owned()),
        ];
        let options: Vec<String> =
            options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let process = Command::new(&binary).arg("serve").args(&options).spawn().unwrap();
        wait_for("the launcher", || folder.join("launched/launcher.sock").exists());
        Self { process, options, binary }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = Command::new(&self.binary).arg("clear").args(&self.options).status();
    }
}

/// Runs a script in a home, as its user.
fn as_user(home: &Path, profile: u32, script: &str) -> String {
    let uid = FIRST_UID + profile;
    let done = Command::new("setpriv")
        .args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"])
        .args(["sh", "-ceu", script])
        .current_dir(home)
        .output()
        .unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// The most memory that this process has had, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs root and the launcher"]
fn every_home_is_read_and_written_by_its_own_user() {
    let folder = tempfile::tempdir().unwrap();
    let homes = folder.path().join("homes");
    let launcher = Launcher::start(folder.path());
    let agents = Launched::new(folder.path().join("launched/launcher.sock"));
    let host = Host::with(folder, homes.clone(), Arc::new(agents));
    let (sofa, desk) = (host.pair("sofa"), host.pair("desk"));
    for device in [sofa, desk] {
        // As a session would: the launcher makes the home.
        drop(host.agents.start(host.store.profile_of(device).unwrap()).unwrap());
    }
    // What a game might leave that means harm: ways out, files that never end or that nobody may read, programs that run
    // as their owner, sockets, names that look like words of a command.
    as_user(
        &homes.join("0"),
        0,
        "echo 7 > save; mkdir -p .config; echo a > .config/b; ln -s / out; ln -s ../1 sideways; mkfifo fifo; \
         truncate -s 8E endless 2>/dev/null || truncate -s 4T endless; echo x > secret; chmod 000 secret; \
         cp /bin/true tool; chmod 4755 tool; touch ./--checkpoint-action=exec=sh ./--checkpoint=1; mkdir deaf; \
         chmod 555 deaf; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")' 2>/dev/null || true; \
         head -c 100000000 /dev/urandom > large",
    );
    as_user(&homes.join("1"), 1, "echo 1 > save");
    let sum = as_user(&homes.join("0"), 0, "sha256sum large");
    let before = peak_kib();
    let mut backup = host.folder.path().join("backup");
    // Not through this process's memory: it is to be seen that the host needs little.
    let curl = |path: &str, body: &str, to: &Path| {
        let done = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail-with-body",
                "--max-time",
                "120",
                "--unix-socket",
            ])
            .arg(&host.socket)
            .args(["--upload-file", "-", "--request", "POST"])
            .arg("--output")
            .arg(to)
            .arg(format!("http://localhost/api/v1/homes/{path}"))
            .stdin(if body.is_empty() {
                Stdio::from(File::open(host.folder.path().join("body")).unwrap())
            } else {
                fs::write(host.folder.path().join("ask"), body).unwrap();
                Stdio::from(File::open(host.folder.path().join("ask")).unwrap())
            })
            .output()
            .unwrap();
        let mut said = Vec::new();
        File::open(to).unwrap().take(500).read_to_end(&mut said).unwrap();
        assert!(
            done.status.success(),
            "{}: {}",
            String::from_utf8_lossy(&done.stderr),
            String::from_utf8_lossy(&said)
        );
    };
    curl("backup", &json!({"passphrase": PASSPHRASE}).to_string(), &backup);
    let size = fs::metadata(&backup).unwrap().len();
    assert!((100_000_000..110_000_000).contains(&size), "{size}");
    let script = "set -eu; { printf '{\"passphrase\":\"%s\"}\\n' \"$2\"; cat \"$1\"; } > \"$3\"";
    let body = host.folder.path().join("body");
    let made = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&backup, Path::new(PASSPHRASE), &body])
        .status()
        .unwrap();
    assert!(made.success());

    as_user(&homes.join("0"), 0, "rm -rf save large .config; echo later > later");
    let answer = host.folder.path().join("answer");
    curl("restore", "", &answer);
    let told: Value = serde_json::from_slice(&fs::read(&answer).unwrap()).unwrap();
    for at in 0..2 {
        assert!(told["homes"][at]["restored_bytes"].is_u64(), "{told}");
    }
    assert!(told["homes"][0]["remark"].as_str().unwrap().contains("secret"), "{told}");
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB for a backup of {size} bytes");
    assert_eq!(as_user(&homes.join("0"), 0, "sha256sum large"), sum);
    let listed = as_user(
        &homes.join("0"),
        0,
        "stat -c '%n %u %a' save out tool deaf; ls -A | sort | tr '\\n' ' '",
    );
    assert!(listed.contains("save 161000 644") && listed.contains("tool 161000 755"), "{listed}");
    assert!(listed.contains("deaf 161000 555") && !listed.contains("later"), "{listed}");
    assert!(listed.contains("--checkpoint=1") && !listed.contains(".punktfunk"), "{listed}");
    assert_eq!(as_user(&homes.join("1"), 1, "cat save; ls -A"), "1\nsave\n");

    // A disk that is full keeps the home as it is.
    let small = homes.join("1");
    let mount = |words: &[&str]| Command::new("mount").args(words).arg(&small).status().unwrap();
    backup.set_extension("small");
    drop(host.agents.start(host.store.profile_of(desk).unwrap()).unwrap());
    as_user(&small, 1, "head -c 3000000 /dev/zero > large");
    curl("backup", &json!({"passphrase": PASSPHRASE}).to_string(), &backup);
    assert!(mount(&["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"]).success());
    fs::write(small.join("save"), "kept").unwrap();
    let body = restore_body(PASSPHRASE, &fs::read(&backup).unwrap());
    let told = host.ask("restore", &body).json();
    let kept = fs::read_to_string(small.join("save")).unwrap();
    let left = fs::read_dir(&small).unwrap().count();
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    assert_eq!(
        (told["homes"][1]["problem"]["code"].as_str(), &*kept),
        (Some("no-space"), "kept"),
        "{told}"
    );
    assert_eq!(left, 1);
    assert!(told["homes"][0]["restored_bytes"].is_u64(), "{told}");
    drop(launcher);
}
