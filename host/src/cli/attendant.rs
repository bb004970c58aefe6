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
//! passed over, so that it may be newer. Deliberately absent: the switch of the machine, which logind has.

#[cfg(test)]
mod agreed;

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
                line = lines.next() => {
                    if self.hear(&line?).await {
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

    /// Acts on a line. Gives whether it was of somebody at the machine and is done with.
    async fn hear(&self, line: &[u8]) -> bool {
        match serde_json::from_slice(line) {
            Ok(Heard::Hello) => self.problems.set(ATTENDANT, vec![]),
            Ok(Heard::Presence { by, digest }) => match presence(&by, digest.as_deref()) {
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
            Ok(Heard::Unknown) | Err(_) => {}
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

/// 32 bytes in hex.
fn bytes(text: &str) -> Option<[u8; 32]> {
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
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;
    use crate::access::{AccessOptions, ChangePassword, ClaimAttempt};
    use crate::store::Store;

    const PATIENCE: Duration = Duration::from_secs(30);

    struct Rig {
        folder: Arc<tempfile::TempDir>,
        runtime: tokio::runtime::Runtime,
        store: Store,
        access: Access,
        problems: Problems,
        /// An address that may change.
        at: Arc<Mutex<&'static str>>,
        attendant: Attendant,
    }

    impl Rig {
        fn start(of_uid: u32) -> Self {
            Self::start_in(Arc::new(tempfile::tempdir().unwrap()), of_uid)
        }

        fn start_in(folder: Arc<tempfile::TempDir>, of_uid: u32) -> Self {
            let state = folder.path().join("state");
            let store = Store::open(&state).unwrap();
            let options = AccessOptions::of_machine(state).dangerous_with_cheap_hashes();
            let access = Access::open(store.clone(), options).unwrap();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let problems = Problems::default();
            let at = Arc::new(Mutex::new("https://[fd00::1]/"));
            let asked = Arc::clone(&at);
            let attending = Attending {
                socket: folder.path().join(SOCKET),
                of_uid,
                access: access.clone(),
                startup: Startup::new(&["finding the plug"]),
                addresses: Arc::new(move || {
                    let strange =
                        ["http://box.local", "https://", "https://box\u{1b}[2J", "https://a/b"];
                    let good = ["https://box.local:47990/", *asked.lock().unwrap()];
                    strange.into_iter().chain(good).map(str::to_owned).collect()
                }),
                fingerprint: "AB:CD".to_owned(),
                problems: problems.clone(),
                pauses: [Duration::from_millis(1), Duration::from_millis(20)],
                look: Duration::from_millis(5),
            };
            let entered = runtime.enter();
            let attendant = attending.begin();
            drop(entered);
            Self { folder, runtime, store, access, problems, at, attendant }
        }

        /// The daemon dies and is started again.
        fn restart(self) -> Self {
            let Self { folder, runtime, store, access, problems, at, attendant } = self;
            drop((attendant, problems, at));
            // Waits for what is being written, which a death would cut off.
            drop(runtime);
            drop((access, store));
            let _ = std::fs::remove_file(folder.path().join(SOCKET));
            Self::start_in(folder, Self::own())
        }

        /// How often the claim was armed again.
        fn rearms(&self) -> usize {
            let log = self.access.audit_page(None, 100).unwrap();
            log.iter().filter(|row| row.action == "rearm").count()
        }

        fn own() -> u32 {
            rustix::process::geteuid().as_raw()
        }

        fn listen(&self) -> UnixListener {
            UnixListener::bind(self.folder.path().join(SOCKET)).unwrap()
        }

        /// Waits until what is wrong says this; nothing says that nothing is wrong.
        fn problem_is(&self, says: &str) {
            let until = std::time::Instant::now() + PATIENCE;
            let is_so = || {
                let all = self.problems.all().join(" ");
                if says.is_empty() { all.is_empty() } else { all.contains(says) }
            };
            while !is_so() {
                assert!(std::time::Instant::now() < until, "{says}: {:?}", self.problems.all());
                std::thread::park_timeout(Duration::from_millis(2));
            }
        }

        fn claim(&self, secret: &str) {
            self.access
                .claim(&ClaimAttempt {
                    secret,
                    name: "Sofa",
                    password: "correct horse battery",
                    remote: None,
                    agent: None,
                })
                .unwrap();
        }
    }

    /// The attendant's end of a connection.
    struct Fake {
        lines: BufReader<UnixStream>,
    }

    impl Fake {
        fn accept(listener: &UnixListener) -> Self {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Self { lines: BufReader::new(stream) }
        }

        fn hear(&mut self) -> Value {
            let mut line = String::new();
            self.lines.read_line(&mut line).unwrap();
            serde_json::from_str(&line).unwrap_or_default()
        }

        fn say(&mut self, line: &Value) {
            writeln!(self.lines.get_mut(), "{line}").unwrap();
        }
    }

    #[test]
    fn the_claim_is_told_and_whoever_is_at_the_machine_gets_a_new_one() {
        let rig = Rig::start(Rig::own());
        rig.problem_is("does not answer");
        let listener = rig.listen();
        let mut fake = Fake::accept(&listener);
        let claim = fake.hear();
        assert_eq!(claim["say"], "claim");
        assert_eq!(claim["names"], json!(["https://box.local:47990", "https://[fd00::1]"]));
        assert_eq!(claim["fingerprint"], "abcd");
        assert_eq!(claim["token"].as_str().unwrap().len(), 32);
        fake.say(&json!({ "say": "hello", "schema": 1 }));
        rig.problem_is("");

        rig.claim(claim["code"].as_str().unwrap());
        assert_eq!(fake.hear(), json!({ "say": "claimed" }));
        let owner = fake.hear();
        let verifier = rig.access.proof_verifier().unwrap();
        assert_eq!(
            owner,
            json!({ "say": "owner", "salt": hex(&verifier.salt()), "key": hex(&verifier.key()) })
        );
        fake.say(&json!({ "say": "owner-refused", "reason": "it keeps\u{1b} another" }));
        rig.problem_is("(it keeps another)");
        let nonce = "06".repeat(32);
        let another = json!({ "say": "owner-kept", "key": "07".repeat(32), "nonce": nonce });
        fake.say(&another);
        fake.say(&json!({ "say": "owner-kept", "key": "ab", "nonce": nonce }));
        fake.say(&json!({ "say": "owner-kept" }));
        fake.say(&json!({ "say": "owner-refused", "reason": "still another" }));
        rig.problem_is("(still another)");
        fake.say(&json!({ "say": "owner-kept", "key": owner["key"], "nonce": nonce }));
        rig.problem_is("");

        // What is not understood is passed over.
        for nonsense in [json!({ "say": "of tomorrow" }), json!([1]), json!({ "say": "presence" })]
        {
            fake.say(&nonsense);
        }
        fake.say(&json!({ "say": "presence", "by": "telepathy" }));
        fake.say(&json!({ "say": "presence", "by": "reset-file", "digest": "ab" }));
        fake.say(&json!({ "say": "presence", "by": "power-button" }));
        assert_eq!(fake.hear(), taken());
        let again = fake.hear();
        assert_eq!(again["say"], "claim");
        assert_ne!(again["token"], claim["token"]);
        assert!(!rig.access.is_claimed());

        // A file counts once.
        fake.say(&file());
        assert_eq!(fake.hear(), taken());
        let by_file = fake.hear();
        assert_ne!(by_file["token"], again["token"]);
        rig.claim(by_file["token"].as_str().unwrap());
        assert_eq!(
            (fake.hear()["say"].clone(), fake.hear()["say"].clone()),
            (json!("claimed"), json!("owner"))
        );
        fake.say(&file());
        assert_eq!(fake.hear(), taken(), "it was used before, so that is done with too");
        drop(fake);
        let mut fake = Fake::accept(&listener);
        assert_eq!(fake.hear()["say"], "claimed", "it is somebody's still");
    }

    fn taken() -> Value {
        json!({ "say": "presence-taken" })
    }

    fn file() -> Value {
        json!({ "say": "presence", "by": "reset-file", "digest": "ab".repeat(32) })
    }

    #[test]
    fn a_claim_that_cannot_be_armed_again_is_told_and_tried_once_more() {
        let rig = Rig::start(Rig::own());
        let listener = rig.listen();
        let mut fake = Fake::accept(&listener);
        let claim = fake.hear();
        rig.store.strike_for_test(crate::store::Struck::Change);
        fake.say(&file());
        rig.problem_is("could not be armed");
        assert_eq!(rig.rearms(), 0);
        // It has not been taken, so it is said again with the next connection.
        drop(fake);
        let mut fake = Fake::accept(&listener);
        assert_eq!(fake.hear(), claim);
        fake.say(&json!({ "say": "hello" }));
        fake.say(&file());
        assert_eq!(fake.hear(), taken());
        assert_ne!(fake.hear()["token"], claim["token"]);
        rig.problem_is("");
        assert_eq!(rig.rearms(), 1);
    }

    #[test]
    fn a_cut_while_the_claim_is_armed_again_arms_it_once() {
        let mut rig = Rig::start(Rig::own());
        let listener = rig.listen();
        let mut fake = Fake::accept(&listener);
        let claim = fake.hear();
        rig.claim(claim["code"].as_str().unwrap());
        assert_eq!(fake.hear()["say"], "claimed");
        // The connection is lost with the word, and then the daemon is, whether it has acted on it or not.
        fake.say(&file());
        drop((fake, listener));
        for _ in 0..2 {
            rig = rig.restart();
            let listener = rig.listen();
            let mut fake = Fake::accept(&listener);
            let before = fake.hear();
            assert!(before["say"] == "claim" || before["say"] == "claimed", "{before}");
            fake.say(&file());
            while fake.hear() != taken() {}
            assert!(!rig.access.is_claimed());
            assert_eq!(rig.rearms(), 1);
        }
    }

    #[test]
    fn an_address_that_comes_later_is_shown_for_as_long_as_there_is_a_claim() {
        let rig = Rig::start(Rig::own());
        let listener = rig.listen();
        let mut fake = Fake::accept(&listener);
        let claim = fake.hear();
        *rig.at.lock().unwrap() = "https://192.0.2.7/";
        let later = fake.hear();
        assert_eq!(later["names"], json!(["https://box.local:47990", "https://192.0.2.7"]));
        assert_eq!(later["token"], claim["token"]);
    }

    #[test]
    fn a_connection_that_is_lost_is_made_again_and_all_is_told_again() {
        let rig = Rig::start(Rig::own());
        let listener = rig.listen();
        let mut fake = Fake::accept(&listener);
        let claim = fake.hear();
        drop(fake);
        let mut fake = Fake::accept(&listener);
        assert_eq!(fake.hear(), claim);
        // A line that never ends.
        fake.lines.get_mut().write_all(&[b'x'; MAX_LINE_BYTES]).unwrap();
        let mut fake = Fake::accept(&listener);
        assert_eq!(fake.hear(), claim);
        rig.problem_is("more than 4096 bytes");
        fake.say(&json!({ "say": "hello" }));
        rig.problem_is("");
        drop((fake, listener));
        rig.problem_is("does not answer");
        rig.runtime.shutdown_background();
    }

    #[test]
    fn root_is_told_what_vouches_for_another_password_until_it_keeps_the_key() {
        let rig = Rig::start(Rig::own());
        rig.problem_is("does not answer");
        let listener = rig.listen();
        let mut fake = Fake::accept(&listener);
        let claim = fake.hear();
        rig.claim(claim["code"].as_str().unwrap());
        assert_eq!(fake.hear()["say"], "claimed");
        let owner = fake.hear();
        let kept =
            |key: &Value| json!({ "say": "owner-kept", "key": key, "nonce": "06".repeat(32) });
        fake.say(&kept(&owner["key"]));
        fake.say(&json!({ "say": "hello" }));
        let vouched = || rig.access.proof_verifier().map(|verifier| hex(&verifier.key()));
        rig.problem_is("");
        let change = |old, new| {
            let change = ChangePassword { old, new, own: None, remote: None, keep_tokens: true };
            rig.access.change_password(&change).unwrap();
        };
        // Root's program is not there; what it said has been heard before it went.
        drop((fake, listener));
        rig.problem_is("does not answer");
        std::fs::remove_file(rig.folder.path().join(SOCKET)).unwrap();
        change("correct horse battery", "another password");
        change("another password", "a third password");
        rig.problem_is("an older password still");

        let listener = rig.listen();
        let mut fake = Fake::accept(&listener);
        assert_eq!(fake.hear()["say"], "claimed");
        let told = fake.hear();
        assert_eq!(
            (&told["say"], told["links"].as_array().unwrap().len()),
            (&json!("replace-owner"), 2)
        );
        assert_eq!(told["links"][1]["key"].as_str().map(str::to_owned), vouched());
        assert_eq!(told["links"][0]["proof"].as_str().unwrap().len(), 128);
        // Root's answer is lost; it is told all of it again.
        drop(fake);
        let mut fake = Fake::accept(&listener);
        assert_eq!((fake.hear()["say"].clone(), fake.hear()), (json!("claimed"), told.clone()));
        fake.say(&json!({ "say": "hello" }));
        fake.say(&json!({ "say": "owner-refused", "reason": "does not vouch" }));
        rig.problem_is("(does not vouch)");
        fake.say(&kept(&told["links"][1]["key"]));
        rig.problem_is("");
        // From now on it is the key, and no chain.
        assert_eq!(
            (fake.hear()["say"].clone(), fake.hear()["say"].clone()),
            (json!("claimed"), json!("owner"))
        );
    }

    #[test]
    fn nobody_but_root_is_told_anything() {
        let rig = Rig::start(Rig::own() ^ 1);
        let listener = rig.listen();
        let mut fake = Fake::accept(&listener);
        assert_eq!(fake.hear(), Value::Null);
        rig.problem_is("not root's");
    }
}
