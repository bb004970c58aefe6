//! What the owner sends along when asking for help: one archive, made in memory, read before it is sent.
//!
//! Nothing goes in that is a secret, because nothing is collected that has one: no file of the state folder, no key, no
//! settings of apps. Every text passes [`redact`] once more, and a [`Veil`] that takes away who lives here: names that
//! the owner gave to devices and host, names of home folders, and addresses that lead here from outside. Addresses of the
//! home network stay, because without them nobody can tell who spoke to whom.
//!
//! What the veil cannot know is a name that nobody told the host, in the words of a program; the README in the archive
//! says so, and says what is in it.

use std::io;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use super::wire::{LogRecord, StatusReport};
use crate::health::Examined;
use crate::logbook::{Record, redact};
use crate::machine::facts::Facts;
use crate::machine::network::Network;
use crate::machine::storage::Usage;

/// The most that the log takes in the archive, and the most that the troubles do, in bytes; what is older is left out.
const MAX_LOG_BYTES: usize = 3 * 1024 * 1024;
const MAX_TROUBLE_BYTES: usize = 512 * 1024;
/// The longest other file, in bytes.
const MAX_FILE_BYTES: usize = 256 * 1024;
/// The folder in the archive.
const FOLDER: &str = "punktfunk-support";
/// Shorter names are parts of words; striking them would leave nothing to read.
const MIN_NAME_BYTES: usize = 3;

/// What goes in.
pub(super) struct Contents {
    /// How the host is doing, or why it cannot be asked.
    pub(super) status: Result<StatusReport, String>,
    /// What the doctor found last.
    pub(super) findings: Vec<Examined>,
    /// The settings as they hold.
    pub(super) settings: String,
    /// The newest records.
    pub(super) log: Vec<Record>,
    /// The newest warnings and errors.
    pub(super) troubles: Vec<Record>,
    pub(super) facts: Facts,
    pub(super) network: Network,
    pub(super) storage: Vec<Usage>,
    /// What the host is called, and the machine.
    pub(super) host_names: Vec<String>,
    /// What the owner called devices.
    pub(super) device_names: Vec<String>,
}

/// Packs it.
///
/// # Errors
/// A bug: writing to memory does not fail.
pub(super) fn pack(contents: &Contents) -> io::Result<Vec<u8>> {
    let veil = Veil::new(contents);
    let mut archive = tar::Builder::new(Vec::new());
    let newest = contents.log.last().map_or(0, |record| record.at_ms / 1000);
    let mut add = |name: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(newest);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())
    };
    add("README.txt", README)?;
    let (status, problems) = match &contents.status {
        Ok(status) => (veil.json(status)?, status.problems.join("\n")),
        Err(reason) => ("{}\n".to_owned(), format!("the host cannot be asked: {reason}")),
    };
    add("version.txt", concat!(env!("CARGO_PKG_VERSION"), "\n"))?;
    add("status.json", &status)?;
    add("problems.txt", &veil.text(&problems))?;
    add("doctor.json", &veil.json(&contents.findings)?)?;
    add("settings.txt", &veil.text(&contents.settings))?;
    add("machine.json", &veil.json(&contents.facts)?)?;
    add("network.txt", &veil.text(&network(&contents.network)))?;
    add("storage.txt", &veil.text(&storage(&contents.storage)))?;
    add("log.jsonl", &veil.records(&contents.log, MAX_LOG_BYTES)?)?;
    add("errors.jsonl", &veil.records(&contents.troubles, MAX_TROUBLE_BYTES)?)?;
    archive.into_inner()
}

fn network(network: &Network) -> String {
    let interfaces = network.interfaces.iter().map(|one| {
        let speed = one.speed_mbps.map_or(String::new(), |speed| format!(", {speed} Mbit/s"));
        let addresses: Vec<String> = one.addresses.iter().map(IpAddr::to_string).collect();
        format!("{}: {}{speed} {}\n", one.name, one.sentence(), addresses.join(" "))
    });
    let routes = network.routes.iter().map(|route| {
        let gateway = route.gateway.map_or("nobody".to_owned(), |gateway| gateway.to_string());
        format!("out over {} through {gateway}\n", route.interface)
    });
    interfaces.chain(routes).collect()
}

fn storage(usages: &[Usage]) -> String {
    let line = |usage: &Usage| {
        let own = usage.own.map_or(String::new(), |own| format!(", {} in it", own.bytes));
        format!(
            "{}: {:?}, {} of {} bytes free{own}\n",
            usage.folder.path.display(),
            usage.room,
            usage.free_bytes,
            usage.total_bytes
        )
    };
    usages.iter().map(line).collect()
}

