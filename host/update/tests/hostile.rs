//! Statements that come from anybody: changed in every way, they are refused or say what was signed; and whatever the
//! makers state in whatever order, what root remembers leads nowhere back.
//!
//! The inputs are those of `vectors` and some that are made here; proptest changes them. It takes the place of a fuzz
//! target: what is read here is read behind a signature, and what searches with coverage does not get past one.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod maker;

use maker::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use punktfunk_update::name::{Channel, Version};
use punktfunk_update::statement::{
    Envelope, KeyId, MAX_CHANGE_CHARS, MAX_CHANGES, MAX_RELEASE_BYTES, MAX_RELEASES, Memory,
    Statement, judge,
};

const NOW: u64 = MADE_AT + 3600;

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Turn(Index, u8),
    Put(Index, u8),
    Cut(Index),
    Drop(Index, usize),
    Repeat(Index, usize, usize),
    Splice(Index, usize, Index),
    Insert(Index, String),
}

fn change() -> impl Strategy<Value = Change> {
    let words = prop::sample::select(vec![
        "\"",
        "\\",
        "\\u0000",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "-1",
        "1e999",
        "18446744073709551616",
        "\u{202e}",
        "\"schema\":1,",
        "\\\"schema\\\":1,",
        "\"statement\":\"\",",
        "\"signatures\":[],",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    ]);
    prop_oneof![
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Turn(at, bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), 1..200_usize).prop_map(|(at, count)| Change::Drop(at, count)),
        (any::<Index>(), 1..200_usize, 1..40_usize)
            .prop_map(|(at, count, times)| Change::Repeat(at, count, times)),
        (any::<Index>(), 0..3_usize, any::<Index>())
            .prop_map(|(at, other, from)| Change::Splice(at, other, from)),
        (any::<Index>(), words).prop_map(|(at, word)| Change::Insert(at, word.to_owned())),
    ]
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        let end = |at: usize, count: usize| (at + count).min(length);
        match self {
            Self::Turn(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
            Self::Put(at, byte) => *at.get_mut(bytes) = *byte,
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Drop(at, count) => {
                let at = at.index(length);
                bytes.drain(at..end(at, *count));
            }
            Self::Repeat(at, count, times) => {
                let at = at.index(length);
                let piece = bytes[at..end(at, *count)].repeat(*times);
                bytes.splice(at..at, piece);
            }
            Self::Splice(at, other, from) => {
                let other = &others[other % others.len()];
                bytes.truncate(at.index(length));
                bytes.extend_from_slice(&other[from.index(other.len())..]);
            }
            Self::Insert(at, word) => {
                let at = at.index(length);
                bytes.splice(at..at, word.bytes());
            }
        }
        bytes.truncate(100_000);
    }
}

