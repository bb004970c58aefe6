//! What can go wrong, for programs: every `code` of a problem. One that has been here keeps its name and its meaning; more
//! may come, and who does not know one goes by the HTTP status.
//!
//! Deliberately absent: what each means. The answer's `detail` says it, for the case at hand.

use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// All of them, sorted.
pub const CODES: &[&str] = &[
    "already-booted",
    "already-paired",
    "already-staged",
    "backup-busy",
    "backup-key",
    "backup-too-large",
    "backup-too-new",
    "bad-version",
    "bug",
    "busy",
    "cannot-start",
    "claimed",
    "clock-behind",
    "content",
    "csrf",
    "downgrade",
    "expired",
    "failed",
    "fixed-by-file",
    "forbidden",
    "foreign-origin",
    "home-in-use",
    "incomplete",
    "login-needed",
    "malformed",
    "malformed-name",
    "malformed-password",
    "malformed-pin",
    "malformed-time",
    "name-needed",
    "needs-owner-proof",
    "needs-presence",
    "no-backup",
    "no-owner-key",
    "no-scopes",
    "no-space",
    "not-allowed",
    "not-settable",
    "nothing-downloaded",
    "nothing-offered",
    "nothing-pending",
    "nothing-staged",
    "nothing-to-cancel",
    "nothing-to-go-back-to",
    "out-of-range",
    "owner-unknown",
    "self-test-runs",
    "several-pending",
    "signature",
    "someone-streams",
    "starting",
    "stopped",
    "store",
    "title-taken",
    "too-many-apps",
    "too-many-followers",
    "too-many-pins",
    "too-many-tokens",
    "too-much-art",
    "unavailable",
    "unclaimed",
    "unfit-app",
    "unfit-art",
    "unfit-backup",
    "unfit-passphrase",
    "unknown-app",
    "unknown-check",
    "unknown-client",
    "unknown-deployment",
    "unknown-method",
    "unknown-path",
    "unknown-request",
    "unknown-self-test",
    "unknown-session",
    "unknown-setting",
    "unknown-token",
    "unreachable",
    "wait",
    "wrong-code",
    "wrong-host",
    "wrong-passphrase",
    "wrong-password",
];

/// The list as the API's document has it.
pub(super) fn schema() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(
            "What went wrong, for programs; none ever changes its meaning. A later version may know more of them.",
        ))
        .enum_values(Some(CODES.iter().copied()))
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The first quoted word of each of these texts, if it is a code.
    fn codes<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let is_code = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        texts.filter_map(|text| text.strip_prefix('"')?.split('"').next()).filter(is_code).collect()
    }

    /// Those that stand behind their status.
    fn behind_a_status(text: &str) -> BTreeSet<&str> {
        let ident = |c: char| c.is_ascii_uppercase() || c == '_';
        let rests = text.split("StatusCode::").skip(1).map(|rest| rest.trim_start_matches(ident));
        codes(rests.filter_map(|rest| Some(rest.strip_prefix(',')?.trim_start())))
    }

    fn read(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, all);
            } else if !path.ends_with("wire/codes.rs") {
                all.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_code_that_is_given_is_listed_and_every_one_that_is_listed_is_given() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut mgmt = String::new();
        read(&source.join("mgmt"), &mut mgmt);
        let os = fs::read_to_string(source.join("os/error.rs")).unwrap();
        let os = os.split("fn code(").nth(1).unwrap().split("\n}\n").next().unwrap();
        let mut all = behind_a_status(&mgmt);
        all.extend(codes(mgmt.split("refuse(").skip(1).map(str::trim_start)));
        all.extend(codes(os.split("=> ").skip(1)));
        assert!(all.len() > 50, "{all:?}");
        let unlisted: Vec<_> = all.iter().filter(|code| !CODES.contains(code)).collect();
        assert!(unlisted.is_empty(), "{unlisted:?} are in no list");
        for code in CODES {
            let quoted = format!("\"{code}\"");
            assert!(mgmt.contains(&quoted) || os.contains(&quoted), "nobody gives {code}");
        }
        assert!(CODES.windows(2).all(|two| two[0] < two[1]), "sorted, and each once");
    }
}
