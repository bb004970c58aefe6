//! Sway without a screen: one compositor per session, on wlroots' headless backend.
//!
//! The backend writes a configuration of its own, starts `sway` in the session's runtime folder, and speaks to it over
//! its IPC socket: the output gets exactly the client's size and refresh, also while it runs. Pictures come out by
//! screencopy ([`crate::capture::wlr`]), input goes in by virtual devices ([`crate::input::wlr`]). Software rendering
//! (pixman) needs no GPU and is the default.
//!
//! Deliberately absent: the owner's sway configuration (a stream must not depend on it), status bars and key bindings,
//! and running as root: sway refuses that, and so does the probe, in words.

mod ipc;
mod process;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use punktfunk_core::media::Mode;

use self::process::KeptProcess;
use super::{DisplayBackend, DisplayError, OutputSpec, ProbeReport, VirtualOutput};
use crate::capture::FrameSource;
use crate::capture::wlr::WlrSource;
use crate::input::InputSink;
use crate::input::wlr::WlrSink;

/// How sway is run.
#[derive(Debug, Clone, Default)]
pub struct SwayOptions {
    /// Let X11 programs appear, through Xwayland. Default: no.
    pub xwayland: bool,
    /// Render with the GPU (GLES) instead of the processor. Default: no.
    pub gpu: bool,
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

    fn command(&self, spec: &OutputSpec, files: &Files) -> Command {
        let mut command = match find_program("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "sway"]);
                command
            }
            None => Command::new("sway"),
        };
        command.arg("-c").arg(&files.config).env_clear();
        for name in ["PATH", "HOME", "USER", "LANG", "LC_ALL", "XDG_DATA_DIRS"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("XDG_RUNTIME_DIR", &spec.runtime_dir)
            .env("SWAYSOCK", &files.ipc)
            .env("XDG_SESSION_TYPE", "wayland")
            .env("WLR_BACKENDS", "headless")
            .env("WLR_LIBINPUT_NO_DEVICES", "1")
            .env("WLR_RENDERER", if self.options.gpu { "gles2" } else { "pixman" });
        command
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
        let care = if find_program("setpriv").is_some() {
            ""
        } else {
            "; without `setpriv` (util-linux) it outlives a host that is killed"
        };
        Ok(ProbeReport {
            detail: format!("{version}, headless, {renderer} rendering{care}"),
            proven: !self.options.gpu,
        })
    }

    fn open(&self, spec: &OutputSpec) -> Result<Box<dyn VirtualOutput>, DisplayError> {
        self.probe()?;
        let files = Files::new(&spec.runtime_dir);
        if files.ipc.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(start(format!(
                "the folder {} is too long for a socket's name",
                spec.runtime_dir.display()
            )));
        }
        fs::write(&files.config, self.config(spec.mode)).map_err(|source| DisplayError::Io {
            doing: format!("writing {}", files.config.display()),
            source,
        })?;
        let process = KeptProcess::spawn(self.command(spec, &files))
            .map_err(|source| DisplayError::Io { doing: "starting sway".to_owned(), source })?;
        // From here on dropping `output` ends the process and removes the files.
        let mut output = SwayOutput { process, files, mode: spec.mode, wayland: None };
        output.wait_until_ready()?;
        tracing::info!(mode = %spec.mode, "sway is ready");
        Ok(Box::new(output))
    }
}

/// One sway and its one output.
#[derive(Debug)]
struct SwayOutput {
    process: KeptProcess,
    files: Files,
    mode: Mode,
    /// The name of the Wayland socket, once there is one.
    wayland: Option<String>,
}

