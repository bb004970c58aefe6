//! Waits for the daemon, the button and sticks in one place, and does what the machine says.
//!
//! One connection of the daemon's matters at a time; a newer one takes the place of an older. A line that is too long
//! or cannot be read ends the connection that sent it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{socket_acceptconn, socket_peercred};

use zeroize::Zeroizing;

use super::bring::Bringing;
use super::button::{self, Button};
use super::looks::Looks;
use super::machine::{Attendant, Do};
use super::press::{Meaning, Presses};
use super::show::Showing;
use super::stick::{self, Arrival, Arrivals, Found};
use super::used::Used;
use super::vouch::{Kept, Nonce};
use super::{FromDaemon, FromRoot, MAX_LINE_BYTES, Presence, note, owner};
use crate::facts::since_start;
use crate::programs::{ProgramError, run_well};
use crate::proof::{Deed, Refusal};
use crate::{permit, reset};

/// User and group of the daemon.
const DAEMON_ID: u32 = 960;

/// Where sticks are mounted, for this process alone.
const STICK: &str = "/run/punktfunk-os/stick";

/// How long switching off may take to be asked for.
const QUICK: Duration = Duration::from_secs(30);

/// What was pressed while so long nobody looked, because a stick or the disk was slow, may have been pressed at any time of
/// it: presses far from each other would look like one row.
const LATE: Duration = Duration::from_secs(1);

/// So many messages of the kernel's are read before the others get their turn.
const MAX_MESSAGES: usize = 64;

/// Why nobody attends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system refused.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program that is needed failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

fn io(doing: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::Io { doing, source }
}

/// What the attendant works on.
pub struct Site<'a> {
    /// Root's folder of state.
    pub state: PathBuf,
    /// The boot loader's partition, on which the note is left.
    pub esp: PathBuf,
    /// Screens for the claim.
    pub screens: Vec<PathBuf>,
    /// Who may connect.
    pub daemon_uid: u32,
    /// The kernel's name for this start of the machine; empty if it cannot be read, and then nobody counts as there.
    pub boot_id: String,
    /// Who hands over the update that a stick brings, usually [`super::bring::WORDS`].
    pub bring: Vec<String>,
    /// Notes that somebody was at the machine.
    pub present: &'a mut dyn FnMut(),
}

/// Attends until something is broken that it cannot do without.
pub fn serve(site: Site<'_>) -> Result<(), ServeError> {
    let listener = listener()?;
    let arrivals = Arrivals::open().map_err(io("listen for sticks"))?;
    let mut attending = Attending::new(site)?;
    attending.look_for_buttons();
    loop {
        attending.wait(&listener, Some(&arrivals))?;
    }
}

/// The socket that systemd hands over as standard input, or else one of our own.
fn listener() -> Result<UnixListener, ServeError> {
    let stdin = io::stdin();
    let given = stdin.as_fd();
    if socket_acceptconn(given).unwrap_or(false) {
        let given = given.try_clone_to_owned().map_err(io("take the socket over"))?;
        let listener = UnixListener::from(given);
        listener.set_nonblocking(true).map_err(io("set the socket up"))?;
        return Ok(listener);
    }
    bind(Path::new(super::SOCKET), Some(DAEMON_ID))
}

/// Makes the socket, for root and one group.
pub fn bind(path: &Path, group: Option<u32>) -> Result<UnixListener, ServeError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io("make the socket's folder"))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io("remove the old socket")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(io("make the socket"))?;
    let set_up = || {
        std::os::unix::fs::chown(path, None, group)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        listener.set_nonblocking(true)
    };
    set_up().map_err(io("set the socket up"))?;
    Ok(listener)
}

/// The daemon's connection and what of a line has come.
struct Talk {
    stream: UnixStream,
    /// The claim's secrets may be in it.
    begun: Zeroizing<Vec<u8>>,
}

/// All that goes on.
pub struct Attending<'a> {
    site: Site<'a>,
    attendant: Attendant,
    talk: Option<Talk>,
    buttons: Vec<Button>,
    presses: Presses,
    used: Used,
    showing: Showing,
    /// When it was last looked at what has happened, since the start.
    looked: Duration,
    /// What was plugged in and is looked at.
    looks: Looks,
    /// The update that a stick brings, while it is handed over.
    bringing: Option<Bringing>,
    /// Those that took too long, until they have ended.
    late: Vec<Bringing>,
}

