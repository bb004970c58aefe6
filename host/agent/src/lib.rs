//! Runs as a session's user: starts its programs and hands their sockets to the punktfunk host.
//!
//! This library is what host and agent say to each other. They share one connected `SOCK_SEQPACKET` Unix socket. Each
//! packet is one message: a line of JSON, then, where the message has one, a body of raw bytes (a file, last words).
//! The agent speaks first and says [`Say::Hello`]; from then on the host numbers its requests and each is answered once,
//! with its number, in any order. [`Say::Ended`] comes whenever a program has ended. A descriptor travels to the agent
//! with an [`Ask::Spawn`] that names a [`Stream`], and to the host with the answer to [`Ask::Connect`], and with nothing
//! else.
//!
//! Every count and size has a limit here, and either side holds the other to it. A side that hears what it does not
//! understand hangs up; for the agent, the end of the connection is the end of the session.
//!
//! Deliberately absent: what the programs are. The agent knows no compositor, no sound server and no game.

pub mod channel;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of this protocol. Host and agent are installed together and must agree.
pub const VERSION: u32 = 3;
/// The largest packet that the host sends, in bytes.
pub const MAX_REQUEST_BYTES: usize = 96 * 1024;
/// The largest packet that the agent sends, in bytes.
pub const MAX_SAY_BYTES: usize = 24 * 1024;
/// The largest file of [`Ask::WriteFile`], in bytes.
pub const MAX_FILE_BYTES: usize = 64 * 1024;
/// How much of a program's standard error is kept, in bytes.
pub const MAX_LAST_WORDS_BYTES: usize = 8 * 1024;
/// The longest name of a file or socket in the runtime folder, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// As many sockets are listed.
pub const MAX_SOCKETS: usize = 64;
/// As many programs of one session run at once; what they start themselves does not count.
pub const MAX_PROCESSES: usize = 64;
/// As many arguments and variables a program may get, each.
pub const MAX_WORDS: usize = 512;
/// The longest path, reason or status that the agent tells, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;

/// What every name begins with that a restore uses at the top of a home; no backup has one.
pub const OWN: &str = ".punktfunk-";
/// What the name of a folder begins with in which somebody restores a home; it is not whole yet.
pub const RESTORING: &str = ".punktfunk-restore-";
/// The folder in a home that takes the place of everything else in it before the agent serves anybody.
pub const RESTORED: &str = ".punktfunk-restored";
/// The same while that is being done.
pub const PLACING: &str = ".punktfunk-placing";
/// The folder that what was in the home is moved to until the restored home is in its place.
pub const REPLACING: &str = ".punktfunk-replacing";
/// What the name of a folder begins with that has what was in the home before.
pub const REPLACED: &str = ".punktfunk-replaced-";

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Given back with the answer; never used twice on a connection, and the name of the process that
    /// [`Ask::Spawn`] makes.
    pub number: u64,
    /// What is asked for.
    pub ask: Ask,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Write the packet's body into the runtime folder, mode 0600.
    WriteFile {
        /// See [`is_plain_name`].
        name: String,
    },
    /// Start a program in a process group of its own.
    Spawn {
        /// A name to look up in `PATH`, or a path.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
        /// What is added to its environment.
        environment: BTreeMap<String, String>,
        /// Keep the end of its standard error and tell it in [`Say::Ended`].
        keeps_last_words: bool,
        /// The descriptor that comes along is this stream of the program; without it, none comes along.
        stream: Option<Stream>,
    },
    /// Send a signal to a program's process group; fine if it has ended.
    Signal {
        /// The number of the request that started it.
        process: u64,
        /// SIGKILL rather than SIGTERM.
        force: bool,
    },
    /// Call a folder of the home [`RESTORED`] and put it in the place of everything else there. If that fails, the home is
    /// as it was before, and the folder has another name that begins with [`RESTORING`]; if not even that can be done, the
    /// next agent says so in [`Say::Hello`]. Nothing else may run meanwhile.
    PutInPlace {
        /// A name that begins with [`RESTORING`], without a slash.
        folder: String,
    },
    /// List the sockets in the runtime folder.
    Sockets,
    /// Connect to a socket in the runtime folder.
    Connect {
        /// See [`is_plain_name`].
        name: String,
    },
    /// End everything, remove the runtime folder, answer and exit.
    End {
        /// How long programs may take to end by themselves, in milliseconds.
        grace_ms: u64,
    },
}

