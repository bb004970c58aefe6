//! How long a peer may take: a stream whose writes must get on, a body that must keep coming, and who keeps its connection
//! for as long as it needs.
//!
//! A peer that reads nothing keeps an answer, and its place, for ever; one that sends a byte now and then does the same
//! with a request. Both end here with an error, which ends the connection. A body is measured by what it brings, not by
//! how long it takes: a backup over a slow link takes minutes and is welcome, and who trickles is not. The time in which
//! nobody here reads it is not its sender's.
//!
//! Who is answered before all of a body has come may still be sending, and would lose the answer with a connection that is
//! closed at once. So what comes is thrown away for a moment, until they have gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// A stream to whose peer something must get through within a limit, whenever there is something to send.
pub(super) struct Patient<S> {
    stream: S,
    limit: Duration,
    /// Runs while the peer takes nothing.
    waiting: Option<Pin<Box<Sleep>>>,
    stays: Stays,
    /// Runs when all is said and the peer may still be sending.
    leaving: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, limit: Duration, stays: &Stays) -> Self {
        Self { stream, limit, waiting: None, stays: stays.clone(), leaving: None }
    }

    fn hold<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        waiting
            .as_mut()
            .poll(context)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.hold(polled, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.hold(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.leaving.is_none() {
            let polled = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.hold(polled, context))?;
            if !this.stays.left_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        let over = this.leaving.get_or_insert_with(|| Box::pin(sleep(LEAVE_LIMIT)));
        let mut unread = [0; 4096];
        loop {
            if over.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut unread = ReadBuf::new(&mut unread);
            match ready!(Pin::new(&mut this.stream).poll_read(context, &mut unread)) {
                Ok(()) if !unread.filled().is_empty() => {}
                // They have gone.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Who was answered before all of a request had come has so long to notice.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// How fast a request's body has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// It ends, or brings `bytes`, in each such time.
    pub(super) each: Duration,
    pub(super) bytes: usize,
    /// However fast it comes, it is there after this time.
    pub(super) in_all: Duration,
}

/// The way to take [`Pace::in_all`] from a body that may be as long as it likes, once its caller is known; in every
/// request that has a body.
#[derive(Clone)]
pub(super) struct Unhurried(Arc<AtomicBool>);

impl Unhurried {
    pub(super) fn take_time(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What keeps a connection beyond the time that every connection has; clones count together.
#[derive(Clone, Default)]
pub(super) struct Stays(Arc<Kept>);

#[derive(Default)]
struct Kept {
    reasons: AtomicUsize,
    /// A body was not read to its end.
    unread: AtomicBool,
}

/// A reason to stay, until it is dropped.
pub(super) struct Stay(Arc<Kept>);

impl Stays {
    pub(super) fn begin(&self) -> Stay {
        self.0.reasons.fetch_add(1, Ordering::Relaxed);
        Stay(Arc::clone(&self.0))
    }

    /// Returns when nothing keeps the connection, which is looked at this often.
    pub(super) async fn end(&self, look_every: Duration) {
        while self.0.reasons.load(Ordering::Relaxed) > 0 {
            sleep(look_every).await;
        }
    }

    /// Whether somebody may still be sending what nobody reads.
    fn left_unread(&self) -> bool {
        self.0.unread.load(Ordering::Relaxed)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.reasons.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The request, with a body that has to keep this pace. While it comes, its connection stays.
pub(super) fn paced<B>(request: Request<B>, pace: Pace, stays: &Stays) -> Request<Body>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    let (mut parts, body) = request.into_parts();
    if body.is_end_stream() {
        return Request::from_parts(parts, Body::empty());
    }
    let unhurried = Unhurried(Arc::default());
    parts.extensions.insert(unhurried.clone());
    let laps = Laps::new(pace, Instant::now());
    let stay = stays.begin();
    let paced = Paced { body, laps, unhurried, late: None, read_at: None, is_over: false, stay };
    let body = Body::new(paced);
    Request::from_parts(parts, body)
}

struct Paced<B> {
    body: B,
    laps: Laps,
    unhurried: Unhurried,
    /// Made when the body has to be waited for, which is rare.
    late: Option<Pin<Box<Sleep>>>,
    /// When something was last read, unless it is being waited for.
    read_at: Option<Instant>,
    is_over: bool,
    stay: Stay,
}

impl<B> Drop for Paced<B> {
    fn drop(&mut self) {
        if !self.is_over {
            self.stay.0.unread.store(true, Ordering::Relaxed);
        }
    }
}

/// How a body keeps its pace: in laps, each of which has to bring enough.
struct Laps {
    pace: Pace,
    end: Instant,
    /// When the lap ends that has brought `lap_bytes` so far.
    lap_end: Instant,
    lap_bytes: usize,
}

impl Laps {
    fn new(pace: Pace, now: Instant) -> Self {
        Self { pace, end: now + pace.in_all, lap_end: now + pace.each, lap_bytes: 0 }
    }

    /// Nobody was waiting for so long.
    fn pause(&mut self, long: Duration) {
        self.lap_end += long;
        self.end += long;
    }

    /// It may take as long as it likes, in laps that bring enough.
    fn take_time(&mut self) {
        self.end = self.lap_end + self.pace.each + self.pace.in_all;
    }

    /// Counts what has come now. A lap that has brought enough is followed by another.
    fn count(&mut self, now: Instant, bytes: usize) {
        self.lap_bytes = self.lap_bytes.saturating_add(bytes);
        if self.lap_bytes >= self.pace.bytes {
            self.lap_bytes = 0;
            self.lap_end = (now + self.pace.each).min(self.end);
        }
    }
}

impl<B> HttpBody for Paced<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Some(read_at) = this.read_at.take() {
            this.laps.pause(read_at.elapsed());
        }
        if this.unhurried.0.load(Ordering::Relaxed) {
            this.laps.take_time();
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let now = Instant::now();
            this.read_at = Some(now);
            this.is_over = !matches!(frame, Some(Ok(_))) || this.body.is_end_stream();
            if now >= this.laps.end {
                return Poll::Ready(Some(Err(TOO_SLOW.into())));
            }
            if let Some(Ok(frame)) = &frame {
                this.laps.count(now, frame.data_ref().map_or(0, Bytes::len));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let lap_end = this.laps.lap_end;
        let late = this.late.get_or_insert_with(|| Box::pin(sleep_until(lap_end)));
        if late.deadline() != lap_end {
            late.as_mut().reset(lap_end);
        }
        late.as_mut().poll(context).map(|()| Some(Err(TOO_SLOW.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

const TOO_SLOW: &str = "the request's body took too long";

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_reads_slowly_is_waited_for_and_one_that_does_not_is_not() {
        let limit = Duration::from_millis(400);
        let (near, mut far) = tokio::io::duplex(4);
        let mut stream = Patient::new(near, limit, &Stays::default());
        let reading = tokio::spawn(async move {
            let mut taken = [0; 4];
            for _ in 0..5 {
                sleep(limit / 4).await;
                far.read_exact(&mut taken).await.unwrap();
            }
            far
        });
        stream.write_all(&[7; 20]).await.unwrap();
        let _far = reading.await.unwrap();
        let before = Instant::now();
        let error = stream.write_all(&[7; 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() >= limit);
    }

    #[tokio::test]
    async fn who_still_sends_is_heard_out_and_who_does_not_is_not_waited_for() {
        let limit = Duration::from_secs(60);
        let pace = Pace { each: limit, bytes: 1, in_all: limit };
        for is_read in [true, false] {
            let stays = Stays::default();
            let request = paced(Request::new(Body::from("body")), pace, &stays);
            if is_read {
                axum::body::to_bytes(request.into_body(), 9).await.unwrap();
            } else {
                drop(request);
            }
            let (near, mut far) = tokio::io::duplex(4);
            let mut stream = Patient::new(near, limit, &stays);
            let mut leaving = tokio::spawn(async move { stream.shutdown().await.map(|()| stream) });
            if !is_read {
                // Far more than is held on the way.
                far.write_all(&[7; 1000]).await.unwrap();
                assert!(timeout(Duration::ZERO, &mut leaving).await.is_err());
                drop(far);
            }
            leaving.await.unwrap().unwrap();
        }
    }

    #[test]
    fn the_time_in_which_nobody_reads_is_not_the_senders() {
        let (each, in_all) = (Duration::from_secs(10), Duration::from_secs(60));
        let now = Instant::now();
        let mut laps = Laps::new(Pace { each, bytes: 100, in_all }, now);
        laps.pause(in_all);
        assert_eq!((laps.lap_end, laps.end), (now + in_all + each, now + in_all + in_all));
    }

    #[test]
    fn a_body_may_take_long_while_it_brings_something() {
        let pace =
            Pace { each: Duration::from_secs(10), bytes: 100, in_all: Duration::from_secs(60) };
        // Pieces, each after so many seconds; whether all of them are waited for.
        let check = |pieces: &[(u64, usize)], is_waited_for: bool| {
            let mut now = Instant::now();
            let mut laps = Laps::new(pace, now);
            let all = pieces.iter().all(|(pause, bytes)| {
                now += Duration::from_secs(*pause);
                let is_in_time = now < laps.lap_end;
                laps.count(now, *bytes);
                is_in_time
            });
            assert_eq!(all, is_waited_for, "{pieces:?}");
        };
        check(&[(0, 3)], true);
        check(&[(9, 100), (9, 100), (9, 100), (9, 1)], true);
        check(&[(4, 50), (4, 50), (9, 100)], true);
        check(&[(11, 100)], false);
        check(&[(4, 50), (4, 49), (4, 100)], false);
        check(&[(9, 100), (9, 99), (2, 1)], false);
        // However fast it comes, it ends.
        check(&[(9, 100_000); 7], false);
        let (mut now, mut laps) = (Instant::now(), Laps::new(pace, Instant::now()));
        // Three quarters of an hour, and as much as has to come.
        for _ in 0..45 * 60 / 9 {
            now += Duration::from_secs(9);
            laps.take_time();
            assert!(now < laps.lap_end && now < laps.end, "whoever may take time has it");
            laps.count(now, 100);
        }
        now += Duration::from_secs(11);
        assert!(now >= laps.lap_end, "but not without bringing anything");
    }

    #[tokio::test]
    async fn a_connection_stays_while_there_is_a_reason_to() {
        let limit = Duration::from_secs(60);
        let pace = Pace { each: limit, bytes: 1, in_all: limit };
        let stays = Stays::default();
        let ended = || timeout(Duration::ZERO, stays.end(limit));
        assert!(ended().await.is_ok());
        let request = paced(Request::new(Body::from("x")), pace, &stays);
        let follower = stays.clone().begin();
        assert!(ended().await.is_err());
        drop(request);
        assert!(ended().await.is_err());
        drop(follower);
        assert!(ended().await.is_ok());
        let _nothing_comes = paced(Request::new(Body::empty()), pace, &stays);
        assert!(ended().await.is_ok());
    }
}
