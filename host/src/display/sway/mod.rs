//! Sway without a screen: one compositor per session, on wlroots' headless backend.
//!
//! The backend has a configuration of its own written into the session's runtime folder and `sway` started there, all by
//! the session's agent, and speaks to it over its IPC socket: the output gets exactly the client's size and refresh, also while it runs. Pictures come out by
//! screencopy ([`crate::capture::wlr`]), input goes in by virtual devices ([`crate::input::wlr`]). Software rendering
//! (pixman) needs no GPU and is the default.
//!
//! Deliberately absent: the owner's sway configuration (a stream must not depend on it), status bars and key bindings,
//! and running as root: sway refuses that, and so does the probe, in words.

mod ipc;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use punktfunk_core::media::Mode;

use self::ipc::Question;
use super::{DisplayBackend, DisplayError, OutputSpec, ProbeReport, VirtualOutput};
use crate::agent::{Agent, AgentError, Process, ProcessSpec};
use crate::capture::FrameSource;
use crate::capture::wlr::WlrSource;
use crate::input::InputSink;
use crate::input::wlr::WlrSink;

/// How sway is run.
#[derive(Debug, Clone)]
pub struct SwayOptions {
    /// Let X11 programs appear, through Xwayland. Default: no.
    pub xwayland: bool,
    /// Render with the GPU (GLES) instead of the processor. Default: no.
    pub gpu: bool,
    /// A sway that leaves a question without an answer for so long counts as hanging; three are asked in that time.
    /// Default: 15 s.
    pub hang_patience: Duration,
}

impl Default for SwayOptions {
    fn default() -> Self {
        Self { xwayland: false, gpu: false, hang_patience: Duration::from_secs(15) }
    }
}

/// Starts one sway per output.
#[derive(Debug, Clone, Default)]
pub struct SwayBackend {
    options: SwayOptions,
}

impl SwayBackend {
    /// A backend with these options.
    pub fn new(options: SwayOptions) -> Self {
        Self { options }
    }

    fn process(&self, agent: &dyn Agent) -> ProcessSpec {
        let path = |name: &str| agent.runtime_dir().join(name).to_string_lossy().into_owned();
        let renderer = if self.options.gpu { "gles2" } else { "pixman" };
        let environment = [
            ("SWAYSOCK", path(IPC)),
            ("XDG_SESSION_TYPE", "wayland".to_owned()),
            ("WLR_BACKENDS", "headless".to_owned()),
            ("WLR_LIBINPUT_NO_DEVICES", "1".to_owned()),
            ("WLR_RENDERER", renderer.to_owned()),
        ];
        ProcessSpec {
            program: "sway".to_owned(),
            arguments: vec!["-c".to_owned(), path(CONFIG)],
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            keeps_last_words: true,
        }
    }

    fn config(&self, mode: Mode) -> String {
        let xwayland = if self.options.xwayland { "enable" } else { "disable" };
        // Without the `swaybg` program the background is black; sway would complain about the line.
        let background = if find_program("swaybg").is_some() {
            format!("output * bg {BACKGROUND} solid_color\n")
        } else {
            String::new()
        };
        format!(
            "# Written by punktfunk for one session; changes are lost.\n\
             xwayland {xwayland}\n\
             output {OUTPUT} {}\n\
             {background}\
             seat seat0 fallback true\n\
             font monospace 10\n\
             default_border none\n\
             default_floating_border none\n\
             gaps inner 12\n\
             focus_follows_mouse no\n\
             no_focus [app_id=\"{NO_FOCUS_APP_ID}\"]\n",
            mode_words(mode)
        )
    }
}

impl DisplayBackend for SwayBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self) -> Result<ProbeReport, DisplayError> {
        if rustix::process::geteuid().is_root() {
            return Err(unavailable(
                "sway refuses to run as root; run the host as an ordinary user",
            ));
        }
        if find_program("sway").is_none() {
            return Err(unavailable(
                "the program `sway` is not installed (Debian: apt install sway)",
            ));
        }
        if self.options.xwayland && find_program("Xwayland").is_none() {
            return Err(unavailable("the program `Xwayland` is not installed (Debian: xwayland)"));
        }
        let version = version().map_err(|source| DisplayError::Io {
            doing: "asking sway for its version".to_owned(),
            source,
        })?;
        let renderer = if self.options.gpu { "GPU" } else { "software" };
        Ok(ProbeReport {
            detail: format!("{version}, headless, {renderer} rendering"),
            proven: !self.options.gpu,
        })
    }

    fn needs_agent(&self) -> bool {
        true
    }

    fn open(&self, spec: &OutputSpec) -> Result<Box<dyn VirtualOutput>, DisplayError> {
        self.probe()?;
        let Some(agent) = spec.agent.clone() else {
            return Err(start("it runs in a session, and this one has no agent".to_owned()));
        };
        if agent.runtime_dir().join(IPC).as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(start(format!(
                "the folder {} is too long for a socket's name",
                agent.runtime_dir().display()
            )));
        }
        let refused = |error: AgentError| start(error.to_string());
        agent.write_file(CONFIG, self.config(spec.mode).as_bytes()).map_err(refused)?;
        let process = agent.spawn(&self.process(agent.as_ref())).map_err(refused)?;
        // From here on dropping `output` ends the process.
        let mut output = SwayOutput {
            agent,
            process,
            mode: spec.mode,
            wayland: None,
            pulse: Pulse::new(self.options.hang_patience),
        };
        output.wait_until_ready()?;
        tracing::info!(mode = %spec.mode, "sway is ready");
        Ok(Box::new(output))
    }
}

