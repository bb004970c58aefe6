//! The table of settings: for each its key, its range, its words, and how it enters the [`Config`] and is read from it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::value::{SettingValue, Value};
use super::{Config, Encryption, Isolation};
use crate::store::clean_name;

/// As many names the console answers to beside its own.
const MAX_CONSOLE_HOSTS: usize = 16;

/// A setting.
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Kind,
    /// What its number counts.
    pub(super) unit: Option<&'static str>,
    /// When a change holds.
    pub(super) takes_effect: TakesEffect,
    /// Whether the console may set it: not what is needed before the store is open (where it lies, what is logged), nor
    /// what decides who is trusted.
    pub(super) settable: bool,
    /// Its default in words, if that depends on the machine.
    pub(super) default: Option<&'static str>,
    /// Its value; `None` if there is none.
    pub(super) get: fn(&Config) -> Option<SettingValue>,
}

/// When a change of a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesEffect {
    /// At once.
    Now,
    /// With the next stream; those that run keep what they began with.
    NextSession,
    /// When the host starts again.
    Restart,
}

pub(super) enum Kind {
    Text { range: &'static str, set: fn(&mut Config, String) -> bool },
    Integer { range: RangeInclusive<i64>, set: fn(&mut Config, i64) },
    Boolean { set: fn(&mut Config, bool) },
    Choice { options: &'static [&'static str], set: fn(&mut Config, usize) },
}

impl Setting {
    /// Puts the value into the configuration, if it is one that this setting takes.
    pub(super) fn put(&self, config: &mut Config, value: Value) -> bool {
        match &self.kind {
            Kind::Text { set, .. } => value.text().is_some_and(|text| set(config, text)),
            Kind::Integer { range, set } => match value.integer() {
                Some(number) if range.contains(&number) => {
                    set(config, number);
                    true
                }
                _ => false,
            },
            Kind::Boolean { set } => value.boolean().map(|value| set(config, value)).is_some(),
            Kind::Choice { options, set } => {
                let chosen = value
                    .text()
                    .and_then(|text| options.iter().position(|option| *option == text.trim()));
                chosen.map(|index| set(config, index)).is_some()
            }
        }
    }

