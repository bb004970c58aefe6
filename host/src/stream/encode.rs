//! `pf-encode`: takes the newest picture when the rate allows it and the sending thread has room for its access unit.
//!
//! A credit is taken together with the picture, so the thread never stands with a finished access unit in its hands.
//! While the screen does not change the previous picture is coded again. A picture of another size is a mode change:
//! the encoder is opened anew, and everything after it in the line stays as it is.

use std::sync::Arc;

use punktfunk_core::media::{AccessUnit, DropReason, FrameIndex, FrameKind, Mode};
use punktfunk_core::time::Timestamp;

use super::EndReason;
use super::cadence::{Cadence, Held, IdrWishes};
use super::links::{Dropped, Links};
use super::mailbox::Look;
use crate::capture::CapturedFrame;
use crate::clock;
use crate::encode::{EncodeError, EncodeSpec, Encoder, EncoderBackend, PictureRequest};

/// So many pictures in a row that cannot be sent are no bad luck but wrong settings.
const MAX_UNSENDABLE_IN_A_ROW: u32 = 8;

/// What the thread owns.
pub(super) struct Encoding {
    pub(super) backend: Arc<dyn EncoderBackend>,
    pub(super) encoder: Box<dyn Encoder>,
    pub(super) spec: EncodeSpec,
}

pub(super) fn run(links: &Links, encoding: Encoding) {
    let cadence = Cadence::new(encoding.spec.mode.frame_interval());
    let mut stage = Stage {
        links,
        encoding,
        cadence,
        wishes: IdrWishes::default(),
        picture: None,
        returned: Vec::new(),
        unsendable_in_a_row: 0,
    };
    while let Order::Encode(orders) = stage.next_order() {
        if let Err(reason) = stage.obey(orders) {
            links.end(reason);
        }
    }
}

enum Order {
    Stop,
    Encode(Orders),
}

/// What was in the inbox when a picture was taken, one credit included.
struct Orders {
    /// `None`: the previous picture once more.
    fresh: Option<CapturedFrame>,
    /// What the rate did to it.
    held: Held,
    idr_wanted: bool,
    lost: Option<(FrameIndex, FrameIndex)>,
}

/// The picture that is coded again while the screen is static.
struct Picture {
    frame: CapturedFrame,
    /// The open encoder has coded it before.
    known: bool,
}

struct Stage<'a> {
    links: &'a Links,
    encoding: Encoding,
    cadence: Cadence,
    wishes: IdrWishes,
    picture: Option<Picture>,
    /// Swapped with the inbox's, so that neither is ever allocated anew.
    returned: Vec<Vec<u8>>,
    unsendable_in_a_row: u32,
}

impl Stage<'_> {
    fn next_order(&mut self) -> Order {
        let (cadence, returned) = (&self.cadence, &mut self.returned);
        self.links.encode.wait(|inbox, now| {
            let waited = std::mem::take(&mut inbox.held_by_rate);
            if inbox.closed {
                return Look::Ready(Order::Stop);
            }
            if inbox.credits == 0 {
                return Look::Whenever;
            }
            let due = match (&inbox.frame, cadence.repeat_at()) {
                (Some(_), _) => cadence.eligible_at(),
                (None, Some(repeat_at)) => repeat_at,
                (None, None) => return Look::Whenever,
            };
            if now < due {
                inbox.held_by_rate = inbox.frame.is_some();
                return Look::At(due);
            }
            inbox.credits -= 1;
            std::mem::swap(&mut inbox.returned, returned);
            Look::Ready(Order::Encode(Orders {
                fresh: inbox.frame.take(),
                held: Held { waited, passed_over: std::mem::take(&mut inbox.passed_over) },
                idr_wanted: std::mem::take(&mut inbox.idr_wanted),
                lost: inbox.lost.take(),
            }))
        })
    }

    fn obey(&mut self, orders: Orders) -> Result<(), EndReason> {
        for bytes in self.returned.drain(..) {
            self.encoding.encoder.recycle(bytes);
        }
        if orders.idr_wanted {
            self.wishes.want();
        }
        if let Some((first, last)) = orders.lost
            && !self.encoding.encoder.invalidate(first, last)
        {
            self.wishes.want();
        }
        let fresh = orders.fresh.map(|frame| Picture { frame, known: false });
        let repeated = fresh.is_none();
        let Some(mut picture) = fresh.or_else(|| self.picture.take()) else {
            // Nothing to repeat yet: the credit goes back unused.
            self.links.encode.look(|inbox| inbox.credits += 1);
            return Ok(());
        };
        let now = clock::now();
        if repeated {
            self.cadence.repeated(now);
            picture.frame.captured_at = now;
        } else {
            self.cadence.fresh(now, orders.held);
        }
        let coded = self.code(&mut picture, repeated, now);
        let dropped = Dropped { repeated, ..Dropped::from(&picture.frame) };
        self.picture = Some(picture);
        match coded {
            Ok(unit) => self.hand_over(unit, now),
            Err(EncodeError::TooLarge { .. })
                if self.unsendable_in_a_row < MAX_UNSENDABLE_IN_A_ROW =>
            {
                self.unsendable_in_a_row += 1;
                self.links.trace_dropped(dropped, DropReason::Unsendable);
                self.links.encode.look(|inbox| inbox.credits += 1);
            }
            Err(error) => {
                self.links.trace_dropped(dropped, DropReason::StreamEnded);
                return Err(EndReason::EncoderFailed(error.to_string()));
            }
        }
        Ok(())
    }

    fn code(
        &mut self,
        picture: &mut Picture,
        repeated: bool,
        now: Timestamp,
    ) -> Result<AccessUnit, EncodeError> {
        if self.encoding.fit(&picture.frame)? {
            picture.known = false;
        }
        let request =
            PictureRequest { force_idr: self.wishes.due(now), repeated: repeated && picture.known };
        let coded = self.encoding.encoder.encode(&picture.frame, request);
        picture.known = true;
        coded.map(|unit| AccessUnit { repeated, ..unit })
    }

    fn hand_over(&mut self, unit: AccessUnit, now: Timestamp) {
        self.unsendable_in_a_row = 0;
        if unit.kind == FrameKind::Idr {
            self.wishes.coded(now);
        }
        let refused = self.links.send.post(|inbox| {
            if inbox.closed {
                return Some(unit);
            }
            inbox.units.push_back(unit);
            None
        });
        if let Some(unit) = refused {
            self.links.trace_dropped(Dropped::from(&unit), DropReason::StreamEnded);
        }
    }
}

impl Encoding {
    /// Opens the encoder anew if the picture has another size; tells whether it did.
    fn fit(&mut self, frame: &CapturedFrame) -> Result<bool, EncodeError> {
        let mode = self.spec.mode;
        if (frame.width, frame.height) == (mode.width(), mode.height()) {
            return Ok(false);
        }
        let size = EncodeError::Size {
            got_width: frame.width,
            got_height: frame.height,
            width: mode.width(),
            height: mode.height(),
        };
        let new = Mode::new(frame.width, frame.height, mode.refresh_millihz());
        let spec = match new {
            // An odd size would be rounded and never fit.
            Ok(new) if (new.width(), new.height()) == (frame.width, frame.height) => {
                EncodeSpec { mode: new, ..self.spec.clone() }
            }
            _ => return Err(size),
        };
        self.encoder = self.backend.open(&spec)?;
        tracing::info!(from = %mode, to = %spec.mode, "the mode changed");
        self.spec = spec;
        Ok(true)
    }
}
