//! The contract of every display backend, run on the test card and on sway.
//!
//! Tests with sway need the programs `sway` and `foot`, and a user that is not root (sway refuses root).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says by panicking that something is wrong"
)]

mod agents;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use punktfunk_core::input::{InputEvent, KeyCode, PointerButton, ScrollAxis};
use punktfunk_core::media::{Mode, SourceIndex};
use punktfunk_host::agent::{Agent, AgentStarter, ProfileNumber};
use punktfunk_host::capture::pattern::Behaviour;
use punktfunk_host::capture::testcard::read_code;
use punktfunk_host::capture::{CaptureError, CapturedFrame, FrameSource};
use punktfunk_host::clock;
use punktfunk_host::display::pattern::PatternBackend;
use punktfunk_host::display::sway::{NO_FOCUS_APP_ID, SwayBackend, SwayOptions};
use punktfunk_host::display::{DisplayBackend, DisplayError, OutputSpec, VirtualOutput};
use punktfunk_host::input::{InputError, InputSink};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

#[test]
fn the_pattern_backend_keeps_the_contract() {
    let backend = PatternBackend::default();
    check_backend(&backend, &|_| {
        backend.newest_stage().unwrap().set_behaviour(Behaviour::Dead);
    });
}

#[test]
#[ignore = "needs sway and an unprivileged user"]
fn the_sway_backend_keeps_the_contract() {
    check_backend(&SwayBackend::default(), &|folder| {
        let sway = processes(folder).into_iter().find(|(_, name)| name == "sway").unwrap().0;
        kill_process(sway, Signal::KILL).unwrap();
    });
}

#[test]
fn the_card_read_through_the_traits_counts_without_gaps() {
    let backend = PatternBackend::default();
    let spec = Room::of(&backend).spec(mode(1280, 720, 59_940));
    let mut output = backend.open(&spec).unwrap();
    let mut source = output.open_capture().unwrap();
    for index in 0..30 {
        let frame = next(source.as_mut());
        let code = read_code(frame.pixels.bytes(), frame.width, frame.height, frame.stride);
        let code = code.unwrap_or_else(|| panic!("frame {index} has no code"));
        assert_eq!((code.frame, code.time), (index, frame.captured_at));
    }
}

#[test]
#[ignore = "needs sway and an unprivileged user"]
fn a_static_desktop_delivers_nothing_after_its_first_pictures() {
    let room = Room::of(&SwayBackend::default());
    let mut output = open_sway(&room, mode(640, 360, 60_000));
    let mut source = output.open_capture().unwrap();
    assert_eq!(next(source.as_mut()).index, SourceIndex(0));
    // The background may appear a moment after the compositor is ready; then the screen rests.
    let rests = (0..20).any(|_| source.next_frame(Duration::from_millis(500)).unwrap().is_none());
    assert!(rests);
    // A new source has its first picture at once all the same.
    assert_eq!(next(output.open_capture().unwrap().as_mut()).index, SourceIndex(0));
}

#[test]
#[ignore = "needs sway, foot and an unprivileged user"]
fn keys_and_text_reach_a_program_in_sway() {
    // spec: gamestream 13 item 90
    let room = Room::of(&SwayBackend::default());
    let mut output = open_sway(&room, mode(1280, 720, 60_000));
    let mut input = output.open_input().unwrap();
    let script = "read -r line; printf %s \"$line\" > \"$SEEN.part\"; mv \"$SEEN.part\" \"$SEEN\"";
    let (home, mut foot) = start_foot(output.as_ref(), &[], script);
    wait_for_window(output.as_mut());
    // A backdrop that appears later must not take the keyboard away.
    let app_id = format!("--app-id={NO_FOCUS_APP_ID}");
    let (_home, mut backdrop) = start_foot(output.as_ref(), &[&app_id], "read -r line");
    wait_for_app(output.as_ref(), NO_FOCUS_APP_ID);

    let (shift, h, i, q, enter) = (KeyCode(42), KeyCode(35), KeyCode(23), KeyCode(16), KeyCode(28));
    press(input.as_mut(), shift, true);
    tap(input.as_mut(), h);
    press(input.as_mut(), shift, false);
    tap(input.as_mut(), i);
    // A key between two texts must find its own layout again.
    type_text(input.as_mut(), "aß€");
    tap(input.as_mut(), q);
    type_text(input.as_mut(), "🎮 ü~");
    tap(input.as_mut(), enter);
    assert_eq!(wait_for_seen(home.path(), &mut foot), "Hiaß€q🎮 ü~");
    drop(input);
    output.close(Duration::from_secs(2));
    foot.wait().unwrap();
    backdrop.wait().unwrap();
}