    /// What the setting takes, in words.
    pub(super) fn range(&self) -> String {
        match &self.kind {
            Kind::Text { range, .. } => (*range).to_owned(),
            Kind::Integer { range, .. } => {
                format!("a whole number in {}..={}", range.start(), range.end())
            }
            Kind::Boolean { .. } => "true or false".to_owned(),
            Kind::Choice { options, .. } => {
                let quoted: Vec<_> = options.iter().map(|option| format!("\"{option}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
        }
    }

    /// The part of the configuration it belongs to.
    pub(super) fn group(&self) -> &'static str {
        self.key.split_once('.').map_or("general", |(section, _)| section)
    }
}

pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

pub(super) fn is_section(key: &str) -> bool {
    SETTINGS
        .iter()
        .any(|setting| setting.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// A name that can be announced and shown: a DNS label of at most 63 bytes, without characters that hide or reorder
/// others, or that no XML may hold.
pub(super) fn host_name(text: &str) -> Option<String> {
    let text = text.trim();
    let is_fit = (1..=63).contains(&text.len())
        && clean_name(text).as_deref() == Some(text)
        && !text.contains(['\u{fffe}', '\u{ffff}']);
    is_fit.then(|| text.to_owned())
}

fn absolute(text: String) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

/// Names of hosts or addresses, in small letters.
fn host_names(text: &str) -> Option<Vec<String>> {
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    let fits = |name: &String| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        name.parse::<IpAddr>().is_ok()
            || ((1..=253).contains(&name.len()) && name.bytes().all(letters))
    };
    (names.len() <= MAX_CONSOLE_HOSTS && names.iter().all(fits)).then_some(names)
}

fn text(value: impl ToString) -> Option<SettingValue> {
    Some(SettingValue::Text(value.to_string()))
}

fn number(value: impl TryInto<i64>) -> Option<SettingValue> {
    value.try_into().ok().map(SettingValue::Integer)
}

fn boolean(value: bool) -> Option<SettingValue> {
    Some(SettingValue::Boolean(value))
}

/// All settings, in the order of the reference.
pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        key: "name",
        about: "The name that clients show. Without it: the machine's host name.",
        kind: Kind::Text {
            range: "a text of 1 to 63 bytes",
            set: |config, text| host_name(&text).map(|name| config.name = name).is_some(),
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: true,
        default: Some("the machine's host name"),
        get: |config| text(&config.name),
    },
    Setting {
        key: "discovery",
        about: "Announce the host over mDNS, so that clients find it by themselves.",
        kind: Kind::Boolean { set: |config, value| config.discovery = value },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: true,
        default: None,
        get: |config| boolean(config.discovery),
    },
    Setting {
        key: "listen.address",
        about: "The address to listen on. `::` takes every address, IPv4 too.",
        kind: Kind::Text {
            range: "an IP address",
            set: |config, text| text.parse().map(|address| config.listen.address = address).is_ok(),
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: None,
        get: |config| text(config.listen.address),
    },
    Setting {
        key: "console.port",
        about: "The HTTPS port of the console and its API. Without it: the one above `gamestream.port`.",
        kind: Kind::Integer {
            range: 1024..=65_535,
            set: |config, number| config.console.port = u16::try_from(number).ok(),
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: Some("the one above `gamestream.port`"),
        get: |config| config.console.port.and_then(number),
    },
    Setting {
        key: "console.hosts",
        about: "More names and addresses by which browsers reach the console, separated by commas. It \
                answers to its own addresses, `localhost`, the machine's host name, and the host's \
                name and the machine's with `.local`; asked for by any other name it refuses, so \
                that no web page can reach it under a name of its own.",
        kind: Kind::Text {
            range: "host names or IP addresses, separated by commas; 16 at most",
            set: |config, text| {
                host_names(&text).map(|names| config.console.hosts = names).is_some()
            },
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: Some("none"),
        get: |config| {
            let hosts = &config.console.hosts;
            (!hosts.is_empty()).then(|| hosts.join(",")).and_then(text)
        },
    },
    Setting {
        key: "appliance",
        about: "The machine is a punktfunk box: nobody but root may use the local socket, and until it \
                has an owner it can only be claimed. Set by the image.",
        kind: Kind::Boolean { set: |config, value| config.appliance = value },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: None,
        get: |config| boolean(config.appliance),
    },
    Setting {
        key: "gamestream.port",
        about: "The HTTP port of GameStream. The others follow it: HTTPS 5 below; video 9, control \
                10, sound 11 and RTSP 21 above. Some clients only know the default.",
        kind: Kind::Integer {
            range: 1029..=65_514,
            set: |config, number| {
                config.gamestream.port = u16::try_from(number).unwrap_or(config.gamestream.port);
            },
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: None,
        get: |config| number(config.gamestream.port),
    },
    Setting {
        key: "gamestream.encryption",
        about: "Encryption of video and sound: never, if the client wants it, or always (clients \
                that cannot are refused). Input and control are always encrypted.",
        kind: Kind::Choice {
            options: &["off", "offer", "require"],
            set: |config, index| {
                config.gamestream.encryption =
                    [Encryption::Off, Encryption::Offer, Encryption::Require][index];
            },
        },
        unit: None,
        takes_effect: TakesEffect::NextSession,
        settable: true,
        default: None,
        get: |config| {
            text(match config.gamestream.encryption {
                Encryption::Off => "off",
                Encryption::Offer => "offer",
                Encryption::Require => "require",
            })
        },
    },
    Setting {
        key: "gamestream.fec_percent",
        about: "Parity sent per video data, in percent: more survives more loss and costs as much \
                bandwidth.",
        kind: Kind::Integer {
            range: 0..=100,
            set: |config, number| {
                config.gamestream.fec_percent =
                    u8::try_from(number).unwrap_or(config.gamestream.fec_percent);
            },
        },
        unit: Some("percent"),
        takes_effect: TakesEffect::NextSession,
        settable: true,
        default: None,
        get: |config| number(config.gamestream.fec_percent),
    },
    Setting {
        key: "apps.test_card",
        about: "Offer the app \"Test card\". Where nothing else can run it is offered all the same.",
        kind: Kind::Boolean { set: |config, value| config.built_in.test_card = value },
        unit: None,
        takes_effect: TakesEffect::Now,
        settable: true,
        default: None,
        get: |config| boolean(config.built_in.test_card),
    },
    Setting {
        key: "apps.desktop",
        about: "Offer the app \"Desktop\".",
        kind: Kind::Boolean { set: |config, value| config.built_in.desktop = value },
        unit: None,
        takes_effect: TakesEffect::Now,
        settable: true,
        default: None,
        get: |config| boolean(config.built_in.desktop),
    },
    Setting {
        key: "sessions.isolation",
        about: "Whether games and desktops run under users of their own, which cannot read the host's \
                key: where there is a launcher, or always (without a launcher no app that has \
                programs starts).",
        kind: Kind::Choice {
            options: &["auto", "required"],
            set: |config, index| {
                config.sessions.isolation = [Isolation::Auto, Isolation::Required][index];
            },
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: None,
        get: |config| {
            text(match config.sessions.isolation {
                Isolation::Auto => "auto",
                Isolation::Required => "required",
            })
        },
    },
    Setting {
        key: "launcher.socket",
        about: "Where the launcher listens, which starts games and desktops under users of their own.",
        kind: Kind::Text {
            range: "an absolute path",
            set: |config, text| absolute(text).map(|path| config.launcher.socket = path).is_some(),
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: None,
        get: |config| text(config.launcher.socket.display()),
    },
    Setting {
        key: "limits.sessions",
        about: "As many devices may play at once.",
        kind: Kind::Integer {
            range: 1..=16,
            set: |config, number| {
                config.limits.sessions = usize::try_from(number).unwrap_or(config.limits.sessions);
            },
        },
        unit: None,
        takes_effect: TakesEffect::Now,
        settable: true,
        default: None,
        get: |config| number(config.limits.sessions),
    },
    Setting {
        key: "limits.bitrate_kbps",
        about: "The highest video bitrate of a stream, in kbit/s; a client that asks for more gets \
                this.",
        kind: Kind::Integer {
            range: 500..=1_000_000,
            set: |config, number| {
                config.limits.bitrate_kbps =
                    u32::try_from(number).unwrap_or(config.limits.bitrate_kbps);
            },
        },
        unit: Some("kbit/s"),
        takes_effect: TakesEffect::NextSession,
        settable: true,
        default: None,
        get: |config| number(config.limits.bitrate_kbps),
    },
    Setting {
        key: "state.folder",
        about: "Where the host keeps its key and the paired devices; its own, mode 0700. Without it: \
                `$STATE_DIRECTORY`; `/var/lib/punktfunk/host` where that is the host's; else \
                `~/.local/state/punktfunk`.",
        kind: Kind::Text {
            range: "an absolute path",
            set: |config, text| {
                absolute(text).map(|path| config.state_folder = Some(path)).is_some()
            },
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: Some("see above"),
        get: |config| config.state_folder.as_ref().and_then(|folder| text(folder.display())),
    },
    Setting {
        key: "mgmt.owner_uid",
        about: "The user, beside root and the host's own, who may do everything over the local socket, \
                without a password: pair, set, switch the machine, and make a backup, which holds the \
                host's key.",
        kind: Kind::Integer {
            range: 0..=u32::MAX as i64,
            set: |config, number| config.owner_uid = u32::try_from(number).ok(),
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: Some("nobody"),
        get: |config| config.owner_uid.and_then(number),
    },
    Setting {
        key: "log.filter",
        about: "What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels per \
                part, as in `info,punktfunk_host::pairing=debug`.",
        kind: Kind::Text {
            range: "a level, or `target=level` separated by commas",
            set: |config, text| {
                let is_fit = text.len() <= 1024
                    && text.parse::<tracing_subscriber::filter::Targets>().is_ok();
                if is_fit {
                    config.log.filter = text;
                }
                is_fit
            },
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: None,
        get: |config| text(&config.log.filter),
    },
    Setting {
        key: "log.format",
        about: "Text for people, or one JSON object per line.",
        kind: Kind::Choice {
            options: &["text", "json"],
            set: |config, index| config.log.json = index == 1,
        },
        unit: None,
        takes_effect: TakesEffect::Restart,
        settable: false,
        default: None,
        get: |config| text(if config.log.json { "json" } else { "text" }),
    },
];
