//! What the owner says, in one struct.
//!
//! Values come in layers, each over the one before: defaults in code, `/usr/lib/punktfunk/host.toml` (the image's),
//! what the owner set in the console (the store's), `/etc/punktfunk/host.toml` and `/etc/punktfunk/host.d/*.toml` in the order of their names (the owner's), a file
//! named on the command line, `PUNKTFUNK_SECTION__KEY` in the environment, flags. One table ([`settings`](self)) knows each
//! key, its range and its words in the reference, so that console, files, environment, flags and the reference cannot
//! differ. Where the store lies is a setting too, so that the configuration is loaded twice: without the console's
//! layer, and [`with_stored`] once the store is open.
//!
//! Nothing in a configuration keeps the host from starting. A wrong value is passed over, so that the value of the
//! layer below holds, and told as a [`Problem`] with file, line, what was found and what would be right. An unknown key
//! is only warned of: an older host may meet a newer file.
//!
//! [`ConfigDesk`] is where the console changes its layer. Deliberately absent: writing files. What the product itself
//! decides is in the store.

mod apps;
pub mod art;
mod desk;
mod reference;
mod settings;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::store::{Store, StoreError, StoredApp};

pub use apps::{AppArt, AppConfig, AppDisplay, MAX_APPS};
pub use desk::{ConfigDesk, ConfigError, Held, NotOffered, SettingKind, SettingView};
pub use reference::{in_force, reference};
pub use settings::TakesEffect;
pub use value::SettingValue;

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The most files of a `host.d` folder that are read.
const MAX_DROP_INS: usize = 64;
/// As many problems are told; a file that is something else altogether has thousands, which tell no more.
const MAX_PROBLEMS: usize = 100;

/// The whole configuration. [`Config::default`] is what holds if nobody says anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name that clients show; not empty, at most 63 bytes.
    pub name: String,
    /// Where the host listens.
    pub listen: ListenConfig,
    /// The console's door.
    pub console: ConsoleConfig,
    /// The machine is a punktfunk box, which has no other face than the console.
    pub appliance: bool,
    /// The GameStream protocol.
    pub gamestream: GamestreamConfig,
    /// Announce the host over mDNS.
    pub discovery: bool,
    /// Which of the built-in apps are offered.
    pub built_in: BuiltInApps,
    /// The owner's own apps.
    pub apps: Vec<AppConfig>,
    /// Where the host keeps its state; see [`default_state_folder`] if nobody says.
    pub state_folder: Option<PathBuf>,
    /// The user, beside root and the daemon's own, who may use the management socket.
    pub owner_uid: Option<u32>,
    /// Under whom sessions run.
    pub sessions: SessionsConfig,
    /// Who starts them.
    pub launcher: LauncherConfig,
    /// Limits.
    pub limits: LimitsConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// Where the host listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// The address; `::` takes every address, IPv4 too.
    pub address: IpAddr,
}

/// The console's door.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// The HTTPS port; see [`Config::console_port`] if nobody says.
    pub port: Option<u16>,
    /// Names and addresses by which it may be asked, beside its own; in small letters.
    pub hosts: Vec<String>,
}

impl Config {
    /// The HTTPS port of the console: several hosts on one machine, which differ in GameStream's, differ in this too.
    pub fn console_port(&self) -> u16 {
        self.console.port.unwrap_or(self.gamestream.port + 1)
    }
}

/// The GameStream protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GamestreamConfig {
    /// The HTTP port, from which all others follow.
    // spec: gamestream 1.2
    pub port: u16,
    /// Encryption of video and sound; the control stream is always encrypted.
    pub encryption: Encryption,
    /// Parity per data of a video block, in percent.
    pub fec_percent: u8,
}

impl GamestreamConfig {
    /// All of them.
    pub const fn ports(&self) -> [u16; 6] {
        [
            self.https_port(),
            self.port,
            self.video_port(),
            self.control_port(),
            self.audio_port(),
            self.rtsp_port(),
        ]
    }

    /// HTTPS, TCP.
    pub const fn https_port(&self) -> u16 {
        self.port - 5
    }

    /// Video, UDP.
    pub const fn video_port(&self) -> u16 {
        self.port + 9
    }

    /// Control, UDP.
    pub const fn control_port(&self) -> u16 {
        self.port + 10
    }

    /// Audio, UDP.
    pub const fn audio_port(&self) -> u16 {
        self.port + 11
    }

    /// RTSP, TCP.
    pub const fn rtsp_port(&self) -> u16 {
        self.port + 21
    }
}

