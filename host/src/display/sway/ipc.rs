//! The i3 IPC protocol that sway speaks: a magic word, a length, a type, then JSON.
//!
//! Every exchange is one connection: request, reply, close. A reply is bounded in size and in time, so a stuck
//! compositor cannot hold a thread of ours.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::display::wayland::connect_within;

/// One output as sway describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Output {
    pub(super) name: String,
    #[serde(default)]
    pub(super) active: bool,
    pub(super) current_mode: Option<CurrentMode>,
}

/// The mode in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct CurrentMode {
    pub(super) width: i64,
    pub(super) height: i64,
    /// In millihertz.
    pub(super) refresh: i64,
}

/// The outputs.
///
/// # Errors
/// The socket does not answer, or not with a list of outputs.
pub(super) fn outputs(socket: &Path) -> io::Result<Vec<Output>> {
    let reply = exchange(socket, GET_OUTPUTS, "")?;
    serde_json::from_slice(&reply).map_err(io::Error::other)
}

/// Runs a command line of sway's configuration language.
///
/// # Errors
/// The socket does not answer, or sway refused the command (its words are the error's text).
pub(super) fn run(socket: &Path, command: &str) -> io::Result<()> {
    let reply = exchange(socket, RUN_COMMAND, command)?;
    let results: Vec<CommandResult> = serde_json::from_slice(&reply).map_err(io::Error::other)?;
    match results.into_iter().find(|result| !result.success) {
        Some(refused) => {
            Err(io::Error::other(refused.error.unwrap_or_else(|| "sway refused".to_owned())))
        }
        None => Ok(()),
    }
}

#[derive(Debug, Deserialize)]
struct CommandResult {
    success: bool,
    error: Option<String>,
}

fn exchange(socket: &Path, kind: u32, payload: &str) -> io::Result<Vec<u8>> {
    let mut stream = connect_within(socket, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&request(kind, payload))?;
    read_reply(&mut stream, kind)
}

/// Lengths and types are in the machine's own byte order; both ends are on this machine.
fn request(kind: u32, payload: &str) -> Vec<u8> {
    let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_BYTES + payload.len());
    message.extend_from_slice(MAGIC);
    message.extend_from_slice(&bytes.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(payload.as_bytes());
    message
}

fn read_reply(from: &mut impl Read, kind: u32) -> io::Result<Vec<u8>> {
    let mut magic = [0; MAGIC.len()];
    let (mut length, mut got_kind) = ([0; 4], [0; 4]);
    from.read_exact(&mut magic)?;
    from.read_exact(&mut length)?;
    from.read_exact(&mut got_kind)?;
    if &magic != MAGIC || u32::from_ne_bytes(got_kind) != kind {
        return Err(io::Error::other("the answer is not one of sway's IPC"));
    }
    let length = u32::from_ne_bytes(length) as usize;
    if length > MAX_REPLY_BYTES {
        return Err(io::Error::other(format!(
            "the answer has {length} bytes, the limit is {MAX_REPLY_BYTES}"
        )));
    }
    let mut reply = vec![0; length];
    from.read_exact(&mut reply)?;
    Ok(reply)
}

const MAGIC: &[u8; 6] = b"i3-ipc";
const HEADER_BYTES: usize = MAGIC.len() + 8;
const RUN_COMMAND: u32 = 0;
const GET_OUTPUTS: u32 = 3;
/// The largest answer that is read, in bytes; a list of outputs has a few thousand.
const MAX_REPLY_BYTES: usize = 1024 * 1024;
/// How long one read or write may take.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_reads_back_as_a_reply() {
        let bytes = request(GET_OUTPUTS, "[]");
        assert_eq!(read_reply(&mut bytes.as_slice(), GET_OUTPUTS).unwrap(), b"[]");
        assert!(read_reply(&mut bytes.as_slice(), RUN_COMMAND).is_err());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_sizes_anything() {
        let mut bytes = request(GET_OUTPUTS, "");
        bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        let error = read_reply(&mut bytes.as_slice(), GET_OUTPUTS).unwrap_err();
        assert!(error.to_string().contains("limit"), "{error}");
    }

    #[test]
    fn an_output_without_a_mode_is_understood() {
        let text = r#"[{"name":"HEADLESS-1","active":false,"current_mode":null,"more":1},
            {"name":"HEADLESS-2","active":true,"current_mode":{"width":1280,"height":720,"refresh":59940}}]"#;
        let outputs: Vec<Output> = serde_json::from_str(text).unwrap();
        assert_eq!(outputs[0].current_mode, None);
        assert_eq!(outputs[1].current_mode.map(|mode| mode.refresh), Some(59_940));
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut whole = MAGIC.to_vec();
            whole.extend_from_slice(&bytes);
            let _ = read_reply(&mut whole.as_slice(), GET_OUTPUTS);
        }
    }
}
