//! The book as the host uses it: records come through `tracing`, readers and followers come from elsewhere.

use std::time::{Duration, Instant};

use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

fn book(limits: Limits) -> Logbook {
    Logbook::new(limits, || 1_700_000_000_123)
}

/// Runs `write` with a book that takes everything down.
fn written(limits: Limits, write: impl FnOnce()) -> Logbook {
    let book = book(limits);
    let subscriber = tracing_subscriber::registry().with(book.layer());
    tracing::subscriber::with_default(subscriber, write);
    book
}

fn all(book: &Logbook) -> Vec<Record> {
    book.read(&Query { limit: usize::MAX, ..Query::default() }).records
}

fn messages(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.message.as_str()).collect()
}

fn few(records: usize) -> Limits {
    Limits { records, ..Limits::default() }
}

#[test]
fn a_record_has_its_data_and_the_session_of_its_span() {
    let book = written(Limits::default(), || {
        let span = tracing::info_span!("session", session = 7_u64, app = "card");
        let inner = || {
            let _stage = tracing::info_span!("stage", thread = "pf-send").entered();
            tracing::warn!(datagrams = 3, address = "10.0.0.1", "lost");
        };
        span.in_scope(inner);
        tracing::info!(session = 9_u64, pin = 4821, "no span");
    });
    let records = all(&book);
    let [lost, other] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((lost.sequence, lost.at_ms, lost.level), (1, 1_700_000_000_123, Level::Warn));
    assert_eq!((lost.message.as_str(), lost.session), ("lost", Some(7)));
    assert_eq!(lost.target, module_path!());
    let fields = [("datagrams", "3"), ("address", "10.0.0.1")];
    assert_eq!(lost.fields, fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(other.session, Some(9));
    assert_eq!(other.fields[1], ("pin".to_owned(), REDACTED.to_owned()));
}

#[test]
fn records_are_shortened_and_half_a_secret_is_not_kept() {
    let long = "x".repeat(100_000);
    // The key begins within the limit and ends beyond everything that is read.
    let straddling = format!("{} {}", "y ".repeat(400), "ab".repeat(5_000));
    let book = written(Limits::default(), || {
        tracing::info!(data = long, "{long}");
        tracing::info!("{straddling}");
        tracing::info!(a = ?vec![0_u64; 1_000_000], "a million");
    });
    let records = all(&book);
    assert!(records.iter().all(|record| Packed::new(record).bytes().len() < 4096));
    assert!(!records[1].message.contains("abab"), "{}", records[1].message);
    assert!(records[1].message.ends_with("..."));
    assert!(records[2].fields[0].1.len() <= 512);
}

#[test]
fn the_book_is_bounded_in_number_and_in_bytes() {
    let many = || (0..100).for_each(|n| tracing::info!("record {n}"));
    let kept = all(&written(few(10), many));
    assert_eq!((kept.len(), kept[0].sequence, kept[9].sequence), (10, 91, 100));

    let limits = Limits { bytes: 20_000, ..Limits::default() };
    let text = "x ".repeat(400);
    let kept = all(&written(limits, || (0..100).for_each(|_| tracing::info!("{text}"))));
    let bytes: usize = kept.iter().map(|record| Packed::new(record).bytes().len()).sum();
    assert!(bytes <= 20_000 && kept.len() > 10, "{} records, {bytes} bytes", kept.len());
}

#[test]
fn troubles_outlive_chatter() {
    let book = written(Limits { records: 5, troubles: 2, ..Limits::default() }, || {
        (0..3).for_each(|n| tracing::error!("trouble {n}"));
        (0..100).for_each(|_| tracing::info!("chatter"));
    });
    assert_eq!(messages(&book.troubles()), ["trouble 1", "trouble 2"]);
    assert!(all(&book).iter().all(|record| record.message == "chatter"));
}

#[test]
fn pages_go_forwards_and_backwards() {
    let book = written(few(10), || (1..=20).for_each(|n| tracing::info!("{n}")));
    let read = |before, after| {
        let query = Query { before, after, limit: 3, ..Query::default() };
        let page = book.read(&query);
        assert_eq!((page.oldest, page.newest), (11, 20));
        messages(&page.records).iter().map(|text| text.parse().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(read(None, None), [18, 19, 20]);
    assert_eq!(read(Some(18), None), [15, 16, 17]);
    assert_eq!(read(None, Some(12)), [13, 14, 15]);
    assert_eq!(read(None, Some(0)), [11, 12, 13]);
    assert_eq!(read(Some(15), Some(12)), [13, 14]);
    assert!(read(Some(11), None).is_empty());
    assert!(read(None, Some(20)).is_empty());
}

#[test]
fn a_filter_takes_level_target_session_and_text() {
    let record = Record {
        sequence: 1,
        at_ms: 0,
        level: Level::Info,
        target: "punktfunk_host::stream::send".to_owned(),
        message: "A packet went".to_owned(),
        fields: vec![("to".to_owned(), "Wohnzimmer".to_owned())],
        session: Some(4),
    };
    let takes = |filter: Filter| filter.takes(&record);
    assert!(takes(Filter::default()));
    assert!(takes(Filter { level: Some(Level::Debug), ..Filter::default() }));
    assert!(takes(Filter { level: Some(Level::Info), ..Filter::default() }));
    assert!(!takes(Filter { level: Some(Level::Warn), ..Filter::default() }));
    let target = |target: &str| Filter { target: Some(target.to_owned()), ..Filter::default() };
    assert!(takes(target("punktfunk_host::stream")) && takes(target(&record.target)));
    assert!(!takes(target("punktfunk_host::str")) && !takes(target("hyper")));
    assert!(takes(Filter { session: Some(4), ..Filter::default() }));
    assert!(!takes(Filter { session: Some(5), ..Filter::default() }));
    assert!(takes(Filter::default().with_text(Some("PACKET"))));
    assert!(takes(Filter::default().with_text(Some("wohnz"))));
    assert!(!takes(Filter::default().with_text(Some("gone"))));
    assert!(takes(Filter::default().with_text(Some(""))));
}

#[tokio::test]
async fn a_follower_gets_the_past_it_asks_for_and_is_told_what_it_missed() {
    let book = written(few(4), || {
        (1..=6).for_each(|n| tracing::info!("{n}"));
    });
    let write = |text: &str| {
        let subscriber = tracing_subscriber::registry().with(book.layer());
        tracing::subscriber::with_default(subscriber, || tracing::info!("{text}"));
    };
    let mut follower = book.follow(Filter::default(), Some(1));
    assert_eq!(follower.next().await, Some(Followed::Missed(1)), "number 2 was gone");
    for n in 3..=6 {
        let Some(Followed::Record(record)) = follower.next().await else { panic!() };
        assert_eq!(record.sequence, n);
    }
    let mut new = book.follow(Filter::default().with_text(Some("9")), None);
    (7..=16).for_each(|n| write(&n.to_string()));
    assert_eq!(follower.next().await, Some(Followed::Missed(6)));
    let Some(Followed::Record(record)) = follower.next().await else { panic!() };
    assert_eq!(record.sequence, 13, "the newest four waited");
    // Seven are gone that this one did not look at; it cannot know that one of them was its.
    write("99");
    assert_eq!(new.next().await, Some(Followed::Missed(7)));
    let Some(Followed::Record(record)) = new.next().await else { panic!() };
    assert_eq!(record.message, "99");
}

#[tokio::test]
async fn who_followed_a_host_before_this_one_gets_everything() {
    let book = written(Limits::default(), || tracing::info!("new"));
    let mut follower = book.follow(Filter::default(), Some(5000));
    let Some(Followed::Record(record)) = follower.next().await else { panic!() };
    assert_eq!(record.sequence, 1);
    let mut up_to_date = book.follow(Filter::default(), Some(1));
    let next = tokio::time::timeout(Duration::from_millis(1), up_to_date.next()).await;
    assert!(next.is_err(), "nothing new happened: {next:?}");
}

#[test]
fn writers_do_not_wait_for_readers() {
    let book = Logbook::default();
    let subscriber = tracing_subscriber::registry().with(book.layer());
    let _slow = book.follow(Filter::default(), None);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let until = Instant::now() + Duration::from_millis(200);
            let mut read = 0;
            while Instant::now() < until {
                let filter = Filter::default().with_text(Some("nothing has this"));
                read += book.read(&Query { filter, limit: 1000, ..Query::default() }).newest;
            }
            read
        });
        tracing::subscriber::with_default(subscriber, || {
            (0..20_000).for_each(|n| tracing::info!(n, "record"));
        });
        assert!(reading.join().unwrap() > 0);
    });
    // Nothing was lost on the way, whoever looked.
    assert_eq!(all(&book).last().unwrap().sequence, 20_000);
}