impl<'a> Attending<'a> {
    /// Begins, with no claim shown: the daemon says it again when it can be claimed.
    pub fn new(site: Site<'a>) -> Result<Self, ServeError> {
        let used = Used::read(&site.state);
        // Each has a folder of its own: one that does not end lets go of nobody else's when it does.
        let count = AtomicU64::new(0);
        let looks = Looks::new(Arc::new(move |name| {
            let folder = count.fetch_add(1, Ordering::Relaxed).to_string();
            stick::look(name, &Path::new(STICK).join(folder))
        }));
        let untaken = used.untaken().map(str::to_owned);
        let untaken = untaken.map(|digest| Presence::ResetFile { digest });
        let kept = owner::read(&site.state);
        // The button switches off all the same.
        let unknown = kept.is_err();
        let kept = kept.unwrap_or_else(|error| {
            complain!("no key and no proof is believed: {error}");
            None
        });
        let mut attendant = Attendant::new(kept, untaken, &site.boot_id);
        if unknown {
            attendant.not_kept(None);
        }
        let mut attending = Self {
            site,
            attendant,
            talk: None,
            buttons: Vec::new(),
            presses: Presses::default(),
            used,
            showing: Showing::default(),
            looked: since_start(),
            looks: looks.map_err(io("look at sticks"))?,
            bringing: None,
            late: Vec::new(),
        };
        attending.erase();
        Ok(attending)
    }

    fn look_for_buttons(&mut self) {
        button::find(&mut self.buttons);
    }