/// Whether video and sound are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Never.
    Off,
    /// If the client wants it.
    Offer,
    /// Always; clients that cannot are refused.
    Require,
}

/// Which of the built-in apps are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltInApps {
    /// "Test card".
    pub test_card: bool,
    /// "Desktop".
    pub desktop: bool,
}

/// Under whom sessions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionsConfig {
    /// Whether their programs are kept from what the host may read.
    pub isolation: Isolation,
}

/// Whether programs of sessions run under users of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Where there is a launcher.
    Auto,
    /// Always; without a launcher no session starts that has programs.
    Required,
}

/// Who starts sessions under users of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LauncherConfig {
    /// Where it listens, an absolute path.
    pub socket: PathBuf,
}

/// Limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// As many sessions at once.
    pub sessions: usize,
    /// The highest video bitrate of a stream, in kbit/s.
    pub bitrate_kbps: u32,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A filter of `tracing`: `info`, or `info,punktfunk_host::pairing=debug`.
    pub filter: String,
    /// One JSON object per line instead of text.
    pub json: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "punktfunk".to_owned(),
            listen: ListenConfig { address: Ipv6Addr::UNSPECIFIED.into() },
            console: ConsoleConfig::default(),
            appliance: false,
            gamestream: GamestreamConfig {
                port: 47_989,
                encryption: Encryption::Offer,
                fec_percent: 20,
            },
            discovery: true,
            built_in: BuiltInApps { test_card: true, desktop: true },
            apps: Vec::new(),
            state_folder: None,
            owner_uid: None,
            sessions: SessionsConfig { isolation: Isolation::Auto },
            launcher: LauncherConfig { socket: "/run/punktfunk-sessions/launcher.sock".into() },
            limits: LimitsConfig { sessions: 4, bitrate_kbps: 150_000 },
            log: LogConfig { filter: "info".to_owned(), json: false },
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// The line, from 1; 0 for the file as a whole.
        line: usize,
    },
    /// A variable of the environment.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The command line.
    Flag {
        /// The setting's key.
        key: String,
    },
    /// The file that comes with the image, which the console is above.
    Image {
        /// Which.
        path: PathBuf,
        /// The line, from 1; 0 for the file as a whole.
        line: usize,
    },
    /// The owner, in the console.
    Console,
}

impl Origin {
    /// The console cannot change what is said here: it is above the console.
    pub const fn is_fixed(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Environment { .. } | Self::Flag { .. })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0 } | Self::Image { path, line: 0 } => path.display().fmt(f),
            Self::File { path, line } | Self::Image { path, line } => {
                write!(f, "{}:{line}", path.display())
            }
            Self::Environment { variable } => write!(f, "${variable}"),
            Self::Flag { key } => write!(f, "the command line ({key})"),
            Self::Console => f.write_str("set in the console"),
        }
    }
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It may be meant for another version.
    Warning,
    /// What the owner asked for does not hold.
    Error,
}

/// Something in the configuration that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// How bad.
    pub severity: Severity,
    /// What was found and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// Where the layers are.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The image's file; passed over if it is not there.
    pub image: Option<PathBuf>,
    /// What was set in the console; see [`with_stored`].
    pub stored: Stored,
    /// The owner's files, the weakest first; one that is not there is passed over.
    pub files: Vec<PathBuf>,
    /// A folder whose `*.toml` come after the files, in the order of their names.
    pub drop_ins: Option<PathBuf>,
    /// A file that was named on the command line, and so must be there.
    pub named_file: Option<PathBuf>,
    /// The environment. Only names that begin with `PUNKTFUNK_` and hold `__`, or are those of a setting outside any
    /// section, are looked at: others (`PUNKTFUNK_SOCKET`) are not settings.
    pub environment: Vec<(String, String)>,
    /// Keys as in the reference, with values as in the environment.
    pub flags: Vec<(String, String)>,
    /// What the host is called if nobody says.
    pub machine_name: Option<String>,
}

impl Layers {
    /// The layers of this machine.
    pub fn of_machine(named_file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        // Names and values that are not UTF-8 cannot be ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            image: Some("/usr/lib/punktfunk/host.toml".into()),
            stored: Stored::default(),
            files: vec!["/etc/punktfunk/host.toml".into()],
            drop_ins: Some("/etc/punktfunk/host.d".into()),
            named_file,
            environment,
            flags,
            machine_name: std::fs::read_to_string("/proc/sys/kernel/hostname").ok(),
        }
    }
}

/// What was set in the console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Keys, with values in JSON.
    pub settings: Vec<(String, String)>,
    /// Apps.
    pub apps: Vec<StoredApp>,
}

