//! The daemon's end of the box's attendant: root's program that shows how the box is claimed, and sees who is at it.
//!
//! Lines of JSON over a Unix socket that root's program opens. The daemon says what is to be shown - the claim, or that
//! there is none any more - and whose proofs root is to believe, with what vouches for a key after a change of the
//! password; the attendant says which key it keeps, and when somebody is at the machine. Then the claim is armed again, and
//! the attendant is told so; until it is, it says it after each new connection. What was said is said again only when it
//! is another word, and all of it after each new connection. A connection that is lost is made again, later and later.
//!
//! What is shown holds the host's addresses, which come and go without a word to anybody: they are looked at every ten
//! seconds, for as long as somebody may still have to read them.
//!
//! The attendant is root's, and the kernel says so; what it says is bounded all the same, and what is not understood is
//! passed over, so that it may be newer.
//!
//! What the owner proves to want is asked and brought over the same connection, one question at a time ([`ask`]); a
//! connection on which no answer comes is given up. Deliberately absent: the switch of the machine, which logind has.

#[cfg(test)]
mod agreed;
mod ask;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use zeroize::Zeroizing;

pub(super) use ask::RootLine;
use ask::{Answer, Question};

use super::doors::Addresses;
use crate::access::{Access, Ownership, Presence};
use crate::mgmt::{Problems, Startup};
use crate::store::StoredLink;

/// The attendant's socket, in root's folder.
pub(super) const SOCKET: &str = "attend.sock";
/// After the first failure, and at most.
pub(super) const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// No line is longer, in bytes.
const MAX_LINE_BYTES: usize = 4096;
/// As many addresses are told.
const MAX_ADDRESSES: usize = 8;
/// No address is longer, in bytes.
const MAX_ADDRESS_BYTES: usize = 120;
/// A line that is not taken for so long is not taken.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// The addresses are looked at so often while they are shown.
pub(super) const LOOK: Duration = Duration::from_secs(10);

/// The part that says that nobody is there.
const ATTENDANT: &str = "attendant";
/// The part that says whose proofs root believes.
const OWNER: &str = "owner";
/// The part that says that somebody at the machine was seen in vain.
const PRESENCE: &str = "presence";

/// What is needed to keep in touch.
pub(super) struct Attending {
    /// Where the attendant answers.
    pub(super) socket: PathBuf,
    /// Who answers there: root.
    pub(super) of_uid: u32,
    pub(super) access: Access,
    pub(super) startup: Startup,
    pub(super) addresses: Addresses,
    /// Of the console's certificate.
    pub(super) fingerprint: String,
    pub(super) problems: Problems,
    pub(super) pauses: [Duration; 2],
    /// [`LOOK`].
    pub(super) look: Duration,
    /// Where others ask what root's program is to be asked.
    pub(super) line: RootLine,
}

/// Keeps in touch until it is dropped.
pub(super) struct Attendant(JoinHandle<()>);

impl Drop for Attendant {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is said.
#[derive(Serialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
enum Said<'a> {
    /// The token and the fingerprint in hex.
    Claim {
        code: &'a str,
        token: &'a str,
        names: &'a [String],
        fingerprint: &'a str,
    },
    Claimed,
    Owner {
        salt: String,
        key: String,
    },
    /// The keys since the one that root keeps.
    ReplaceOwner {
        links: Vec<SaidLink>,
    },
    /// What it said of somebody at the machine has been acted on.
    PresenceTaken,
    /// What must a proof of this hold?
    AskProof {
        #[serde(flatten)]
        deed: SaidDeed,
    },
    /// The proof.
    BringProof {
        #[serde(flatten)]
        deed: SaidDeed,
        nonce: String,
        proof: String,
    },
}

/// What the owner wants done; a commit in hex.
#[derive(Serialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
enum SaidDeed {
    FactoryReset,
    RollbackBelowFloor { commit: String },
}

/// A key that the one before vouches for, in hex.
#[derive(Serialize)]
struct SaidLink {
    salt: String,
    key: String,
    proof: String,
}

/// What is heard.
#[derive(Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
enum Heard {
    Hello,
    Presence {
        by: String,
        #[serde(default)]
        digest: Option<String>,
    },
    OwnerKept {
        key: String,
        nonce: String,
    },
    OwnerRefused {
        #[serde(default)]
        reason: String,
    },
    ProofAsked {
        nonce: String,
        salt: String,
        key: String,
    },
    ProofTaken,
    ProofRefused {
        #[serde(default)]
        why: String,
    },
    #[serde(other)]
    Unknown,
}

