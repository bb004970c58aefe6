//! The i3 IPC protocol that sway speaks: a magic word, a length, a type, then JSON.
//!
//! Every exchange is one connection: request, reply, close. A reply is bounded in size and in time, so a stuck
//! compositor cannot hold a thread of ours.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use punktfunk_agent::channel;
use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::Deserialize;

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

/// The outputs, asked for over a connection of its own.
///
/// # Errors
/// Sway does not answer, or not with a list of outputs.
pub(super) fn outputs(stream: OwnedFd) -> io::Result<Vec<Output>> {
    let reply = exchange(stream, GET_OUTPUTS, "")?;
    serde_json::from_slice(&reply).map_err(io::Error::other)
}

/// Runs a command line of sway's configuration language.
///
/// # Errors
/// Sway does not answer, or refused the command (its words are the error's text).
pub(super) fn run(stream: OwnedFd, command: &str) -> io::Result<()> {
    let reply = exchange(stream, RUN_COMMAND, command)?;
    let results: Vec<CommandResult> = serde_json::from_slice(&reply).map_err(io::Error::other)?;
    match results.into_iter().find(|result| !result.success) {
        Some(refused) => {
            let words = refused.error.unwrap_or_else(|| "sway refused".to_owned());
            // They go to a log and to a client's screen, and who holds the connection may be a game.
            let words = words.chars().take(MAX_WORDS_CHARS);
            Err(io::Error::other(
                words.map(|c| if c.is_control() { ' ' } else { c }).collect::<String>(),
            ))
        }
        None => Ok(()),
    }
}

#[derive(Debug, Deserialize)]
struct CommandResult {
    success: bool,
    error: Option<String>,
}

fn exchange(stream: OwnedFd, kind: u32, payload: &str) -> io::Result<Vec<u8>> {
    let mut question = Question::ask(stream, kind, payload)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(reply) = question.reply()? {
            return Ok(reply);
        }
        if !channel::wait(&question.stream, PollFlags::IN, deadline)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "sway does not answer"));
        }
    }
}

/// A request whose reply is on its way. Nothing here ever waits: the other end of the connection is not ours, and who
/// holds it could change how long a plain read or write waits.
#[derive(Debug)]
pub(super) struct Question {
    stream: OwnedFd,
    kind: u32,
    heard: Vec<u8>,
}

impl Question {
    /// Asks which sway this is, only to hear whether it answers.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn version(stream: OwnedFd) -> io::Result<Self> {
        Self::ask(stream, GET_VERSION, "")
    }

    fn ask(stream: OwnedFd, kind: u32, payload: &str) -> io::Result<Self> {
        let request = request(kind, payload);
        let sent = send(&stream, &request, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        if sent < request.len() {
            return Err(io::Error::other("sway takes no request"));
        }
        Ok(Self { stream, kind, heard: vec![] })
    }

    /// The reply, if all of it is there.
    ///
    /// # Errors
    /// The connection is gone, or the reply is none.
    pub(super) fn reply(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut chunk = [0; 4096];
        loop {
            match recv(&self.stream, &mut chunk, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, _)) => self.heard.extend_from_slice(&chunk[..count]),
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(reply) = read_reply(&self.heard, self.kind)? {
                return Ok(Some(reply.to_vec()));
            }
        }
    }
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

/// The reply in `bytes`, or `None` if it is not complete.
fn read_reply(bytes: &[u8], kind: u32) -> io::Result<Option<&[u8]>> {
    let Some((head, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return Ok(None) };
    let number = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&head[at..at + 4]);
        u32::from_ne_bytes(word)
    };
    if !head.starts_with(MAGIC) || number(MAGIC.len() + 4) != kind {
        return Err(io::Error::other("the answer is not one of sway's IPC"));
    }
    let length = number(MAGIC.len()) as usize;
    if length > MAX_REPLY_BYTES {
        return Err(io::Error::other(format!(
            "the answer has {length} bytes, the limit is {MAX_REPLY_BYTES}"
        )));
    }
    Ok(rest.get(..length))
}

const MAGIC: &[u8; 6] = b"i3-ipc";
const HEADER_BYTES: usize = MAGIC.len() + 8;
const RUN_COMMAND: u32 = 0;
const GET_OUTPUTS: u32 = 3;
const GET_VERSION: u32 = 7;
/// The largest answer that is read, in bytes; a list of outputs has a few thousand.
const MAX_REPLY_BYTES: usize = 1024 * 1024;
/// What is told of sway's reason to refuse, in characters.
const MAX_WORDS_CHARS: usize = 300;
/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_reads_back_as_a_reply() {
        let bytes = request(GET_OUTPUTS, "[]");
        assert_eq!(read_reply(&bytes, GET_OUTPUTS).unwrap(), Some(&b"[]"[..]));
        assert_eq!(read_reply(&bytes[..bytes.len() - 1], GET_OUTPUTS).unwrap(), None);
        assert!(read_reply(&bytes, RUN_COMMAND).is_err());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_sizes_anything() {
        let mut bytes = request(GET_OUTPUTS, "");
        bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        let error = read_reply(&bytes, GET_OUTPUTS).unwrap_err();
        assert!(error.to_string().contains("limit"), "{error}");
    }

    #[test]
    fn a_refusal_is_told_short_and_clean() {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = format!("\\u001b[2J{}", "no ".repeat(100_000));
        let reply = format!("[{{\"success\":false,\"error\":\"{error}\"}}]");
        let sway = std::thread::spawn(move || {
            std::io::Write::write_all(&mut far, &request(RUN_COMMAND, &reply))
        });
        let text = run(near.into(), "output").unwrap_err().to_string();
        assert!(text.starts_with(" [2Jno no"), "{text:.40}");
        assert_eq!(text.chars().count(), MAX_WORDS_CHARS);
        sway.join().unwrap().unwrap();
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
            let _ = read_reply(&whole, GET_OUTPUTS);
        }
    }
}
