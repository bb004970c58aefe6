//! What a simulated system does and where it fails, written down beforehand.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::os::{Channel, CheckResult, Digest, OsError, Release, Version};

/// A call of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// See what is there.
    Inventory,
    /// Ask for releases.
    Check,
    /// Take in what somebody brings.
    Import,
    /// Fetch one.
    Download,
    /// Make a deployment.
    Stage,
    /// Tell the boot loader.
    ArrangeBoot,
    /// Restart.
    Reboot,
    /// Pin or unpin.
    Pin,
    /// Look for releases elsewhere.
    Follow,
}

/// How a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// With this reason.
    Fail(OsError),
    /// It does not come back until it is cancelled.
    Stall,
}

/// A call that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mishap {
    /// Which.
    pub call: Call,
    /// How.
    pub how: How,
    /// A download does so once it has as many bytes, and so does what somebody brings; of no meaning elsewhere.
    pub after_bytes: u64,
    /// As many times; `u32::MAX` is for ever.
    pub times: u32,
}

impl Mishap {
    /// The call fails once, at once.
    pub fn once(call: Call, how: How) -> Self {
        Self { call, how, after_bytes: 0, times: 1 }
    }
}

/// What comes of starting a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It runs, and does not pass, for this reason; the one from before is started again.
    Fails(String),
    /// It runs and nobody says whether it passes.
    NeverComes,
    /// It does not start at all, and leaves no word; the one from before is started again.
    NeverBoots,
}

/// What a simulated system does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// What can be had.
    pub releases: Vec<Release>,
    /// The calls that fail.
    pub mishaps: Vec<Mishap>,
    /// What comes of starting these; all others pass.
    pub verdicts: BTreeMap<Digest, Verdict>,
}

impl Script {
    /// The mishap that is due at this call, which is used up by it.
    pub(super) fn due(&mut self, call: Call, bytes: u64) -> Option<How> {
        let due = |mishap: &&mut Mishap| {
            mishap.call == call && mishap.times > 0 && mishap.after_bytes <= bytes
        };
        let mishap = self.mishaps.iter_mut().find(due)?;
        if mishap.times != u32::MAX {
            mishap.times -= 1;
        }
        Some(mishap.how.clone())
    }
}

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// A download comes in parts of this size, in bytes.
    pub part_bytes: u64,
    /// Each part takes this long.
    pub part: Duration,
    /// Asking for releases takes this long.
    pub check: Duration,
    /// Making a deployment takes this long.
    pub stage: Duration,
    /// A restart takes this long.
    pub reboot: Duration,
    /// The verdict comes this long after a restart.
    pub verdict: Duration,
}

impl Pace {
    /// Nothing takes any time.
    pub const INSTANT: Self = Self {
        part_bytes: 10_000_000,
        part: Duration::ZERO,
        check: Duration::ZERO,
        stage: Duration::ZERO,
        reboot: Duration::ZERO,
        verdict: Duration::ZERO,
    };

    /// As long as it takes to see it happen.
    pub const VISIBLE: Self = Self {
        part_bytes: 4_000_000,
        part: Duration::from_millis(100),
        check: Duration::from_secs(1),
        stage: Duration::from_secs(3),
        reboot: Duration::from_secs(4),
        verdict: Duration::from_secs(5),
    };
}

/// The digest of a simulated system: every byte is this one.
pub const fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

/// The releases of the demonstration: one that passes, and one that can only be had from there and does not.
pub fn demonstration() -> Script {
    let release = |version, byte, minimum, changes: [&str; 3]| Release {
        version,
        digest: digest(byte),
        made_at: MADE_AT,
        expires_at: u64::MAX,
        size_bytes: 342_000_000,
        minimum,
        changes: changes.iter().map(|line| (*line).to_owned()).collect(),
        channel: Channel::Stable,
    };
    let good = release(
        Version::new(1, 5, 0),
        0x15,
        Version::new(1, 4, 0),
        [
            "Simulated: games start twice as fast",
            "Simulated: a crash at the end of a session is gone",
            "Simulated: this version passes its checks",
        ],
    );
    let broken = release(
        Version::new(1, 6, 0),
        0x16,
        Version::new(1, 5, 0),
        [
            "Simulated: a new graphics driver",
            "Simulated: the encoder of this version does not start",
            "Simulated: so you will be back on the version before by yourself",
        ],
    );
    let verdict = Verdict::Fails("encoder failed to start".to_owned());
    Script {
        verdicts: BTreeMap::from([(broken.digest, verdict)]),
        releases: vec![good, broken],
        mishaps: Vec::new(),
    }
}

/// When the systems of the demonstration were made: long enough ago for every clock that was ever set.
pub(super) const MADE_AT: u64 = 1_700_000_000;

/// What is checked after a restart, with the last one as it came out.
pub(super) fn checks(failed: Option<&str>) -> Vec<CheckResult> {
    let check = |name: &str, detail: &str| CheckResult {
        name: name.to_owned(),
        passed: true,
        detail: detail.to_owned(),
    };
    vec![
        check("console", "answers (simulated)"),
        check("services", "none failed (simulated)"),
        CheckResult {
            name: "stream test".to_owned(),
            passed: failed.is_none(),
            detail: failed.unwrap_or("312 frames, 0 lost (simulated)").to_owned(),
        },
    ]
}