/// Why there is no connection any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it hung up")]
    HungUp,
    #[error("what answers there is not root's")]
    Stranger,
    #[error("it said a line of more than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("it takes no line")]
    Stuck,
    #[error("it gives no answer")]
    Silent,
}

impl Attending {
    /// Begins. To be called on a tokio runtime.
    pub(super) fn begin(self) -> Attendant {
        Attendant(tokio::spawn(self.keep()))
    }

    async fn keep(self) {
        let [first, longest] = self.pauses;
        let mut pause = first;
        loop {
            let began = Instant::now();
            let Err(lost) = self.attend().await;
            self.problems.set(
                ATTENDANT,
                vec![format!(
                    "the box's own program does not answer the host ({lost}): nothing shows how the box is claimed, \
                     and nobody at the machine can show to be there. The host goes on asking"
                )],
            );
            if self.is_owed() {
                self.problems.set(
                    OWNER,
                    vec![
                        "the box's own program knows the key of an older password still: what needs the owner's \
                         proof cannot be done until it has answered"
                            .to_owned(),
                    ],
                );
            }
            if began.elapsed() >= longest {
                pause = first;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// One connection, until it is lost.
    async fn attend(&self) -> Result<std::convert::Infallible, Lost> {
        let stream = UnixStream::connect(&self.socket).await?;
        if stream.peer_cred()?.uid() != self.of_uid {
            return Err(Lost::Stranger);
        }
        let (mut ownership, mut stage) = (self.access.changes(), self.startup.changes());
        let (read, mut write) = stream.into_split();
        let mut lines = Lines { read, bytes: Vec::with_capacity(MAX_LINE_BYTES) };
        let mut told = Zeroizing::new(Vec::new());
        let mut questions = self.line.open();
        let mut asked: Option<Question> = None;
        loop {
            let word = self.word()?;
            if word != told {
                put(&mut write, &word).await?;
                told = word;
            }
            tokio::select! {
                // Whoever changes them is held by this one: they do not end.
                _ = ownership.changed() => {}
                // By then the name is known under which the host is found.
                _ = stage.changed() => {}
                () = tokio::time::sleep(self.look), if !self.access.is_claimed() => {}
                Some(question) = questions.recv(), if asked.is_none() => {
                    put(&mut write, &question.line).await?;
                    asked = Some(question);
                }
                () = Question::silence(asked.as_ref()) => return Err(Lost::Silent),
                line = lines.next() => {
                    let line = line?;
                    if let Some(answer) = Answer::of(&line) {
                        if let Some(question) = asked.take() {
                            question.answer(answer);
                        }
                    } else if self.hear(&line).await {
                        put(&mut write, &line_of(&Said::PresenceTaken)?).await?;
                    }
                }
            }
        }
    }

    /// All that is to be known now, in lines.
    fn word(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        // Large enough from the start: what grows leaves copies of a secret behind.
        let mut word = Zeroizing::new(Vec::with_capacity(2 * MAX_LINE_BYTES));
        let mut say = |said: &Said<'_>| -> io::Result<()> {
            serde_json::to_writer(&mut *word, said)?;
            word.push(b'\n');
            Ok(())
        };
        match self.access.ownership() {
            Ownership::Claimable { token, code } => {
                let names: Vec<String> = (self.addresses)()
                    .iter()
                    .filter_map(|at| shown(at))
                    .take(MAX_ADDRESSES)
                    .collect();
                let (token, code) = (token.as_str(), code.as_str());
                let fingerprint = &self.fingerprint.replace(':', "").to_ascii_lowercase();
                say(&Said::Claim { code, token, names: &names, fingerprint })?;
            }
            Ownership::Owned { salt, key, links } => {
                say(&Said::Claimed)?;
                if links.is_empty() {
                    say(&Said::Owner { salt: hex(&salt), key: hex(&key) })?;
                } else {
                    let links = links.iter().map(SaidLink::new).collect();
                    say(&Said::ReplaceOwner { links })?;
                }
            }
        }
        Ok(word)
    }

    /// Acts on a line that is no answer. Gives whether it was of somebody at the machine and is done with.
    async fn hear(&self, line: &[u8]) -> bool {
        match serde_json::from_slice(line) {
            Ok(Heard::Hello) => self.problems.set(ATTENDANT, vec![]),
            Ok(Heard::Presence { by, digest }) => match presence(&by, digest.as_deref()) {
                Some(presence) if self.access.awaits_somebody() => {
                    info!(
                        by = presence.name(),
                        "somebody is at the machine, as the owner's wish needs"
                    );
                    return true;
                }
                Some(presence) => return self.rearm(presence).await,
                None => warn!("the box's own program saw somebody in a way that is not known"),
            },
            Ok(Heard::OwnerKept { key, nonce }) => self.owner_kept(&key, &nonce).await,
            Ok(Heard::OwnerRefused { reason }) => {
                let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
                self.problems.set(
                    OWNER,
                    vec![format!(
                        "the box's own program does not take the key of the owner's password ({reason}): the password \
                         opens the console, but what also needs the owner's proof cannot be done. It is asked again \
                         when the host starts; if that does not help, somebody at the machine must arm the claim again"
                    )],
                );
            }
            // Answers were taken for what they are before.
            Ok(Heard::ProofAsked { .. } | Heard::ProofTaken | Heard::ProofRefused { .. })
            | Ok(Heard::Unknown)
            | Err(_) => {}
        }
        false
    }

    /// Root keeps a key. Only if it is the owner's is all well; otherwise another one is on its way.
    async fn owner_kept(&self, key: &str, nonce: &str) {
        let Some((key, nonce)) = bytes(key).zip(bytes(nonce)) else { return };
        let access = self.access.clone();
        let kept = tokio::task::spawn_blocking(move || access.owner_kept(key, nonce)).await;
        match kept {
            Ok(Ok(true)) => self.problems.set(OWNER, vec![]),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => warn!(%error, "what the box's own program keeps could not be noted"),
            Err(_) => warn!("what the box's own program keeps could not be noted"),
        }
    }

    /// Whether root's program is still to be told of a change of the password.
    fn is_owed(&self) -> bool {
        matches!(self.access.ownership(), Ownership::Owned { links, .. } if !links.is_empty())
    }

    /// Arms the claim again. Gives whether that is done; if not, it is tried again when it is said again.
    async fn rearm(&self, presence: Presence) -> bool {
        let access = self.access.clone();
        let by = presence.name();
        let armed = tokio::task::spawn_blocking(move || access.rearm(&presence)).await;
        let failed = match armed {
            // What was done is told where it was done.
            Ok(Ok(true)) => None,
            // Also by what failed at its end, and was done all the same.
            Ok(Ok(false)) => {
                info!(by, "this evidence was used before");
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(panic.to_string()),
        };
        let sentence = failed.map(|why| {
            format!(
                "somebody at the machine asked for a new claim, and it could not be armed: {why}. Mend this, then start \
                 the host again: what was shown at the machine counts still, or show it once more"
            )
        });
        let is_done = sentence.is_none();
        sentence.iter().for_each(|sentence| warn!(by, "{sentence}"));
        self.problems.set(PRESENCE, sentence.into_iter().collect());
        is_done
    }
}

/// Says a word, unless nobody takes it.
async fn put(write: &mut OwnedWriteHalf, word: &[u8]) -> Result<(), Lost> {
    let written = timeout(WRITE_LIMIT, write.write_all(word)).await;
    Ok(written.map_err(|_| Lost::Stuck)??)
}

fn line_of(said: &Said<'_>) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    Ok(line)
}

/// An address as it is shown: without a path, and only if nothing in it could be taken for anything else.
fn shown(address: &str) -> Option<String> {
    let address = address.trim_end_matches('/');
    let host = address.strip_prefix("https://")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let fits = !host.is_empty() && address.len() <= MAX_ADDRESS_BYTES && host.bytes().all(is_plain);
    fits.then(|| address.to_owned())
}

fn presence(by: &str, digest: Option<&str>) -> Option<Presence> {
    match by {
        "power-button" => Some(Presence::PowerButton),
        "reset-file" => Some(Presence::ResetFile { digest: bytes(digest?)? }),
        _ => None,
    }
}

impl SaidLink {
    fn new(link: &StoredLink) -> Self {
        Self { salt: hex(&link.salt), key: hex(&link.key), proof: hex(&link.proof) }
    }
}

/// So many bytes in hex.
fn bytes<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let bytes = punktfunk_core::gamestream::query::decode_hex(text)?;
    bytes.as_slice().try_into().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lines, bounded.
struct Lines {
    read: OwnedReadHalf,
    /// What came and is not a line yet.
    bytes: Vec<u8>,
}

impl Lines {
    /// The next line. Whoever stops waiting for it loses nothing.
    async fn next(&mut self) -> Result<Vec<u8>, Lost> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            if self.bytes.len() >= MAX_LINE_BYTES {
                return Err(Lost::TooLong);
            }
            let room = MAX_LINE_BYTES - self.bytes.len();
            if (&mut self.read).take(room as u64).read_buf(&mut self.bytes).await? == 0 {
                return Err(Lost::HungUp);
            }
        }
    }
}

#[cfg(test)]
mod tests;
