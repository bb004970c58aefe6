//! What is done in a home, by programs that run there as its user: the daemon opens nothing in it.
//!
//! The system's `tar` makes and takes the archive, because it knows what a home may have - sparse files, hard links,
//! attributes, names of any bytes - and has been attacked for longer than anything of ours. It can do no more than the
//! games of that home can. What it writes is read without a look at it; it is for the `tar` of a restore.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use punktfunk_agent::{PLACING, REPLACED, REPLACING, RESTORED, RESTORING, channel};
use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::HomesError;
use super::records::{MAX_PIECE_BYTES, MAX_SAID_CHARS};
use crate::agent::{Agent, AgentError, AgentStarter, Place, Process, ProcessSpec, Stream};

/// What stores can fetch again, wherever it lies in a home. Steam is told nothing of games that are not there.
const GAMES: [&str; 6] = [
    "steamapps/common",
    "steamapps/downloading",
    "steamapps/temp",
    "steamapps/shadercache",
    "steamapps/workshop",
    "steamapps/appmanifest_*.acf",
];
/// What programs can make again.
const CACHE: &str = "./.cache";

/// How long `tar` may neither give nor take anything.
const SILENCE: Duration = Duration::from_secs(300);
/// How often it is looked at meanwhile whether anybody still waits.
const LOOK: Duration = Duration::from_secs(1);
/// How long a program may take that only removes or moves something, or waits for the disk.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Removes what restores have left: what a cut one began, and what was there before one that was made. Where one is half
/// made, what was there before may yet be needed.
const CLEAN: &str = r#"
is_folder() { [ -d "$1" ] && [ ! -L "$1" ]; }
if is_folder "$4" || is_folder "$5"; then set -- "$1"*; else set -- "$1"* "$2"* "$3"; fi
for left; do
    # Files may have a second name in the home that has taken the place.
    if [ -d "$left" ] && [ ! -L "$left" ]; then
        find "$left" -type d ! -perm -700 -exec chmod u+rwx {} \;
    fi
    rm -rf -- "$left"
done"#;
/// Puts an archive beside what is there.
const BESIDE: &str = r#"mkdir -m 700 -- "$1" && exec tar --directory="$@""#;
/// Takes along what the backup has left out, as second names of the same files: the home that is there loses nothing before
/// another takes its place.
const TAKE_ALONG: &str = r#"
new=$1
shift
for path; do
    to=$new/$path
    if [ ! -e "$to" ] && [ ! -L "$to" ]; then
        mkdir -p -- "${to%/*}" && cp --archive --link --no-target-directory -- "$path" "$to" || exit 1
    fi
done"#;
/// Has the disk hold it. The archive may have closed the folder.
const FLUSH: &str = r#"chmod 700 -- "$1" && exec sync -f -- "$1""#;

/// Somebody who may do things in a home, until it is dropped.
pub(super) struct Hands {
    agent: Arc<dyn Agent>,
}

impl Drop for Hands {
    fn drop(&mut self) {
        self.agent.end(Duration::ZERO);
    }
}

impl Hands {
    pub(super) fn new(agents: &dyn AgentStarter, place: &Place) -> Result<Self, AgentError> {
        Ok(Self { agent: agents.start_in(place)? })
    }

    /// Whether somebody could play in it: the home is neither half the old one nor half a restored one.
    pub(super) fn check_is_one(&self) -> Result<(), Trouble> {
        let why = self.agent.half_restored();
        why.map_or(Ok(()), |why| Err(Trouble::Failed(why.to_owned())))
    }

    /// Where the home lies.
    pub(super) fn home(&self) -> &Path {
        self.agent.home_dir()
    }

    /// Gives the home's archive to `take`, piece by piece; what `tar` had to say comes back.
    pub(super) fn pack(
        &self,
        games: bool,
        mut take: impl FnMut(Option<&[u8]>) -> Result<(), HomesError>,
    ) -> Result<String, Trouble> {
        let spec = program("tar", pack_arguments(games));
        let (process, pipe) = self.agent.spawn_piped(&spec, Stream::Output).map_err(Trouble::of)?;
        let mut pipe = Pipe::new(pipe)?;
        let mut room = vec![0; MAX_PIECE_BYTES];
        loop {
            let count = pipe.read(&mut room, || take(None))?;
            if count == 0 {
                break;
            }
            take(Some(&room[..count]))?;
        }
        // 1 is of files that changed while they were read.
        verdict(&*process, &["0", "1"])
    }

