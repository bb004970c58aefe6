//! Takes records down: on the thread that logs, in bounded time and memory.
//!
//! A value is written into a buffer of fixed size that refuses what no longer fits, so that the longest `Debug` costs no
//! more than that. Secrets are struck out before a text is cut to its length, because half a key is no known shape.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::record::{MAX_FIELDS, MAX_MESSAGE_BYTES, MAX_VALUE_BYTES};
use super::redact::{is_secret_name, redact};
use super::{Logbook, REDACTED, Record};

/// Where in its source a library wrote a record; that means nothing to who reads it here.
const OF_LIBRARIES: &[&str] = &["log.file", "log.line", "log.module_path"];
/// What ends a text that was cut.
const CUT: &str = "...";

/// The span of a session, and the field that holds its number.
const SESSION: &str = "session";

/// What takes records down for a [`Logbook`].
#[derive(Debug)]
pub struct BookLayer {
    book: Logbook,
}

impl BookLayer {
    pub(super) fn new(book: Logbook) -> Self {
        Self { book }
    }
}

/// The session that a span is about; kept with the span.
struct OfSession(u64);

impl<S> Layer<S> for BookLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().fields().field(SESSION).is_none() {
            return;
        }
        let mut number = SessionNumber(None);
        attributes.record(&mut number);
        if let (Some(number), Some(span)) = (number.0, context.span(id)) {
            span.extensions_mut().insert(OfSession(number));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut taken = Taken::default();
        event.record(&mut taken);
        let of_span = || {
            let mut spans = context.event_scope(event)?;
            spans.find_map(|span| span.extensions().get::<OfSession>().map(|of| of.0))
        };
        self.book.put(&Record {
            sequence: 0,
            at_ms: self.book.now(),
            level: (*metadata.level()).into(),
            target: metadata.target().to_owned(),
            session: taken.session.or_else(of_span),
            message: taken.message,
            fields: taken.fields,
        });
    }
}

/// Reads the number of a session, and nothing else.
struct SessionNumber(Option<u64>);

impl Visit for SessionNumber {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == SESSION {
            self.0 = Some(value);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

/// What was read of an event.
#[derive(Default)]
struct Taken {
    message: String,
    fields: Vec<(String, String)>,
    session: Option<u64>,
}

impl Visit for Taken {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == SESSION {
            self.session = Some(value);
        }
        self.record_debug(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // As it is, not in quotation marks.
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = text_of(value, MAX_MESSAGE_BYTES);
        } else if self.fields.len() < MAX_FIELDS && !OF_LIBRARIES.contains(&field.name()) {
            let secret = is_secret_name(field.name());
            let value = if secret { REDACTED.to_owned() } else { text_of(value, MAX_VALUE_BYTES) };
            self.fields.push((field.name().to_owned(), value));
        }
    }
}

/// The value as a text of at most `most` bytes, without secrets.
fn text_of(value: &dyn fmt::Debug, most: usize) -> String {
    let mut bounded = Bounded { text: String::new(), most: 2 * most, full: false };
    // It fails when the buffer is full, which is known there.
    let _ = write!(bounded, "{value:?}");
    let Bounded { mut text, full, .. } = bounded;
    if full {
        // The last word may be half a secret, which nothing recognizes.
        let end = text.rfind(char::is_whitespace).unwrap_or(0);
        text.truncate(end);
    }
    let mut text = redact(&text);
    if full || text.len() > most {
        let end = (0..=most.saturating_sub(CUT.len()).min(text.len()))
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push_str(CUT);
    }
    text
}

/// A text that takes no more than so many bytes.
struct Bounded {
    text: String,
    most: usize,
    full: bool,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.most - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        let end = (0..=room).rev().find(|end| more.is_char_boundary(*end)).unwrap_or(0);
        self.text.push_str(&more[..end]);
        self.full = true;
        Err(fmt::Error)
    }
}