    /// Waits until something happens, and does what follows.
    pub fn wait(
        &mut self,
        listener: &UnixListener,
        arrivals: Option<&Arrivals>,
    ) -> Result<(), ServeError> {
        let bringing = self.bringing.as_ref().map(Bringing::deadline);
        let looks = self.looks.deadline();
        let deadlines = [self.presses.deadline(), self.showing.deadline(), bringing, looks];
        let timeout = deadlines.into_iter().flatten().min().map(|deadline| {
            let left = deadline.saturating_sub(since_start());
            // A whole millisecond more, so that it has passed when it is looked.
            Timespec::try_from(left + Duration::from_millis(1)).unwrap_or_default()
        });
        let late = since_start().saturating_sub(self.looked) > LATE;
        let ready: Vec<bool> = {
            let mut fds = vec![fd(listener), fd(&self.looks)];
            fds.extend(self.buttons.iter().map(fd));
            fds.extend(self.talk.iter().map(|talk| fd(&talk.stream)));
            fds.extend(arrivals.map(fd));
            // Last: that one has ended wakes, and is looked at each time.
            fds.extend(self.bringing.iter().chain(&self.late).map(fd));
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io("wait")(error.into())),
            }
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        self.looked = since_start();
        let mut ready = ready.into_iter();
        let (called, looked) = (ready.next() == Some(true), ready.next() == Some(true));
        let buttons: Vec<bool> = ready.by_ref().take(self.buttons.len()).collect();
        self.read_buttons(&buttons, late)?;
        if self.talk.is_some() && ready.next() == Some(true) {
            self.read_talk();
        }
        if called {
            self.accept(listener);
        }
        if let Some(arrivals) = arrivals.filter(|_| ready.next() == Some(true)) {
            self.read_arrivals(arrivals);
        }
        self.go_on_without(since_start());
        if let Some((name, found)) = looked.then(|| self.looks.found(since_start())).flatten() {
            match found {
                Ok(None) => {}
                Ok(Some(found)) => self.found(&name, found),
                Err(error) => complain!("{name}: {error}"),
            }
        }
        self.show();
        Ok(())
    }

    /// What has ended, or takes too long, holds up no stick.
    fn go_on_without(&mut self, now: Duration) {
        self.late.retain_mut(|bringing| !bringing.has_ended());
        if self.bringing.as_mut().is_some_and(Bringing::has_ended) {
            self.bringing = None;
        }
        self.late.extend(self.bringing.take_if(|bringing| bringing.is_late(now)));
        self.looks.give_up(now);
    }

    /// A newer connection takes the place of an older one; only the daemon's user has any.
    fn accept(&mut self, listener: &UnixListener) {
        let Ok((stream, _)) = listener.accept() else { return };
        let uid = socket_peercred(&stream).map(|peer| peer.uid.as_raw());
        if uid != Ok(self.site.daemon_uid) || stream.set_nonblocking(true).is_err() {
            complain!("a connection of somebody else ({uid:?}) is refused");
            return;
        }
        self.talk = Some(Talk { stream, begun: Zeroizing::default() });
        let all = self.attendant.connected(since_start());
        self.perform(all);
    }

    fn read_talk(&mut self) {
        let Some(talk) = &mut self.talk else { return };
        // A whole line with its end.
        let mut piece = Zeroizing::new([0; MAX_LINE_BYTES + 1]);
        let ended = match talk.stream.read(&mut *piece) {
            Ok(0) => true,
            Ok(count) => {
                talk.begun.extend_from_slice(&piece[..count]);
                false
            }
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        if ended {
            self.talk = None;
            return;
        }
        while let Some(talk) = &mut self.talk {
            let Some(end) = talk.begun.iter().position(|byte| *byte == b'\n') else { break };
            let rest = Zeroizing::new(talk.begun.split_off(end + 1));
            let line = std::mem::replace(&mut talk.begun, rest);
            self.hear(&line[..end]);
        }
        let too_long = |talk: &mut Talk| talk.begun.len() > MAX_LINE_BYTES;
        if self.talk.as_mut().is_some_and(too_long) {
            complain!("a line of the daemon is too long");
            self.talk = None;
        }
    }

    fn hear(&mut self, line: &[u8]) {
        let fresh = Nonce::draw();
        match (FromDaemon::parse(line), fresh) {
            (Ok(said), Ok(fresh)) => {
                let all = self.attendant.said(since_start(), fresh, said);
                self.perform(all);
            }
            (Err(error), _) => {
                complain!("the daemon said {error}");
                self.talk = None;
            }
            // It connects again, later and later.
            (_, Err(error)) => {
                complain!("{error}");
                self.talk = None;
            }
        }
    }

    fn read_buttons(&mut self, ready: &[bool], late: bool) -> Result<(), ServeError> {
        let mut strokes = Vec::new();
        let mut at = 0;
        self.buttons.retain_mut(|button| {
            let ready = ready.get(at).copied().unwrap_or(false);
            at += 1;
            if !ready {
                return true;
            }
            let read = button.strokes();
            strokes.extend(read.as_ref().into_iter().flatten().copied());
            read.is_ok()
        });
        if late && !strokes.is_empty() {
            tell!("the button was pressed while nobody could look; press it again");
            strokes.clear();
            self.presses = Presses::default();
        }
        let now = since_start();
        let mut meanings: Vec<Meaning> =
            strokes.into_iter().filter_map(|stroke| self.presses.stroke(now, stroke)).collect();
        meanings.extend(self.presses.silence(now));
        for meaning in meanings {
            match meaning {
                Meaning::Presence => self.present(Presence::PowerButton),
                Meaning::PowerOff => {
                    tell!("the power button switches off");
                    run_well(&["systemctl", "--no-block", "poweroff"], QUICK)?;
                }
            }
        }
        Ok(())
    }

    fn read_arrivals(&mut self, arrivals: &Arrivals) {
        let (names, buttons) = gather(|| arrivals.next());
        if buttons {
            self.look_for_buttons();
        }
        names.into_iter().for_each(|name| self.looks.add(name, since_start()));
    }

    fn found(&mut self, name: &str, found: Found) {
        match found.reset {
            Ok(None) => {}
            Ok(Some(digest)) => self.reset_file(digest),
            Err(error) => complain!("{name}: {}: {error}", stick::NAME),
        }
        match found.update {
            Ok(None) => {}
            Ok(Some(file)) => self.bring(file),
            Err(error) => complain!("{name}: {}: {error}", stick::UPDATE),
        }
    }

    /// One at a time: whoever plugs in another stick meanwhile does so again.
    fn bring(&mut self, file: File) {
        if self.bringing.is_some() {
            complain!("an update on a stick is left, because another one is being handed over");
            return;
        }
        match Bringing::begin(&self.site.bring, file, since_start()) {
            Ok(bringing) => self.bringing = Some(bringing),
            Err(error) => complain!("an update on a stick could not be handed over: {error}"),
        }
    }

    /// A reset file shows that somebody is there once.
    fn reset_file(&mut self, digest: String) {
        if self.used.take(&digest) {
            self.present(Presence::ResetFile { digest });
        } else {
            tell!("a reset file that was used already is ignored");
        }
    }

    fn present(&mut self, presence: Presence) {
        tell!("somebody is at the machine: {presence:?}");
        let all = self.attendant.present(since_start(), presence);
        self.perform(all);
    }

    fn perform(&mut self, all: Vec<Do>) {
        for one in all {
            match one {
                Do::Say(said) => self.say(&said),
                Do::Note => (self.site.present)(),
                Do::Taken => self.used.taken(),
                Do::Erase => self.erase(),
                Do::Show(claim) => self.showing.offer(claim),
                Do::Keep(kept) => self.keep(&kept),
                Do::Carry(deed) => self.carry(&deed),
                Do::Await => self.show_lines(note::AWAITED),
            }
        }
    }

    /// Notes what the owner has proved to want. What is noted is done by the next start, or by who arranges it.
    fn carry(&mut self, deed: &Deed) {
        let Site { state, boot_id, .. } = &self.site;
        let noted = match deed {
            Deed::FactoryReset => reset::arrange(state, boot_id),
            Deed::RollbackBelowFloor { commit } => {
                permit::write(state, commit, boot_id, since_start())
            }
        };
        let said = match noted {
            Ok(()) => {
                tell!("the owner has proved to want this: {deed:?}");
                self.attendant.carried(deed)
            }
            Err(error) => {
                complain!("{error}");
                FromRoot::ProofRefused { why: Refusal::NotKept }
            }
        };
        self.say(&said);
    }

    fn keep(&mut self, kept: &Kept) {
        match owner::write(&self.site.state, kept) {
            Ok(()) => {
                if let Some(said) = self.attendant.kept() {
                    self.say(&said);
                }
            }
            Err(error) => {
                complain!("{error}");
                let there = owner::read(&self.site.state);
                self.attendant.not_kept(there.inspect_err(|error| complain!("{error}")).ok());
                let reason = "the disk did not take it".to_owned();
                self.say(&FromRoot::OwnerRefused { reason });
            }
        }
    }

    /// Shows a claim whose time has come.
    fn show(&mut self) {
        let Some(claim) = self.showing.due(since_start()) else { return };
        if let Err(error) = note::write(&self.site.esp, &claim) {
            complain!("{error}");
            self.showing.not_shown();
        }
        self.show_lines(&note::lines(&claim));
    }

    fn show_lines(&self, lines: &str) {
        for screen in &self.site.screens {
            // Many machines have one of them only.
            let _ = note::show(screen, lines);
        }
    }

    fn erase(&mut self) {
        self.showing.erased();
        if let Err(error) = note::erase(&self.site.esp) {
            complain!("{error}");
        }
    }

    /// A daemon that does not read is not waited for.
    fn say(&mut self, said: &FromRoot) {
        let Some(talk) = &mut self.talk else { return };
        if talk.stream.write_all(said.line().as_bytes()).is_err() {
            self.talk = None;
        }
    }
}

/// What came that may be a stick, and whether a button may have come. Whoever makes devices without end makes nobody
/// wait: the rest stays for the next turn.
fn gather(next: impl FnMut() -> Option<Arrival>) -> (Vec<String>, bool) {
    let (mut names, mut buttons) = (Vec::new(), false);
    for arrival in std::iter::from_fn(next).take(MAX_MESSAGES) {
        match arrival {
            Arrival::Block(name) => names.push(name),
            Arrival::Input => buttons = true,
            Arrival::Other => {}
        }
    }
    (names, buttons)
}

fn fd(of: &impl AsFd) -> PollFd<'_> {
    PollFd::from_borrowed_fd(of.as_fd(), PollFlags::IN)
}

#[cfg(test)]
mod tests;