#[test]
#[ignore = "needs sway, foot and an unprivileged user"]
fn pointer_buttons_and_wheel_reach_a_program_in_sway() {
    // spec: gamestream 13 item 88
    // spec: gamestream 13 item 89
    let room = Room::of(&SwayBackend::default());
    let mut output = open_sway(&room, mode(1280, 720, 60_000));
    let mut input = output.open_input().unwrap();
    // Mouse reports, in pixels, until a `q` is typed. The answer to the last request, which ends with a `c`, says that
    // the terminal has understood the others.
    let script = "stty raw -echo; printf '\\033[?1003h\\033[?1006h\\033[?1016h\\033[c'; \
        next() { dd bs=1 count=1 2>/dev/null; }; \
        while [ \"$(next)\" != c ]; do :; done; : > \"$SEEN.part\"; \
        while c=$(next) && [ \"$c\" != q ]; do printf %s \"$c\" >> \"$SEEN.part\"; done; \
        mv \"$SEEN.part\" \"$SEEN\"";
    // Cells of 8x15 pixels fill the screen exactly; foot reports nothing from a margin.
    let options =
        ["--fullscreen", "--override=font=monospace:pixelsize=13", "--override=line-height=15px"];
    let (home, mut foot) = start_foot(output.as_ref(), &options, script);
    wait_for_window(output.as_mut());
    wait_for_file(&home.path().join("seen.part"), &mut foot);

    let mut apply = |event| input.apply(&event).unwrap();
    for place in [0.5, 0.0, 1.0, 0.25] {
        apply(InputEvent::PointerPosition { x: place, y: place });
    }
    for pressed in [true, false] {
        apply(InputEvent::Button { button: PointerButton::Left, pressed });
    }
    apply(InputEvent::PointerMotion { dx: 10, dy: -5 });
    for v120 in [120, 30, 30, 30, 30, -120] {
        apply(InputEvent::Scroll { axis: ScrollAxis::Vertical, v120 });
    }
    tap(input.as_mut(), KeyCode(16));
    // Reports count pixels from 1. 35 is motion, 0 the left button, 64 and 65 the wheel up and down; foot scrolls
    // three lines for a detent, and a line for five of the fifteen units of its distance.
    let reports = wait_for_seen(home.path(), &mut foot);
    let up = "[<64;331;176M ".repeat(6);
    let down = "[<65;331;176M ".repeat(3);
    let expected = format!(
        "[<35;641;361M [<35;1;1M [<35;1280;720M [<35;321;181M [<0;321;181M [<0;321;181m [<35;331;176M {up}{down}"
    );
    assert_eq!(reports.replace('\u{1b}', " ").trim(), expected.trim());
    drop(input);
    output.close(Duration::from_secs(2));
    foot.wait().unwrap();
}