    /// Removes what restores have left.
    pub(super) fn clean(&self) -> Result<(), Trouble> {
        self.shell(CLEAN, &[RESTORING, REPLACED, REPLACING, RESTORED, PLACING])
    }

    /// Begins to put an archive into a folder beside what is there.
    pub(super) fn unpack(&self, folder: &str) -> Result<Unpacking, Trouble> {
        let arguments = ["-c", BESIDE, "sh", folder].into_iter().chain(UNPACK).map(str::to_owned);
        let spec = program("sh", arguments.collect());
        let (process, pipe) = self.agent.spawn_piped(&spec, Stream::Input).map_err(Trouble::of)?;
        Ok(Unpacking { process, pipe: Some(Pipe::new(pipe)?), trouble: None, bytes: 0 })
    }

    /// Has the disk hold what was put there.
    pub(super) fn flush(&self, folder: &str) -> Result<(), Trouble> {
        self.shell(FLUSH, &[folder])
    }

    /// Puts the folder in the place of what is there. Where that fails the home is as it was before, unless the words say
    /// otherwise.
    pub(super) fn commit(&self, folder: &str, games: bool) -> Result<(), Trouble> {
        if !games {
            let find = self.agent.spawn(&program("find", take_along_arguments(folder)))?;
            // Nothing was moved: if it is not all there, the home stays as it is.
            verdict(&*find, &["0"])?;
        }
        self.agent.put_in_place(folder).map_err(|error| match error {
            AgentError::Refused { reason, .. } => Trouble::Failed(reason),
            gone => Trouble::Failed(format!(
                "nobody knows whether it has taken its place: {gone}; if it has begun to, it goes on when its device plays \
                 next"
            )),
        })
    }

    fn shell(&self, script: &str, words: &[&str]) -> Result<(), Trouble> {
        let words = ["-c", script, "sh"].into_iter().chain(words.iter().copied());
        let spec = program("sh", words.map(str::to_owned).collect());
        let process = self.agent.spawn(&spec).map_err(Trouble::of)?;
        verdict(&*process, &["0"]).map(drop)
    }
}

/// An archive that is being put into a home. Dropping it ends that.
pub(super) struct Unpacking {
    process: Box<dyn Process>,
    pipe: Option<Pipe>,
    trouble: Option<Trouble>,
    bytes: u64,
}

impl Unpacking {
    /// The next piece. Once something has gone wrong, the rest goes nowhere.
    pub(super) fn put(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.write(piece) {
            Ok(true) => {}
            // Why it takes no more it says at its end.
            Ok(false) => self.pipe = None,
            Err(trouble) => self.give_up(trouble),
        }
    }

    /// Takes no more, because of this.
    pub(super) fn give_up(&mut self, trouble: Trouble) {
        self.pipe = None;
        self.trouble = Some(trouble);
    }

    /// Waits for its end; how many bytes it took.
    pub(super) fn finish(mut self) -> Result<u64, Trouble> {
        let is_whole = self.pipe.take().is_some();
        if let Some(trouble) = self.trouble.take() {
            // Nothing is to come to what is removed now.
            self.process.terminate(Duration::ZERO);
            return Err(trouble);
        }
        verdict(&*self.process, &["0"])?;
        if !is_whole {
            return Err(Trouble::Failed("its archive ends too early".to_owned()));
        }
        Ok(self.bytes)
    }
}

/// Why something was not done in a home.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Its disk is full.
    #[error("there is no space left for it")]
    NoSpace,
    /// In words.
    #[error("{0}")]
    Failed(String),
    /// Not for anything in the home.
    #[error(transparent)]
    Elsewhere(#[from] HomesError),
}