/// Takes away who lives here.
struct Veil {
    /// What the owner called things, the longest first, and what stands for it.
    names: Vec<(String, String)>,
}

impl Veil {
    fn new(contents: &Contents) -> Self {
        let numbered =
            |(index, name): (usize, &String)| (name.clone(), format!("[device {}]", index + 1));
        let mut names: Vec<_> = contents.device_names.iter().enumerate().map(numbered).collect();
        names.extend(contents.host_names.iter().map(|name| (name.clone(), "[host]".to_owned())));
        names.retain(|(name, _)| name.len() >= MIN_NAME_BYTES);
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { names }
    }

    fn text(&self, text: &str) -> String {
        let mut text = redact(text);
        for (name, instead) in &self.names {
            if text.contains(name.as_str()) {
                text = text.replace(name.as_str(), instead);
            }
        }
        let mut text = addresses(&homes(&text));
        if text.len() > MAX_FILE_BYTES {
            let end = (0..=MAX_FILE_BYTES).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
        }
        text
    }

    fn json(&self, value: &impl Serialize) -> io::Result<String> {
        let mut value = serde_json::to_value(value)?;
        self.value(&mut value);
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }

    /// Texts are veiled before they are escaped, so that a name with a quotation mark is found.
    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(list) => list.iter_mut().for_each(|value| self.value(value)),
            Value::Object(object) => object.values_mut().for_each(|value| self.value(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A line for each record, oldest first; the newest that fit.
    fn records(&self, records: &[Record], most: usize) -> io::Result<String> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        for record in records.iter().rev() {
            let mut value = serde_json::to_value(LogRecord::from(record))?;
            self.value(&mut value);
            let line = value.to_string() + "\n";
            bytes += line.len();
            if bytes > most {
                break;
            }
            lines.push(line);
        }
        lines.reverse();
        Ok(lines.concat())
    }
}

/// Without the names of home folders.
fn homes(text: &str) -> String {
    const HOMES: &str = "/home/";
    let mut pieces = text.split(HOMES);
    let mut clean = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_end = |c: char| c == '/' || c.is_whitespace() || matches!(c, '"' | '\'' | ':' | ',');
        let end = piece.find(is_end).unwrap_or(piece.len());
        clean.push_str(HOMES);
        clean.push_str(if end > 0 { "[user]" } else { "" });
        clean.push_str(&piece[end..]);
    }
    clean
}

/// Without addresses that lead here from outside.
fn addresses(text: &str) -> String {
    let in_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(in_address) {
        clean.push_str(&rest[..begin]);
        rest = &rest[begin..];
        let end = rest.find(|c| !in_address(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        clean.push_str(match public_part(word) {
            Some(length) => {
                // What follows the address is a port or the end of a sentence.
                rest = &rest[length..];
                "[public address]"
            }
            None => {
                rest = after;
                word
            }
        });
    }
    clean.push_str(rest);
    clean
}

/// How many bytes of a word are an address that leads here from outside.
fn public_part(word: &str) -> Option<usize> {
    // As it stands, without a full stop or colon at its end, without a port.
    let trimmed = word.trim_end_matches(['.', ':']);
    let without_port = word.split_once(':').map_or(word, |(address, _)| address);
    [word, trimmed, without_port].into_iter().find_map(|text| {
        let address: IpAddr = text.parse().ok()?;
        is_public(address).then_some(text.len())
    })
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xC0 == 64;
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
                || is_shared)
        }
        // Global unicast is what begins with 001.
        IpAddr::V6(v6) => v6
            .to_ipv4_mapped()
            .map_or(v6.segments()[0] & 0xE000 == 0x2000, |v4| is_public(v4.into())),
    }
}

const README: &str = "\
What this is: what a punktfunk host knows about itself, for whoever is to help its owner. Made because the owner asked for
it; it was sent nowhere.

  version.txt    the host's version
  status.json    what it listens on, which parts it chose and why
  problems.txt   what it says is wrong, in sentences
  doctor.json    what the doctor's checks found when they were made last
  settings.txt   the settings as they hold; of apps only how many there are
  machine.json   kernel, system, processor, memory, graphics devices
  network.txt    interfaces, what is plugged in, addresses, ways out
  storage.txt    the disks and how full they are
  log.jsonl      the newest log records, one JSON object a line, oldest first
  errors.jsonl   the newest warnings and errors; some may be older than the log