/// A stream of a program that the host holds the other end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Its standard input.
    Input,
    /// Its standard output.
    Output,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Say {
    /// The first message: the agent is ready.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The folder of the session's sockets, an absolute path.
        runtime_dir: String,
        /// The home of the profile, an absolute path.
        home: String,
        /// Why nobody may play in the home: a restore has begun to replace it, and it is neither the old one nor the new
        /// one. Programs that mend it are started all the same.
        half_restored: Option<String>,
    },
    /// Instead of the first message: the agent cannot work, and ends.
    Sorry {
        /// Why.
        reason: String,
    },
    /// The answer to a request.
    Answer {
        /// Its number.
        number: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// A program has ended. The body is the end of its standard error, if that was wanted.
    Ended {
        /// The number of the request that started it.
        process: u64,
        /// How it ended, in words: `exit status: 3`.
        status: String,
    },
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// It was done. With [`Ask::Connect`], the connected descriptor comes along.
    Done,
    /// The names of the sockets, sorted.
    Sockets(Vec<String>),
    /// It was not done, and why.
    Refused(String),
}

/// Why a message could not be written or understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is over its limit.
    #[error("a message of {got} bytes is over the limit of {limit}")]
    TooLong {
        /// Its length.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// It is not a message.
    #[error("a message is not understood: {reason}")]
    NotUnderstood {
        /// What is wrong with it.
        reason: String,
    },
}

/// A message as one packet.
///
/// # Errors
/// It would be longer than `limit` bytes.
pub fn pack(message: &impl Serialize, body: &[u8], limit: usize) -> Result<Vec<u8>, WireError> {
    let mut packet = serde_json::to_vec(message)
        .map_err(|error| WireError::NotUnderstood { reason: error.to_string() })?;
    packet.push(b'\n');
    packet.extend_from_slice(body);
    if packet.len() > limit {
        return Err(WireError::TooLong { got: packet.len(), limit });
    }
    Ok(packet)
}

/// The message and the body of one packet.
///
/// # Errors
/// It is not a message of this kind.
pub fn unpack<T: DeserializeOwned>(packet: &[u8]) -> Result<(T, &[u8]), WireError> {
    let broken = |reason: String| WireError::NotUnderstood { reason };
    // JSON without its optional blanks has no line feed in it.
    let end = packet
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| broken("its line has no end".to_owned()))?;
    let message =
        serde_json::from_slice(&packet[..end]).map_err(|error| broken(error.to_string()))?;
    Ok((message, &packet[end + 1..]))
}

/// Whether this may name a file in the runtime folder: short, printable, no folder in it, not hidden.
pub fn is_plain_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_with_its_body() {
        let ask = Ask::Spawn {
            program: "sh".to_owned(),
            arguments: vec!["-c".to_owned(), "echo \"a\nb\"".to_owned()],
            environment: BTreeMap::from([("A".to_owned(), "ü".to_owned())]),
            keeps_last_words: true,
            stream: Some(Stream::Output),
        };
        let request = Request { number: u64::MAX, ask };
        let packet = pack(&request, b"\n\0body", MAX_REQUEST_BYTES).unwrap();
        assert_eq!(unpack::<Request>(&packet).unwrap(), (request, b"\n\0body".as_slice()));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for packet in
            [&b""[..], b"{}", b"{}\n", b"\n", b"\xff\n", b"{\"number\":1,\"ask\":\"x\"}\n"]
        {
            assert!(unpack::<Request>(packet).is_err(), "{packet:?}");
        }
        let more = br#"{"number":1,"ask":"sockets","more":1}"#;
        assert!(unpack::<Request>(&[more, &b"\n"[..]].concat()).is_err());
        let long = Request { number: 1, ask: Ask::Connect { name: "x".repeat(50) } };
        assert_eq!(pack(&long, b"", 20).unwrap_err(), WireError::TooLong { got: 93, limit: 20 });
    }

    #[test]
    fn only_plain_names_name_a_file() {
        for name in ["wayland-1", "sway.sock", "pipewire-0.lock", "a"] {
            assert!(is_plain_name(name), "{name}");
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for name in ["", ".", "..", "../x", "a/b", "/a", ".hidden", "a\0", "a b", "ü", &long] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
