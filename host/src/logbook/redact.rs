//! The last line against secrets in a log: what looks like one is struck out.
//!
//! Secrets are types that do not print themselves; this is for what went past them, in the words of a library or of a
//! program. It knows names (`pin`, `password`, `token`, `cookie`, `rikey` ..) with what follows them, `Bearer` and `Basic`,
//! tokens of ours (`pf_..`), the fragment of an address, hashes of passwords, private keys in PEM, and runs of 32 or more
//! hex digits. Of exactly 64 digits, which the ids of clients have, the first eight stay.
//!
//! It cannot know a secret that looks like a word: a password in the middle of a sentence, a claim code or a PIN without
//! its name, a key in base64 that nothing names.

/// What stands where something was struck out.
pub const REDACTED: &str = "[redacted]";

/// The shortest run of hex digits that may be a key.
const MIN_KEY_DIGITS: usize = 32;
/// The digits of an id, and as many of them as stay.
const ID_DIGITS: usize = 64;
const ID_DIGITS_KEPT: usize = 8;
/// The shortest token of ours; shorter ones are names.
const MIN_TOKEN_BYTES: usize = 12;

/// Names that end so are of secrets.
const SECRET_ENDS: &[&str] = &[
    "password",
    "passphrase",
    "passwd",
    "secret",
    "token",
    "cookie",
    "csrf",
    "authorization",
    "rikey",
    "private_key",
    "session_key",
    "proof_key",
    "api_key",
    "claim_code",
    // The console's cookie.
    "host-punktfunk",
];
/// Names whose values have spaces in them.
const HEADERS: &[&str] = &["cookie", "authorization"];

/// Whether a field of this name holds a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    is_pin(&name) || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

fn is_pin(name: &str) -> bool {
    name == "pin" || name.ends_with("_pin") || name.ends_with("-pin")
}

/// The text without what looks like a secret. What has been struck out stays as it is.
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = &rest[..rest.find(|c| !in_word(c)).unwrap_or(rest.len())];
        if word.is_empty() {
            clean.push(first);
            rest = &rest[first.len_utf8()..];
            if first == '#' && in_address(&clean) {
                rest = strike(&mut clean, rest, is_end_of_word);
            }
            continue;
        }
        rest = &rest[word.len()..];
        rest = take_word(&mut clean, word, rest);
    }
    clean
}

/// Puts a word, and what belongs to it, into the clean text; returns what is left after that.
fn take_word<'a>(clean: &mut String, word: &str, rest: &'a str) -> &'a str {
    if word.starts_with("-----BEGIN") {
        clean.push_str(REDACTED);
        let end = rest.find("-----END").map_or("", |at| &rest[at + "-----END".len()..]);
        return end.split_once("-----").map_or("", |(_, rest)| rest);
    }
    if word.starts_with("pf_") && word.len() >= MIN_TOKEN_BYTES {
        clean.push_str(REDACTED);
        return rest;
    }
    if word.starts_with("argon2") && clean.ends_with('$') {
        clean.pop();
        return strike(clean, rest, is_end_of_hash);
    }
    if word.len() >= MIN_KEY_DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        if word.len() == ID_DIGITS {
            clean.push_str(&word[..ID_DIGITS_KEPT]);
            clean.push_str("..");
        } else {
            clean.push_str(REDACTED);
        }
        return rest;
    }
    clean.push_str(word);
    let name = word.to_ascii_lowercase();
    if name == "bearer" || name == "basic" {
        let value = rest.trim_start_matches(' ');
        let spaces = rest.len() - value.len();
        if spaces == 0 || value.is_empty() {
            return rest;
        }
        clean.push_str(&rest[..spaces]);
        return strike(clean, value, is_end_of_word);
    }
    if !is_secret_name(&name) {
        return rest;
    }
    let Some((before, value)) = value_of(rest, is_pin(&name)) else { return rest };
    clean.push_str(before);
    if let Some(quote) = before.chars().next_back().filter(|last| matches!(last, '"' | '\'')) {
        return strike(clean, value, |c| c == quote);
    }
    if HEADERS.iter().any(|header| name.ends_with(header)) {
        return strike(clean, value, |c| matches!(c, '\r' | '\n' | '"'));
    }
    strike(clean, value, is_end_of_value)
}