#[test]
#[ignore = "needs sway and an unprivileged user"]
fn a_host_that_is_killed_leaves_no_sway() {
    const FOLDER: &str = "PUNKTFUNK_TEST_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        // This is the host: it opens an output and waits for its end.
        let folder = PathBuf::from(folder);
        let agent = Some(start_agent(&folder));
        let spec = OutputSpec { mode: mode(640, 360, 60_000), agent };
        let _output = SwayBackend::default().open(&spec).unwrap();
        std::fs::write(folder.join("ready"), "").unwrap();
        loop {
            std::thread::park();
        }
    }
    let folder = private_folder();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--include-ignored", "--exact", "a_host_that_is_killed_leaves_no_sway"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !folder.path().join("ready").exists() {
        assert!(host.try_wait().unwrap().is_none() && Instant::now() < deadline, "no sway came up");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert!(!processes(folder.path()).is_empty());
    host.kill().unwrap();
    host.wait().unwrap();
    while !processes(folder.path()).is_empty() {
        assert!(Instant::now() < deadline, "{:?} still run", processes(folder.path()));
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let sessions = folder.path().join("sessions");
    while std::fs::read_dir(&sessions).is_ok_and(|mut left| left.next().is_some()) {
        assert!(Instant::now() < deadline, "the session's folder is left");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs sway and an unprivileged user"]
fn a_sway_that_hangs_is_noticed() {
    let patience = Duration::from_secs(3);
    let backend =
        SwayBackend::new(SwayOptions { hang_patience: patience, ..SwayOptions::default() });
    let room = Room::of(&backend);
    let mut output = backend.open(&room.spec(mode(640, 360, 60_000))).unwrap();
    output.check().unwrap();
    let sway = processes(&room.run()).into_iter().find(|(_, name)| name == "sway").unwrap().0;
    kill_process(sway, Signal::STOP).unwrap();
    let deadline = Instant::now() + 3 * PATIENCE;
    let error = loop {
        match output.check() {
            Ok(()) => assert!(Instant::now() < deadline, "the output does not notice"),
            Err(error) => break error,
        }
        std::thread::park_timeout(Duration::from_millis(50));
    };
    assert!(error.to_string().contains("does not answer for 3 s"), "{error}");
    output.close(Duration::ZERO);
    room.leave();
}

/// What every backend must do. `kill` kills the compositor of a session folder from outside.
fn check_backend(backend: &dyn DisplayBackend, kill: &dyn Fn(&Path)) {
    assert!(!backend.probe().unwrap().detail.is_empty());
    check_pictures_and_modes(backend);
    check_death(backend, kill);
    check_drop(backend);
}

fn check_pictures_and_modes(backend: &dyn DisplayBackend) {
    let room = Room::of(backend);
    let first = mode(1280, 720, 60_000);
    let mut output = backend.open(&room.spec(first)).unwrap();
    assert_eq!(output.mode(), first);
    let mut input = output.open_input().unwrap();
    let mut source = output.open_capture().unwrap();
    let frame = next(source.as_mut());
    assert_eq!(frame.index, SourceIndex(0));
    assert!(frame.captured_at <= clock::now());
    assert_picture(&frame, first);

    // 59.94 Hz, phones with odd sides, larger and smaller, and back.
    for (width, height, refresh_millihz) in [
        (1280, 720, 59_940),
        (1125, 2436, 60_000),
        (2339, 1079, 119_880),
        (1920, 1080, 60_000),
        (640, 360, 30_000),
        (1280, 720, 60_000),
    ] {
        let wanted = mode(width, height, refresh_millihz);
        output.set_mode(wanted).unwrap();
        assert_eq!(output.mode(), wanted);
        assert_picture(&until_size(source.as_mut(), wanted), wanted);
        output.check().unwrap();
        // A second source works beside the first, and starts at once.
        assert_picture(&next(output.open_capture().unwrap().as_mut()), wanted);
    }
    for event in one_of_each() {
        input.apply(&event).unwrap();
    }
    input.release_all().unwrap();
    drop((input, source));
    let mut again = output.open_input().unwrap();
    again.apply(&InputEvent::PointerPosition { x: 1.0, y: 1.0 }).unwrap();
    output.close(Duration::from_secs(2));
    room.leave();
}

fn check_death(backend: &dyn DisplayBackend, kill: &dyn Fn(&Path)) {
    let room = Room::of(backend);
    let mut output = backend.open(&room.spec(mode(640, 360, 60_000))).unwrap();
    let mut source = output.open_capture().unwrap();
    let mut input = output.open_input().unwrap();
    next(source.as_mut());
    kill(&room.run());
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        match source.next_frame(Duration::from_millis(100)) {
            Ok(_) => assert!(Instant::now() < deadline, "the source does not notice"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CaptureError::Lost { .. }), "{error:?}");
    let died = loop {
        match output.check() {
            Ok(()) => assert!(Instant::now() < deadline, "the output does not notice"),
            Err(error) => break error,
        }
    };
    assert!(matches!(died, DisplayError::Died { .. }), "{died:?}");
    let lost = input.apply(&InputEvent::PointerPosition { x: 0.0, y: 0.0 });
    assert!(matches!(lost, Err(InputError::Lost { .. })), "{lost:?}");
    assert!(output.set_mode(mode(1280, 720, 60_000)).is_err());
    drop(output);
    room.leave();
}

fn check_drop(backend: &dyn DisplayBackend) {
    let room = Room::of(backend);
    let mut output = backend.open(&room.spec(mode(640, 360, 60_000))).unwrap();
    let mut source = output.open_capture().unwrap();
    drop(output);
    let deadline = Instant::now() + PATIENCE;
    while source.next_frame(Duration::from_millis(100)).is_ok() {
        assert!(Instant::now() < deadline, "a closed output still delivers");
    }
    room.leave();
}

fn one_of_each() -> Vec<InputEvent> {
    vec![
        InputEvent::PointerPosition { x: 0.5, y: 0.5 },
        InputEvent::PointerMotion { dx: 3, dy: -4 },
        InputEvent::Button { button: PointerButton::Right, pressed: true },
        InputEvent::Scroll { axis: ScrollAxis::Vertical, v120: -30 },
        InputEvent::Scroll { axis: ScrollAxis::Horizontal, v120: 240 },
        InputEvent::Key { key: KeyCode(30), pressed: true },
        InputEvent::Text('€'),
    ]
}

fn assert_picture(frame: &CapturedFrame, mode: Mode) {
    assert_eq!((frame.width, frame.height), (mode.width(), mode.height()));
    assert!(frame.stride >= frame.width as usize * 4);
    assert!(frame.pixels.bytes().len() >= frame.stride * frame.height as usize);
    for rect in &frame.damage {
        assert!(rect.x + rect.width <= frame.width && rect.y + rect.height <= frame.height);
    }
}

fn next(source: &mut dyn FrameSource) -> CapturedFrame {
    source.next_frame(PATIENCE).unwrap().expect("no picture came")
}

/// The first picture of this mode's size; a few of the old size may still come.
fn until_size(source: &mut dyn FrameSource, mode: Mode) -> CapturedFrame {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frame = next(source);
        if (frame.width, frame.height) == (mode.width(), mode.height()) {
            return frame;
        }
        assert!(Instant::now() < deadline, "still {}x{}", frame.width, frame.height);
    }
}

/// No process, socket or file of the session is left.
fn assert_nothing_left(folder: &Path) {
    let left = processes(folder);
    assert!(left.is_empty(), "{left:?} still run");
    let left: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?} are left");
}