impl Stored {
    fn read(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { settings: store.settings()?, apps: store.apps()? })
    }
}

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration that holds.
    pub config: Config,
    /// What was passed over, in the order of the layers.
    pub problems: Vec<Problem>,
    /// Where each setting that is not at its default was set.
    pub origins: BTreeMap<&'static str, Origin>,
    /// Where each app of [`Config::apps`] was said.
    pub app_origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// What the console set and holds: keys, with values in JSON.
    pub fn set_in_console(&self) -> Vec<(&'static str, String)> {
        let of_console =
            |setting: &&settings::Setting| self.origins.get(setting.key) == Some(&Origin::Console);
        let set = settings::SETTINGS.iter().filter(of_console);
        set.filter_map(|setting| {
            let value = (setting.get)(&self.config)?;
            Some((setting.key, serde_json::to_string(&value).ok()?))
        })
        .collect()
    }
}

/// Loads the configuration with what was set in the console. A store that cannot be read is a problem of its own, and
/// nothing is set.
pub fn with_stored(layers: &Layers, store: &Store) -> Loaded {
    match Stored::read(store) {
        Ok(stored) => load(&Layers { stored, ..layers.clone() }),
        Err(error) => {
            let mut loaded = load(layers);
            loaded.problems.push(Problem {
                origin: Origin::Console,
                severity: Severity::Error,
                text: format!("what the console set cannot be read and does not hold: {error}"),
            });
            loaded
        }
    }
}

/// Loads the configuration. Always gives one; the problems say where it is not what the owner asked for.
pub fn load(layers: &Layers) -> Loaded {
    let mut loading = Loading {
        loaded: Loaded {
            config: Config::default(),
            problems: Vec::new(),
            origins: BTreeMap::new(),
            app_origins: BTreeMap::new(),
        },
    };
    if let Some(name) = layers.machine_name.as_deref().and_then(settings::host_name) {
        loading.loaded.config.name = name;
    }
    if let Some(image) = &layers.image {
        loading.file(image, false, &|path, line| Origin::Image { path, line });
    }
    loading.stored(&layers.stored);
    let of_owner = |path, line| Origin::File { path, line };
    for file in &layers.files {
        loading.file(file, false, &of_owner);
    }
    for file in layers.drop_ins.as_deref().map(drop_ins).unwrap_or_default() {
        loading.file(&file, false, &of_owner);
    }
    if let Some(file) = &layers.named_file {
        loading.file(file, true, &of_owner);
    }
    for (variable, value) in &layers.environment {
        loading.variable(variable, value);
    }
    for (key, value) in &layers.flags {
        loading.put_text(key, value, Origin::Flag { key: key.clone() });
    }
    loading.loaded
}

/// Where the host keeps its state if nobody says: systemd's `$STATE_DIRECTORY`; the system's folder if it is this
/// user's; else the user's own state folder.
pub fn default_state_folder() -> Option<PathBuf> {
    let path = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(folder) = path("STATE_DIRECTORY") {
        return Some(folder);
    }
    let system = Path::new("/var/lib/punktfunk");
    let uid = rustix::process::geteuid().as_raw();
    let own = system.join("host");
    // On a box the folder above it is root's.
    let is_ours = |folder: &Path| std::fs::metadata(folder).is_ok_and(|folder| folder.uid() == uid);
    if uid == 0 || is_ours(system) || is_ours(&own) {
        return Some(own);
    }
    path("XDG_STATE_HOME")
        .or_else(|| path("HOME").map(|home| home.join(".local/state")))
        .map(|folder| folder.join("punktfunk"))
}

/// The drop-in files, sorted. A folder that is not there has none.
fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files.truncate(MAX_DROP_INS);
    files
}

struct Loading {
    loaded: Loaded,
}

impl Loading {
    fn file(&mut self, path: &Path, must_exist: bool, origin: &dyn Fn(PathBuf, usize) -> Origin) {
        let at = |line| origin(path.to_owned(), line);
        let whole = at(0);
        match read_bounded(path) {
            Ok(text) => self.text(&text, &at),
            Err(error) if error.kind() == ErrorKind::NotFound && !must_exist => {}
            Err(error) => self.error(whole, format!("cannot be read: {error}")),
        }
    }

