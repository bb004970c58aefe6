//! A script as a file beside the simulated disk: each failure can be watched and tried by hand, without a line of code.
//!
//! ```json
//! {
//!   "instant": true,
//!   "mishaps": [{"call": "download", "how": "unreachable", "after_bytes": 100000000, "times": 2}],
//!   "verdicts": {"1.5.0": {"fails": "no picture came"}, "1.6.0": "passes"}
//! }
//! ```
//!
//! What it does not say goes as in the demonstration. It is read once, when the host starts.
//!
//! Deliberately absent: releases of one's own; those of the demonstration fail in every way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use serde::Deserialize;

use super::script::{Call, How, Mishap, Pace, Script, Verdict, demonstration};
use super::{Disk, Version};
use crate::os::{Digest, OsError};

/// The longest file, in bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// As many mishaps.
const MAX_MISHAPS: usize = 64;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Text {
    /// Nothing takes any time.
    instant: bool,
    mishaps: Vec<MishapText>,
    /// What comes of starting these versions.
    verdicts: BTreeMap<Version, VerdictText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MishapText {
    call: Call,
    how: HowText,
    #[serde(default)]
    after_bytes: u64,
    /// Without it, once.
    #[serde(default = "once")]
    times: u32,
}

const fn once() -> u32 {
    1
}

/// All that a backend may fail of.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HowText {
    /// It does not come back until it is cancelled.
    Stalls,
    Unreachable,
    NoSpace,
    Signature,
    Content,
    Downgrade,
    Expired,
    ClockBehind,
    Failed,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum VerdictText {
    Passes,
    /// For this reason.
    Fails(String),
    NeverComes,
    NeverBoots,
}

/// What a simulated system does, and how long that takes: by the file, or as in the demonstration if there is none.
///
/// # Errors
/// The file cannot be read, or says what no script can; in a sentence's part.
pub fn script(file: &Path) -> Result<(Script, Pace), String> {
    let mut text = Vec::new();
    match File::open(file) {
        Ok(file) => file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|e| e.to_string())?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok((demonstration(), Pace::VISIBLE));
        }
        Err(error) => return Err(error.to_string()),
    };
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let text: Text = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    parse(text)
}

fn parse(text: Text) -> Result<(Script, Pace), String> {
    let Text { instant, mishaps, verdicts } = text;
    if mishaps.len() > MAX_MISHAPS {
        return Err(format!("it has {} mishaps, and may have {MAX_MISHAPS}", mishaps.len()));
    }
    let mut script = demonstration();
    script.mishaps = mishaps.into_iter().map(MishapText::mishap).collect();
    for (version, verdict) in verdicts {
        let digest = digest_of(version, &script)
            .ok_or_else(|| format!("there is no version {version} in the demonstration"))?;
        let verdict = match verdict {
            VerdictText::Passes => {
                script.verdicts.remove(&digest);
                continue;
            }
            VerdictText::Fails(reason) => Verdict::Fails(reason),
            VerdictText::NeverComes => Verdict::NeverComes,
            VerdictText::NeverBoots => Verdict::NeverBoots,
        };
        script.verdicts.insert(digest, verdict);
    }
    Ok((script, if instant { Pace::INSTANT } else { Pace::VISIBLE }))
}

/// The release of this version, or the system that is on the disk from the start.
fn digest_of(version: Version, script: &Script) -> Option<Digest> {
    let releases = script.releases.iter().map(|release| (release.version, release.digest));
    let systems = Disk::default().systems;
    let mut all = releases.chain(systems.iter().map(|system| (system.version, system.digest)));
    all.find(|(of, _)| *of == version).map(|(_, digest)| digest)
}

impl MishapText {
    fn mishap(self) -> Mishap {
        let Self { call, how, after_bytes, times } = self;
        Mishap { call, how: how.how(), after_bytes, times }
    }
}

impl HowText {
    fn how(self) -> How {
        let detail = "as the script says".to_owned();
        let (version, floor) = (Version::new(1, 5, 0), Version::new(1, 6, 0));
        let error = match self {
            Self::Stalls => return How::Stall,
            Self::Unreachable => OsError::Unreachable { detail },
            Self::NoSpace => OsError::NoSpace { needed_bytes: 684_000_000, free_bytes: 12_000_000 },
            Self::Signature => OsError::Signature { detail },
            Self::Content => OsError::Content { detail },
            Self::Downgrade => OsError::Downgrade { version, floor },
            Self::Expired => OsError::Expired { version },
            Self::ClockBehind => OsError::ClockBehind { version },
            Self::Failed => OsError::Failed { doing: "do what was asked", detail },
        };
        How::Fail(error)
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest;
    use super::*;

    fn read(text: &str) -> Result<(Script, Pace), String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script.json");
        std::fs::write(&file, text).unwrap();
        script(&file)
    }

    #[test]
    fn every_call_fails_in_every_way_and_every_version_comes_to_any_end() {
        let calls = [
            "inventory",
            "check",
            "import",
            "download",
            "stage",
            "arrange-boot",
            "reboot",
            "pin",
            "follow",
        ];
        for call in calls {
            for how in [
                "stalls",
                "unreachable",
                "no-space",
                "signature",
                "content",
                "downgrade",
                "expired",
                "clock-behind",
                "failed",
            ] {
                let text = format!(r#"{{"mishaps":[{{"call":"{call}","how":"{how}"}}]}}"#);
                let (script, pace) = read(&text).unwrap();
                assert_eq!((script.mishaps.len(), pace), (1, Pace::VISIBLE), "{text}");
                match &script.mishaps[0].how {
                    How::Stall => assert_eq!(how, "stalls"),
                    How::Fail(error) => assert_eq!(error.code(), how),
                }
            }
        }
        let verdicts = r#"{"1.5.0":{"fails":"no picture"},"1.6.0":"passes","1.4.2":"never-comes",
            "1.4.1":"never-boots"}"#;
        let text = format!(r#"{{"instant":true,"verdicts":{verdicts}}}"#);
        let (script, pace) = read(&text).unwrap();
        let expected = [
            (digest(0x15), Verdict::Fails("no picture".to_owned())),
            (digest(0x41), Verdict::NeverBoots),
            (digest(0x42), Verdict::NeverComes),
        ];
        assert_eq!((script.verdicts, pace), (expected.into(), Pace::INSTANT));
    }

    #[test]
    fn without_a_file_it_goes_as_in_the_demonstration_and_a_bad_one_says_what_is_bad() {
        let none = script(Path::new("/nonexistent/script.json")).unwrap();
        assert_eq!(none, (demonstration(), Pace::VISIBLE));
        let many = vec![r#"{"call":"pin","how":"failed"}"#; MAX_MISHAPS + 1].join(",");
        for (text, says) in [
            ("{", "EOF"),
            (r#"{"mishap":[]}"#, "unknown field"),
            (r#"{"mishaps":[{"call":"fly","how":"failed"}]}"#, "fly"),
            (r#"{"verdicts":{"9.9.9":"passes"}}"#, "9.9.9"),
            (&format!(r#"{{"mishaps":[{many}]}}"#), "65 mishaps"),
            (&" ".repeat(70_000), "longer than"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