/// One sway and its one output.
struct SwayOutput {
    agent: Arc<dyn Agent>,
    process: Box<dyn Process>,
    mode: Mode,
    /// The name of the Wayland socket, once there is one.
    wayland: Option<String>,
    pulse: Pulse,
}

impl SwayOutput {
    fn wait_until_ready(&mut self) -> Result<(), DisplayError> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            // The pause between two looks ends early when sway ends.
            if self.process.wait(LOOK_AGAIN) {
                return Err(start(self.process.obituary().unwrap_or_default()));
            }
            let sockets = self.agent.sockets().map_err(|error| start(error.to_string()))?;
            // The session's folder is its own, so the one Wayland socket in it is this sway's.
            self.wayland = sockets.into_iter().find(|name| name.starts_with("wayland-"));
            if self.wayland.is_some() && self.has_mode(self.mode).unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(start(format!("not ready after {} s", START_PATIENCE.as_secs())));
            }
        }
    }

    fn has_mode(&self, mode: Mode) -> io::Result<bool> {
        let outputs = ipc::outputs(self.agent.connect(IPC).map_err(io::Error::other)?)?;
        Ok(outputs.iter().any(|output| {
            output.name == OUTPUT
                && output.active
                && output.current_mode.is_some_and(|current| {
                    current.width == i64::from(mode.width())
                        && current.height == i64::from(mode.height())
                        && current.refresh == i64::from(mode.refresh_millihz())
                })
        }))
    }

    fn try_mode(&self, mode: Mode) -> Result<(), DisplayError> {
        let refused = |reason: String| DisplayError::Mode { backend: NAME, mode, reason };
        let connection = self.agent.connect(IPC).map_err(|error| refused(error.to_string()))?;
        ipc::run(connection, &format!("output {OUTPUT} {}", mode_words(mode)))
            .map_err(|error| refused(error.to_string()))?;
        let deadline = Instant::now() + MODE_PATIENCE;
        while !self.has_mode(mode).map_err(|error| refused(error.to_string()))? {
            if Instant::now() >= deadline {
                return Err(refused("the output did not take it".to_owned()));
            }
            if self.process.wait(LOOK_AGAIN) {
                return Err(self.died());
            }
        }
        Ok(())
    }

    fn died(&self) -> DisplayError {
        DisplayError::Died { backend: NAME, reason: self.process.obituary().unwrap_or_default() }
    }

    fn connect_wayland(&self, doing: &str) -> Result<UnixStream, DisplayError> {
        let name = self.wayland.as_deref().unwrap_or_default();
        let connected = self.agent.connect(name).map(UnixStream::from);
        connected.map_err(|error| failed(doing, error))
    }
}

impl VirtualOutput for SwayOutput {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn set_mode(&mut self, mode: Mode) -> Result<(), DisplayError> {
        if mode == self.mode {
            return Ok(());
        }
        self.check()?;
        let result = self.try_mode(mode);
        if result.is_ok() {
            self.mode = mode;
        } else if let Err(error) = self.try_mode(self.mode) {
            tracing::warn!(%error, "the old mode could not be restored");
        }
        result
    }

    fn child_env(&self) -> BTreeMap<String, String> {
        let folder = self.agent.runtime_dir();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        BTreeMap::from([
            ("XDG_RUNTIME_DIR".to_owned(), text(folder.to_owned())),
            ("XDG_SESSION_TYPE".to_owned(), "wayland".to_owned()),
            ("XDG_CURRENT_DESKTOP".to_owned(), "sway".to_owned()),
            ("SWAYSOCK".to_owned(), text(folder.join(IPC))),
            ("WAYLAND_DISPLAY".to_owned(), self.wayland.clone().unwrap_or_default()),
        ])
    }

    fn open_capture(&mut self) -> Result<Box<dyn FrameSource>, DisplayError> {
        let doing = "opening the capture of sway's output";
        let source = WlrSource::open(self.connect_wayland(doing)?);
        Ok(Box::new(source.map_err(|error| failed(doing, error))?))
    }

    fn open_input(&mut self) -> Result<Box<dyn InputSink>, DisplayError> {
        let doing = "making input devices in sway";
        let sink = WlrSink::open(self.connect_wayland(doing)?);
        Ok(Box::new(sink.map_err(|error| failed(doing, error))?))
    }

    fn check(&mut self) -> Result<(), DisplayError> {
        if self.process.obituary().is_some() {
            return Err(self.died());
        }
        let (agent, now) = (&self.agent, Instant::now());
        if self.pulse.is_lost(now, || Question::version(agent.connect(IPC).ok()?).ok()) {
            let reason = format!("it does not answer for {} s", self.pulse.patience.as_secs());
            return Err(DisplayError::Died { backend: NAME, reason });
        }
        Ok(())
    }