/// The processes whose session's folder is this one or lies in it, with their names. Zombies have no environment and do not count.
fn processes(folder: &Path) -> Vec<(Pid, String)> {
    let mark = format!("XDG_RUNTIME_DIR={}", folder.display()).into_bytes();
    let of_entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let own = environment.windows(mark.len()).any(|window| window == mark);
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        own.then(|| (pid, name.trim().to_owned()))
    };
    std::fs::read_dir("/proc").unwrap().filter_map(of_entry).collect()
}

fn press(input: &mut dyn InputSink, key: KeyCode, pressed: bool) {
    input.apply(&InputEvent::Key { key, pressed }).unwrap();
}

fn tap(input: &mut dyn InputSink, key: KeyCode) {
    press(input, key, true);
    press(input, key, false);
}

fn type_text(input: &mut dyn InputSink, text: &str) {
    for character in text.chars() {
        input.apply(&InputEvent::Text(character)).unwrap();
    }
}

/// A terminal that runs a shell script; `$SEEN` names the file for what the script has seen, in the folder returned.
fn start_foot(output: &dyn VirtualOutput, options: &[&str], script: &str) -> (TempDir, Child) {
    let home = private_folder();
    let foot = Command::new("foot")
        .args(["--config=/dev/null", "--override=pad=0x0", "--log-level=warning"])
        .args(options)
        .args(["sh", "-c", script])
        .envs(output.child_env())
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", home.path())
        .env("SEEN", home.path().join("seen"))
        .stdin(Stdio::null())
        .spawn()
        .expect("foot is not installed");
    (home, foot)
}