impl SwayOutput {
    fn wait_until_ready(&mut self) -> Result<(), DisplayError> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            // The pause between two looks ends early when sway ends.
            if self.process.wait(LOOK_AGAIN) {
                return Err(start(self.process.obituary().unwrap_or_default()));
            }
            self.wayland = wayland_socket(&self.files.folder);
            if self.wayland.is_some() && self.has_mode(self.mode).unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(start(format!("not ready after {} s", START_PATIENCE.as_secs())));
            }
        }
    }

    fn has_mode(&self, mode: Mode) -> io::Result<bool> {
        let outputs = ipc::outputs(&self.files.ipc)?;
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
        ipc::run(&self.files.ipc, &format!("output {OUTPUT} {}", mode_words(mode)))
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

    /// Ends sway, which takes SIGTERM as politely as its own `exit` command; nothing of it is left afterwards.
    fn end(&mut self, grace: Duration) {
        self.process.terminate(grace);
        self.files.remove(self.wayland.as_deref());
    }

    fn wayland_path(&self) -> PathBuf {
        self.files.folder.join(self.wayland.as_deref().unwrap_or_default())
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
        let text = |path: &Path| path.to_string_lossy().into_owned();
        BTreeMap::from([
            ("XDG_RUNTIME_DIR".to_owned(), text(&self.files.folder)),
            ("XDG_SESSION_TYPE".to_owned(), "wayland".to_owned()),
            ("XDG_CURRENT_DESKTOP".to_owned(), "sway".to_owned()),
            ("SWAYSOCK".to_owned(), text(&self.files.ipc)),
            ("WAYLAND_DISPLAY".to_owned(), self.wayland.clone().unwrap_or_default()),
        ])
    }

    fn open_capture(&mut self) -> Result<Box<dyn FrameSource>, DisplayError> {
        let source = WlrSource::open(&self.wayland_path()).map_err(|error| DisplayError::Io {
            doing: "opening the capture of sway's output".to_owned(),
            source: io::Error::other(error),
        })?;
        Ok(Box::new(source))
    }

    fn open_input(&mut self) -> Result<Box<dyn InputSink>, DisplayError> {
        let sink = WlrSink::open(&self.wayland_path()).map_err(|error| DisplayError::Io {
            doing: "making input devices in sway".to_owned(),
            source: io::Error::other(error),
        })?;
        Ok(Box::new(sink))
    }

    fn check(&mut self) -> Result<(), DisplayError> {
        if self.process.obituary().is_some() { Err(self.died()) } else { Ok(()) }
    }

    fn close(mut self: Box<Self>, grace: Duration) {
        self.end(grace);
    }
}

impl Drop for SwayOutput {
    fn drop(&mut self) {
        self.end(DROP_GRACE);
    }
}

/// What a session's sway has in its runtime folder.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    config: PathBuf,
    ipc: PathBuf,
}

impl Files {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            config: folder.join("sway.conf"),
            ipc: folder.join("sway.sock"),
        }
    }

    /// A compositor that was killed leaves its sockets; one that exited has removed them.
    fn remove(&self, wayland: Option<&str>) {
        let mut files = vec![self.config.clone(), self.ipc.clone()];
        if let Some(name) = wayland {
            files.push(self.folder.join(name));
            files.push(self.folder.join(format!("{name}.lock")));
        }
        for file in files {
            match fs::remove_file(&file) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "a file of sway stays behind");
                }
            }
        }
    }
}

/// The mode in sway's words. Sway reads the refresh as a 32-bit float and makes millihertz of it by cutting or by
/// rounding, depending on its version; a third of a millihertz on top is right for both.
fn mode_words(mode: Mode) -> String {
    let (hz, millihz) = (mode.refresh_millihz() / 1000, mode.refresh_millihz() % 1000);
    format!("mode --custom {}x{}@{hz}.{millihz:03}3Hz", mode.width(), mode.height())
}

/// The session's folder is ours alone, so the one Wayland socket in it is this sway's.
fn wayland_socket(folder: &Path) -> Option<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("wayland-") && !name.ends_with(".lock"))
        .collect();
    names.sort();
    names.into_iter().next()
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

fn start(reason: String) -> DisplayError {
    DisplayError::Start { backend: NAME, reason }
}

/// Windows with this application id do not take the keyboard when they appear (a click still gives it to them).
pub const NO_FOCUS_APP_ID: &str = "punktfunk-backdrop";

const NAME: &str = "sway";
/// The name wlroots gives to the first headless output.
const OUTPUT: &str = "HEADLESS-1";
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
    fn a_lock_file_is_no_socket() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["wayland-1.lock", "sway.conf"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(wayland_socket(folder.path()), None);
        fs::write(folder.path().join("wayland-1"), "").unwrap();
        assert_eq!(wayland_socket(folder.path()).as_deref(), Some("wayland-1"));
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