What is not in it: keys, certificates, passwords, PINs, tokens, cookies, the database, games, saves, pictures, sound,
what was typed or played. What looks like a secret is struck out as [redacted]; of ids of 64 hex digits the first 8 stay.
The names of host and devices stand as [host] and [device 1], the names of home folders as [user], addresses that lead
here from the internet as [public address].

What is in it all the same: addresses of the home network (192.168.x.x, fe80::.. and the like), without which nobody can
tell who spoke to whom, the names of network interfaces and of folders outside of /home, titles of apps. A name, or a
secret that looks like an ordinary word, may stand in what a program said; it is text, so read it before you send it.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logbook::Level;

    fn contents() -> Contents {
        Contents {
            status: Ok(StatusReport {
                name: "annas-pc".to_owned(),
                problems: vec!["annas-pc has no GPU".to_owned()],
                ..StatusReport::default()
            }),
            findings: Vec::new(),
            settings: "discovery = true\n".to_owned(),
            log: Vec::new(),
            troubles: Vec::new(),
            facts: Facts::default(),
            network: Network::default(),
            storage: Vec::new(),
            host_names: vec!["den".to_owned(), "annas-pc".to_owned()],
            device_names: vec!["Anna's \"big\" TV".to_owned(), "TV".to_owned()],
        }
    }

    fn record(message: &str) -> Record {
        Record {
            sequence: 1,
            at_ms: 0,
            level: Level::Info,
            target: "t".to_owned(),
            message: message.to_owned(),
            fields: vec![("name".to_owned(), message.to_owned())],
            session: None,
        }
    }

    fn files(archive: &[u8]) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
            let path = entry.path().unwrap().file_name().unwrap().to_owned();
            (path.into_string().unwrap(), text)
        });
        entries.collect()
    }

    #[test]
    fn the_readme_names_every_file_and_no_other() {
        let packed = pack(&contents()).unwrap();
        let packed: Vec<String> = files(&packed).into_iter().map(|(name, _)| name).collect();
        let mut named: Vec<String> = README
            .lines()
            .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        named.insert(0, "README.txt".to_owned());
        assert_eq!(packed, named);
    }

    #[test]
    fn who_lives_here_is_not_told() {
        let mut contents = contents();
        let said = "Anna's \"big\" TV at 192.168.1.20 and 203.0.113.9:47989 read /home/anna/x on annas-pc, \
                    [2a02:8071::5]:1 and fe80::1, pin=4821";
        contents.log = vec![record(said)];
        contents.troubles = vec![record(said)];
        contents.settings = said.to_owned();
        let archive = pack(&contents).unwrap();
        let text = String::from_utf8_lossy(&archive);
        for gone in ["Anna", "anna", "203.0.113.9", "2a02", "4821", "/home/a"] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
        let files = files(&archive);
        let settings = &files.iter().find(|(name, _)| name == "settings.txt").unwrap().1;
        assert_eq!(
            settings,
            "[device 1] at 192.168.1.20 and [public address]:47989 read /home/[user]/x on [host], [[public address]]:1 \
             and fe80::1, pin=[redacted]"
        );
    }

    #[test]
    fn addresses_are_told_apart_from_other_numbers() {
        for text in [
            "1.2 and 3.4.5",
            "at 10:15:30",
            "dead:beef",
            "192.168.0.1:80",
            "::1",
            "100.64.0.1",
            "a.b.c.d",
            "::",
        ] {
            assert_eq!(addresses(text), text);
        }
        assert_eq!(addresses("from 8.8.8.8."), "from [public address].");
        assert_eq!(addresses("2001:db8::1: no"), "[public address]: no");
        assert_eq!(addresses("::ffff:8.8.8.8"), "[public address]");
        assert_eq!(
            homes("/home/ and /home/x, '/home/y/z'"),
            "/home/ and /home/[user], '/home/[user]/z'"
        );
    }

    #[test]
    fn the_archive_is_bounded() {
        let mut contents = contents();
        // Control characters take six bytes each in JSON.
        let long = "\u{1}".repeat(1024);
        contents.log = (0..4000).map(|_| record(&long)).collect();
        contents.troubles = contents.log.clone();
        contents.settings = "x".repeat(10_000_000);
        contents.status = Err("y".repeat(10_000_000));
        assert!(pack(&contents).unwrap().len() < 5 * 1024 * 1024);
    }
}