    /// Sway takes SIGTERM as politely as its own `exit` command.
    fn close(mut self: Box<Self>, grace: Duration) {
        self.process.terminate(grace);
    }
}

impl Drop for SwayOutput {
    fn drop(&mut self) {
        self.process.terminate(DROP_GRACE);
    }
}

/// Whether sway still answers. A sway that hangs lives, keeps its sockets and shows the last picture for ever; only
/// asking tells.
#[derive(Debug)]
struct Pulse {
    patience: Duration,
    question: Option<Question>,
    /// Since when a question, or an attempt to ask one, is without an answer.
    silent_since: Option<Instant>,
    next: Option<Instant>,
}

impl Pulse {
    fn new(patience: Duration) -> Self {
        Self { patience, question: None, silent_since: None, next: None }
    }

    /// Asks now and then. Whether there has been no answer for too long.
    fn is_lost(&mut self, now: Instant, ask: impl FnOnce() -> Option<Question>) -> bool {
        match self.question.as_mut().map(Question::reply) {
            Some(Ok(Some(_))) => (self.question, self.silent_since) = (None, None),
            // A sway that ends closes its connections; its process tells better what became of it.
            Some(Err(_)) => self.question = None,
            Some(Ok(None)) | None => {}
        }
        let pause = self.patience / 3;
        if self.question.is_none() && now >= *self.next.get_or_insert(now + pause) {
            self.next = Some(now + pause);
            self.silent_since.get_or_insert(now);
            self.question = ask();
        }
        self.silent_since.is_some_and(|since| now.saturating_duration_since(since) >= self.patience)
    }
}

/// The mode in sway's words. Sway reads the refresh as a 32-bit float and makes millihertz of it by cutting or by
/// rounding, depending on its version; a third of a millihertz on top is right for both.
fn mode_words(mode: Mode) -> String {
    let (hz, millihz) = (mode.refresh_millihz() / 1000, mode.refresh_millihz() % 1000);
    format!("mode --custom {}x{}@{hz}.{millihz:03}3Hz", mode.width(), mode.height())
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn version() -> io::Result<String> {
    let answer = Command::new("sway").arg("--version").output()?;
    let text = String::from_utf8_lossy(&answer.stdout);
    Ok(text.lines().next().unwrap_or("sway of unknown version").to_owned())
}

fn unavailable(reason: &str) -> DisplayError {
    DisplayError::Unavailable { backend: NAME, reason: reason.to_owned() }
}

fn failed(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> DisplayError {
    DisplayError::Io { doing: doing.to_owned(), source: io::Error::other(error) }
}

fn start(reason: String) -> DisplayError {
    DisplayError::Start { backend: NAME, reason }
}

/// Windows with this application id do not take the keyboard when they appear (a click still gives it to them).
pub const NO_FOCUS_APP_ID: &str = "punktfunk-backdrop";

const NAME: &str = "sway";
/// The name wlroots gives to the first headless output.
const OUTPUT: &str = "HEADLESS-1";
/// The names of its configuration and its IPC socket in the session's folder.
const CONFIG: &str = "sway.conf";
const IPC: &str = "sway.sock";
/// A dark blue-grey, light enough to see where the picture ends.
const BACKGROUND: &str = "#232b3b";
const START_PATIENCE: Duration = Duration::from_secs(10);
const MODE_PATIENCE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const DROP_GRACE: Duration = Duration::from_secs(1);
/// `sun_path` has 108 bytes with the closing zero.
const MAX_SOCKET_PATH_BYTES: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn check_words(width: u32, height: u32, refresh_millihz: u32, words: &str) {
        assert_eq!(mode_words(Mode::new(width, height, refresh_millihz).unwrap()), words);
    }

    #[test]
    fn a_mode_keeps_its_millihertz() {
        check_words(1280, 720, 59_940, "mode --custom 1280x720@59.9403Hz");
        check_words(1125, 2436, 60_000, "mode --custom 1126x2436@60.0003Hz");
        check_words(1920, 1080, 119_005, "mode --custom 1920x1080@119.0053Hz");
    }

    #[test]
    fn every_refresh_survives_cutting_and_rounding_of_a_float() {
        for refresh_millihz in Mode::MIN_REFRESH_MILLIHZ..=Mode::MAX_REFRESH_MILLIHZ {
            let text = format!("{}.{:03}3", refresh_millihz / 1000, refresh_millihz % 1000);
            let millihz = text.parse::<f32>().unwrap() * 1000.0;
            assert_eq!(
                (millihz as u32, millihz.round() as u32),
                (refresh_millihz, refresh_millihz)
            );
        }
    }

    #[test]
    fn root_is_refused_in_words() {
        let probe = SwayBackend::default().probe();
        if rustix::process::geteuid().is_root() {
            let text = probe.unwrap_err().to_string();
            assert!(text.contains("ordinary user"), "{text}");
        }
    }
}