impl Trouble {
    fn of(error: AgentError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<AgentError> for Trouble {
    fn from(error: AgentError) -> Self {
        Self::of(error)
    }
}

/// What became of a program that is about to end: what it said, if it ended with one of these.
fn verdict(process: &dyn Process, fine: &[&str]) -> Result<String, Trouble> {
    if !process.wait(PATIENCE) {
        return Err(Trouble::Failed("it does not end".to_owned()));
    }
    let words = process.obituary().unwrap_or_default();
    let ended = words.strip_prefix("exit status: ").unwrap_or_default();
    let (code, said) = ended.split_once(": ").unwrap_or((ended, ""));
    let said: String = said.chars().take(MAX_SAID_CHARS).collect();
    if fine.contains(&code) {
        return Ok(said);
    }
    let is_full = ["No space left on device", "Disk quota exceeded"];
    if is_full.iter().any(|full| words.contains(full)) {
        return Err(Trouble::NoSpace);
    }
    Err(Trouble::Failed(words))
}

/// The daemon's end of a pipe; nobody waits at it for ever.
struct Pipe(File);

impl Pipe {
    fn new(end: OwnedFd) -> Result<Self, Trouble> {
        fcntl_getfl(&end)
            .and_then(|flags| fcntl_setfl(&end, flags | OFlags::NONBLOCK))
            .map_err(|error| Trouble::Failed(error.to_string()))?;
        Ok(Self(end.into()))
    }

    /// Reads what there is; nothing is the end. `still` is asked now and then whether to wait on.
    fn read(
        &mut self,
        room: &mut [u8],
        mut still: impl FnMut() -> Result<(), HomesError>,
    ) -> Result<usize, Trouble> {
        let give_up = Instant::now() + SILENCE;
        while Instant::now() < give_up {
            match self.0.read(room) {
                Err(error) if is_later(&error) => still()?,
                done => return done.map_err(|error| Trouble::Failed(error.to_string())),
            }
            self.wait(PollFlags::IN, LOOK)?;
        }
        Err(silent())
    }

    /// Writes all of it; whether anybody took it.
    fn write(&mut self, mut bytes: &[u8]) -> Result<bool, Trouble> {
        let mut give_up = Instant::now() + SILENCE;
        while !bytes.is_empty() {
            match self.0.write(bytes) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    give_up = Instant::now() + SILENCE;
                }
                Err(error) if is_later(&error) && Instant::now() < give_up => {
                    self.wait(PollFlags::OUT, LOOK)?;
                }
                Err(error) if is_later(&error) => return Err(silent()),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn wait(&self, flags: PollFlags, limit: Duration) -> Result<(), Trouble> {
        channel::wait(&self.0, flags, Instant::now() + limit)
            .map(drop)
            .map_err(|error| Trouble::Failed(error.to_string()))
    }
}

fn is_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}

fn silent() -> Trouble {
    Trouble::Failed(format!("tar does nothing for {} s", SILENCE.as_secs()))
}

fn program(name: &str, arguments: Vec<String>) -> ProcessSpec {
    ProcessSpec {
        program: name.to_owned(),
        arguments,
        // What it says is read, and names are bytes.
        environment: BTreeMap::from([("LC_ALL".to_owned(), "C.UTF-8".to_owned())]),
        keeps_last_words: true,
    }
}

/// Everything of a home but sockets, as nobody's: whose it is says the home that it is put into. Bits that make a program
/// run as its owner are left out, because sessions may not set them.
const PACK: [&str; 13] = [
    "--create",
    "--file=-",
    "--format=posix",
    "--pax-option=delete=atime,delete=ctime",
    "--sparse",
    "--numeric-owner",
    "--owner=0",
    "--group=0",
    "--mode=ug-s",
    "--xattrs",
    "--xattrs-include=user.*",
    "--ignore-failed-read",
    "--warning=no-file-ignored",
];

const UNPACK: [&str; 6] = [
    "--extract",
    "--file=-",
    "--preserve-permissions",
    "--no-same-owner",
    "--xattrs",
    "--xattrs-include=user.*",
];

fn pack_arguments(games: bool) -> Vec<String> {
    let mut words: Vec<String> = PACK.iter().map(|word| (*word).to_owned()).collect();
    words.push("--anchored".to_owned());
    // What restores leave, and what a game has made to look like it.
    words.push("--exclude=./.punktfunk-*".to_owned());
    if !games {
        words.push(format!("--exclude={CACHE}"));
        words.push("--no-anchored".to_owned());
        words.extend(GAMES.iter().map(|pattern| format!("--exclude={pattern}")));
    }
    words.push(".".to_owned());
    words
}

/// Finds what a backup without games has left out, and hands it to [`TAKE_ALONG`].
fn take_along_arguments(folder: &str) -> Vec<String> {
    let mut words: Vec<String> =
        [".", "-mindepth", "1", "-path", "./.punktfunk-*", "-prune", "-o", "("]
            .map(str::to_owned)
            .to_vec();
    words.extend(["-path".to_owned(), CACHE.to_owned()]);
    for pattern in GAMES {
        words.extend(["-o".to_owned(), "-path".to_owned(), format!("*/{pattern}")]);
    }
    let hand_over = [")", "-prune", "-exec", "sh", "-c", TAKE_ALONG, "sh", folder, "{}", "+"];
    words.extend(hand_over.map(str::to_owned));
    words
}