/// Waits until a window covers the background in the middle of the screen.
fn wait_for_window(output: &mut dyn VirtualOutput) {
    let mut source = output.open_capture().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(frame) = source.next_frame(Duration::from_millis(100)).unwrap() {
            let middle = frame.stride * frame.height as usize / 2 + frame.width as usize * 2;
            let colour = &frame.pixels.bytes()[middle..middle + 3];
            if colour != BACKGROUND && colour != [0; 3] {
                break;
            }
        }
        assert!(Instant::now() < deadline, "no window appeared");
    }
}

/// Waits until sway shows a window of this application.
fn wait_for_app(output: &dyn VirtualOutput, app_id: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut question = Command::new("swaymsg");
        let tree = question.args(["-t", "get_tree"]).envs(output.child_env()).output().unwrap();
        if String::from_utf8_lossy(&tree.stdout).contains(app_id) {
            break;
        }
        assert!(Instant::now() < deadline, "no window of {app_id} appeared");
    }
}

/// What the script has seen, once it has finished.
fn wait_for_seen(home: &Path, foot: &mut Child) -> String {
    wait_for_file(&home.join("seen"), foot)
}

fn wait_for_file(file: &Path, foot: &mut Child) -> String {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Ok(text) = std::fs::read_to_string(file) {
            return text;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("{} did not appear; foot: {:?}", file.display(), foot.try_wait());
}

fn open_sway(room: &Room, mode: Mode) -> Box<dyn VirtualOutput> {
    SwayBackend::default().open(&room.spec(mode)).unwrap()
}

fn start_agent(folder: &Path) -> Arc<dyn Agent> {
    agents::starter(folder).start(ProfileNumber(0)).unwrap()
}

/// What a session brings for an output.
struct Room {
    folder: TempDir,
    agent: Option<Arc<dyn Agent>>,
}

impl Room {
    fn of(backend: &dyn DisplayBackend) -> Self {
        let folder = private_folder();
        let agent = backend.needs_agent().then(|| start_agent(folder.path()));
        Self { folder, agent }
    }

    fn spec(&self, mode: Mode) -> OutputSpec {
        OutputSpec { mode, agent: self.agent.clone() }
    }

    /// The folder of the session's sockets.
    fn run(&self) -> PathBuf {
        self.agent.as_ref().map_or(self.folder.path(), |agent| agent.runtime_dir()).to_owned()
    }

    /// The output has been closed or dropped: its compositor is gone, and with the agent goes the rest.
    fn leave(self) {
        let left = processes(&self.run());
        assert!(!left.iter().any(|(_, name)| name == "sway"), "{left:?} still run");
        if let Some(agent) = &self.agent {
            agent.end(Duration::ZERO);
        }
        assert_nothing_left(self.folder.path());
    }
}

fn private_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

fn mode(width: u32, height: u32, refresh_millihz: u32) -> Mode {
    Mode::new(width, height, refresh_millihz).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(20);
/// The background that the backend gives to sway, blue first.
const BACKGROUND: [u8; 3] = [0x3B, 0x2B, 0x23];