/// A statement with something in every field.
fn rich() -> Statement {
    changed(7, |statement| {
        statement.floor = Some(version(3));
        statement.revoked = vec![next().id().to_string()];
        statement.withdrawn = vec![version(6)];
        statement.releases.push(release(5));
        statement.releases[1].changes = vec!["Sound \"stays\" in step\n\u{7}".to_owned(); 5];
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_envelope_says_what_was_signed_or_nothing(
        first in 0..3_usize, changes in vec(change(), 1..5)
    ) {
        let signed = [text(&rich()), text(&statement(7))];
        let kept = include_bytes!("vectors/envelope.json").to_vec();
        let seeds =
            [seal(&signed[0], &[&current(), &Key::new(9)]), seal(&signed[1], &[&next()]), kept];
        let mut bytes = seeds[first].clone();
        changes.iter().for_each(|change| change.make(&mut bytes, &seeds));
        let judged = judge(&bytes, &ring(), &Memory::default(), Channel::Stable, "slim", NOW);
        if let Ok(judged) = judged {
            let envelope = Envelope::parse(&bytes).unwrap();
            prop_assert!(signed.contains(&envelope.statement), "{}", envelope.statement);
            prop_assert_eq!(judged.statement, Statement::parse(&envelope.statement).unwrap());
        }
    }

    #[test]
    fn a_changed_statement_is_within_its_limits_or_refused(changes in vec(change(), 1..4)) {
        let seeds = [text(&rich()).into_bytes(), text(&statement(1)).into_bytes()];
        let mut bytes = seeds[0].clone();
        changes.iter().for_each(|change| change.make(&mut bytes, &seeds));
        let changed = String::from_utf8_lossy(&bytes).into_owned();
        let bytes = seal(&changed, &[&current()]);
        let judged = judge(&bytes, &ring(), &Memory::default(), Channel::Stable, "slim", NOW);
        let Ok(judged) = judged else { return Ok(()) };
        let Statement { channel, flavour, made_at, expires_at, releases, .. } = &judged.statement;
        prop_assert_eq!((*channel, flavour.as_str()), (Channel::Stable, "slim"));
        prop_assert!((*made_at..*expires_at).contains(&NOW));
        prop_assert!(releases.len() <= MAX_RELEASES);
        for (at, one) in releases.iter().enumerate() {
            prop_assert!(releases[..at].iter().all(|other| other.version != one.version));
            prop_assert!(one.size_bytes <= MAX_RELEASE_BYTES);
            prop_assert!(one.unpacked_bytes <= MAX_RELEASE_BYTES);
            prop_assert!(one.changes.len() <= MAX_CHANGES);
            let plain = |line: &String| {
                line.chars().count() <= MAX_CHANGE_CHARS && !line.contains(char::is_control)
            };
            prop_assert!(one.changes.iter().all(plain));
        }
    }
}

/// Something that makers, or those who have a key of theirs, state.
#[derive(Debug, Clone)]
struct Stated {
    next_channel: bool,
    made_at: u64,
    versions: Vec<u32>,
    withdrawn: Vec<u32>,
    floor: Option<u32>,
    revoked: Vec<u8>,
    signers: Vec<u8>,
    /// After how long it comes to the box, in seconds.
    after: u64,
}

fn stated() -> impl Strategy<Value = Stated> {
    let sometimes = |what| prop_oneof![6 => Just(None), 1 => prop::option::of(what)];
    let revoked =
        prop_oneof![8 => Just(Vec::new()), 1 => vec(1..=3_u8, 1..2), 1 => vec(1..=3_u8, 1..4)];
    (
        any::<bool>(),
        0..60_u64,
        vec(0..12_u32, 0..4),
        vec(0..12_u32, 0..3),
        sometimes(0..12_u32),
        revoked,
        vec(1..=4_u8, 0..4),
        0..80_u64,
    )
        .prop_map(
            |(next_channel, made_at, versions, withdrawn, floor, revoked, signers, after)| Stated {
                next_channel,
                made_at,
                versions,
                withdrawn,
                floor,
                revoked,
                signers,
                after,
            },
        )
}

impl Stated {
    fn statement(&self) -> Statement {
        let mut versions = self.versions.clone();
        versions.sort_unstable();
        versions.dedup();
        changed(0, |statement| {
            statement.channel = if self.next_channel { Channel::Next } else { Channel::Stable };
            statement.made_at += self.made_at;
            statement.expires_at = statement.made_at + 70;
            statement.floor = self.floor.map(version);
            statement.revoked =
                self.revoked.iter().map(|key| Key::new(*key).id().to_string()).collect();
            statement.withdrawn = self.withdrawn.iter().copied().map(version).collect();
            statement.releases = versions.into_iter().map(release).collect();
        })
    }
}

/// What of a memory may only grow.
fn marks(memory: &Memory) -> Vec<(u64, Option<Version>)> {
    let channels = [Channel::Stable, Channel::Next];
    let of = |channel| (memory.seen(channel).newest_made_at, memory.seen(channel).highest);
    channels.into_iter().map(of).chain([(0, memory.floor)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_stated_leads_nowhere_back(all in vec(stated(), 1..30)) {
        let mut memory = Memory::default();
        for one in all {
            let statement = one.statement();
            let keys: Vec<Key> = one.signers.iter().map(|number| Key::new(*number)).collect();
            let bytes = seal(&text(&statement), &keys.iter().collect::<Vec<_>>());
            let unix = MADE_AT + one.after;
            let judged = judge(&bytes, &ring(), &memory, statement.channel, "slim", unix);
            let Ok(judged) = judged else { continue };

            let (before, after) = (marks(&memory), marks(&judged.memory_after));
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before.0 <= after.0 && before.1 <= after.1, "{before:?} {after:?}");
            }
            let trusted = |id: &KeyId| {
                let signed = keys.iter().any(|key| key.id() == *id);
                let known = [current().id(), next().id()].contains(id);
                signed && known && !judged.memory_after.has_revoked(*id)
            };
            prop_assert!(!judged.signed_by.is_empty() && judged.signed_by.iter().all(trusted));
            prop_assert!(memory.revoked.iter().all(|id| judged.memory_after.revoked.contains(id)));
            prop_assert!(statement.made_at >= memory.seen(statement.channel).newest_made_at);
            prop_assert!(unix >= judged.memory_after.newest_made_at() && unix < statement.expires_at);
            if let Some(highest) = memory.seen(statement.channel).highest {
                let goes_on = statement.releases.iter().any(|release| release.version >= highest);
                prop_assert!(goes_on || statement.withdrawn.contains(&highest));
            }
            // What was believed once is believed again, and changes nothing more.
            let again = judge(&bytes, &ring(), &judged.memory_after, statement.channel, "slim", unix);
            prop_assert_eq!(&again.unwrap().memory_after, &judged.memory_after);
            memory = judged.memory_after;
        }
    }
}