/// The value that follows a name, and what stands between the two. A PIN's may follow after no more than a space.
fn value_of(rest: &str, is_pin: bool) -> Option<(&str, &str)> {
    let quote = |c: char| matches!(c, '"' | '\'' | '\\');
    let after_name = rest.trim_start_matches(quote).trim_start_matches(' ');
    let value = match after_name.strip_prefix(['=', ':']) {
        Some(value) => value.trim_start_matches(' ').trim_start_matches(quote),
        None if is_pin && after_name.starts_with(|c: char| c.is_ascii_digit()) => after_name,
        None => return None,
    };
    (!value.is_empty()).then(|| (&rest[..rest.len() - value.len()], value))
}

/// Strikes out everything up to where `is_end` says so; returns the rest.
fn strike<'a>(clean: &mut String, value: &'a str, is_end: impl Fn(char) -> bool) -> &'a str {
    let end = match value.strip_prefix(REDACTED) {
        Some(_) => REDACTED.len(),
        None => value.find(is_end).unwrap_or(value.len()),
    };
    if end > 0 {
        clean.push_str(REDACTED);
    }
    &value[end..]
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn is_end_of_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ')' | '>')
}

/// A hash of a password has commas between its costs.
fn is_end_of_hash(c: char) -> bool {
    !c.is_ascii_alphanumeric() && !matches!(c, '$' | '=' | ',' | '+' | '/' | '.' | '-')
}

fn is_end_of_value(c: char) -> bool {
    is_end_of_word(c) || matches!(c, '&' | ';' | '}' | ']')
}

/// Whether the last word so far began as the address of a page.
fn in_address(clean: &str) -> bool {
    clean.rsplit(char::is_whitespace).next().is_some_and(|word| word.contains("://"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, clean: &str) {
        assert_eq!(redact(text), clean);
        assert_eq!(redact(clean), clean, "once more");
    }

    #[test]
    fn known_shapes_are_struck_out() {
        check("GET /launch?rikey=00112233AABB&rikeyid=5", "GET /launch?rikey=[redacted]&rikeyid=5");
        check("the PIN 4821 came", "the PIN [redacted] came");
        check("Answer { pin: \"4821\", name: None }", "Answer { pin: \"[redacted]\", name: None }");
        check("{\"password\":\"a b\\\"c\",\"x\":1}", "{\"password\":\"[redacted]\"c\",\"x\":1}");
        check("viewer-password=hunter2; more", "viewer-password=[redacted]; more");
        check("with pf_abcdEFGH1234 in it", "with [redacted] in it");
        check("authorization: Bearer abc.def x", "authorization: [redacted]");
        check("sent Bearer abc.def, then", "sent Bearer [redacted], then");
        check("Cookie: __Host-punktfunk=1; b=2\nHost: x", "Cookie: [redacted]\nHost: x");
        check("__Host-punktfunk=abc; Path=/", "__Host-punktfunk=[redacted]; Path=/");
        check("open https://x.local/#claim=AAAA now", "open https://x.local/#[redacted] now");
        check("hash $argon2id$v=19$m=1,t=2,p=1$AA+/$BB end", "hash [redacted] end");
        check("(\"$argon2id$v=19$m=1,t=2,p=1$AA$BB\")", "(\"[redacted]\")");
        check("a -----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY----- b", "a [redacted] b");
        check("-----BEGIN PRIVATE KEY-----\nMII", "[redacted]");
        check(&"a1".repeat(16), "[redacted]");
        check(&format!("client {} left", "12abcdef".repeat(8)), "client 12abcdef.. left");
    }

    #[test]
    fn other_words_stay() {
        for text in [
            "the pin of the board, 4 of them",
            "rikeyid=5 mode=1920x1080@60000",
            "#1 of 3; pf_short; pf-send",
            "host 3f2b8c1e-0000-4000-8000-001122334455 at fe80::1%eth0",
            "the token was not known",
            "größer als 10 €, \"quoted\" \u{1F3AE}",
            "bearer",
            "a password:",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn names_of_fields_tell_secrets() {
        for name in ["pin", "password", "csrf", "claim_code", "rikey", "Authorization"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["error", "client", "spin", "key", "code", "rikeyid"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_and_twice_is_as_good_as_once(text in ".{0,200}") {
            let once = redact(&text);
            prop_assert_eq!(redact(&once), once);
        }

        #[test]
        fn a_named_secret_is_gone(before in "[a-z ]{0,20}", secret in "[A-Za-z0-9]{6,40}") {
            for name in ["rikey=", "token: ", "\"password\":\"", "Bearer ", "passphrase='"] {
                let clean = redact(&format!("{before} {name}{secret} after"));
                prop_assert!(!clean.contains(&secret) || before.contains(&secret), "{}", clean);
            }
        }
    }
}