    fn text(&mut self, text: &str, origin: &dyn Fn(usize) -> Origin) {
        let at = |span: Option<std::ops::Range<usize>>| {
            origin(span.map_or(0, |span| line_of(text, span.start)))
        };
        match DeTable::parse(text) {
            Ok(table) => self.table("", table.get_ref(), &|start| at(Some(start..start))),
            Err(error) => self.error(
                at(error.span()),
                format!("the file is not TOML and is passed over: {}", error.message()),
            ),
        }
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) {
        // In the order of the file, not of the alphabet: problems are read beside it.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (name, value) in entries {
            let key = join(prefix, name.get_ref());
            let origin = at(name.span().start);
            if key == "app" {
                self.apps(value, at);
            } else if let Some(setting) = settings::find(&key) {
                self.put(setting, value::Value::from_toml(value.get_ref()), origin);
            } else if let (DeValue::Table(inner), true) =
                (value.get_ref(), settings::is_section(&key))
            {
                self.table(&key, inner, at);
            } else {
                self.unknown(&key, origin);
            }
        }
    }

    fn apps(&mut self, value: &Spanned<DeValue<'_>>, at: &dyn Fn(usize) -> Origin) {
        let DeValue::Array(list) = value.get_ref() else {
            return self.error(
                at(value.span().start),
                "`app` is to be a list of tables, each begun with [[app]]".to_owned(),
            );
        };
        for entry in list {
            let origin = at(entry.span().start);
            let app = match apps::parse(entry.get_ref(), &mut |key, start| {
                self.unknown(&format!("app.{key}"), at(start));
            }) {
                Ok(app) => app,
                Err(text) => {
                    self.error(origin, text);
                    continue;
                }
            };
            self.app(app, origin);
        }
    }

    fn app(&mut self, app: AppConfig, origin: Origin) {
        let apps = &mut self.loaded.config.apps;
        let title = app.title.clone();
        match apps.iter().position(|known| known.title == app.title) {
            Some(index) => apps[index] = app,
            None if apps.len() < MAX_APPS => apps.push(app),
            None => return self.error(origin, format!("there are more than {MAX_APPS} apps")),
        }
        self.loaded.app_origins.insert(title, origin);
    }

    fn stored(&mut self, stored: &Stored) {
        for (key, value) in &stored.settings {
            match settings::find(key) {
                // A host of another version may have let the console set it.
                Some(setting) if !setting.settable => self.error(
                    Origin::Console,
                    format!("`{key}` cannot be set in the console and is passed over"),
                ),
                Some(setting) => {
                    self.put(setting, value::Value::from_stored(value), Origin::Console);
                }
                None => self.unknown(key, Origin::Console),
            }
        }
        for app in &stored.apps {
            match apps::from_stored(app) {
                Ok(app) => self.app(app, Origin::Console),
                Err(text) => self.error(Origin::Console, text),
            }
        }
    }

    fn variable(&mut self, variable: &str, value: &str) {
        let Some(name) = variable.strip_prefix("PUNKTFUNK_") else { return };
        let key = name.to_ascii_lowercase().replace("__", ".");
        if !name.contains("__") && settings::find(&key).is_none() {
            return;
        }
        self.put_text(&key, value, Origin::Environment { variable: variable.to_owned() });
    }

    fn put_text(&mut self, key: &str, value: &str, origin: Origin) {
        match settings::find(key) {
            Some(setting) => self.put(setting, value::Value::Untyped(value.to_owned()), origin),
            None => self.unknown(key, origin),
        }
    }

    fn put(&mut self, setting: &'static settings::Setting, value: value::Value, origin: Origin) {
        let got = value.to_string();
        if setting.put(&mut self.loaded.config, value) {
            self.loaded.origins.insert(setting.key, origin);
        } else {
            let text = format!("`{}` is {got}; it is to be {}", setting.key, setting.range());
            self.error(origin, text);
        }
    }

    fn unknown(&mut self, key: &str, origin: Origin) {
        let text = format!("`{}` is not a setting of this version", printable(key));
        self.problem(Problem { origin, severity: Severity::Warning, text });
    }

    fn error(&mut self, origin: Origin, text: String) {
        self.problem(Problem { origin, severity: Severity::Error, text });
    }

    fn problem(&mut self, problem: Problem) {
        let problems = &mut self.loaded.problems;
        match problems.len() {
            ..MAX_PROBLEMS => problems.push(problem),
            MAX_PROBLEMS => problems.push(Problem {
                text: "there are more problems, which are not told; mend these first".to_owned(),
                ..problem
            }),
            _ => {}
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it has more than {MAX_FILE_BYTES} bytes"),
        ));
    }
    Ok(text)
}

fn line_of(text: &str, offset: usize) -> usize {
    let offset = offset.min(text.len());
    1 + text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// What is quoted from a file is short and cannot move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
