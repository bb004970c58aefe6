//! Who streams what to whom.
//!
//! A session is one client's stay on the host: an app on a virtual output of its own, and at most one stream of it. It
//! outlives the stream: a client that leaves may resume. The doors speak to [`SessionDesk`]; it knows no protocol.

pub mod apps;
pub mod art;
pub mod figures;
mod histogram;
mod live;
mod programs;
mod pulse;
mod register;
mod sound;
mod state;
mod table;

use std::sync::Arc;
use std::time::Duration;

use punktfunk_core::media::{Codec, FrameTrace, Mode};

use crate::config::AppArt;
use crate::input::InputSink;
use crate::stream::{EndReason, LineAbout, Peer, StreamControl, StreamLine, StreamSpec};

pub use crate::store::ClientId;
pub use pulse::{Follower, LiveFigures};
pub use register::{Register, Summary};
pub use sound::{CardSound, Sounds};
pub use table::{Profiles, SessionOptions, Sessions};

/// An app's number: positive, stable across restarts, below 2^31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub u32);

/// A session's number; never used twice while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Something that can be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Its number.
    pub id: AppId,
    /// Its title, not empty.
    pub title: String,
    /// The display backend it runs on.
    pub display: String,
    /// The programs to start, each an argument vector; empty for a backend that draws by itself.
    pub commands: Vec<Vec<String>>,
    /// Its picture (PNG, portrait), if it has one of its own.
    pub art: Option<AppArt>,
}

/// A client's session, as a door sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The session.
    pub session: SessionId,
    /// What runs in it.
    pub app: AppId,
    /// The mode its output has now.
    pub mode: Mode,
    /// A stream is prepared or running.
    pub streaming: bool,
}

/// A session as the owner sees it; also one that has ended a short while ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub client: ClientId,
    /// It is the self-test's, which is in no list of devices.
    pub self_test: bool,
    /// The title of its app.
    pub app: String,
    /// The mode of its output.
    pub mode: Mode,
    /// A stream is prepared or running.
    pub streaming: bool,
    /// Why it ended, if it has.
    pub ended: Option<EndReason>,
}

/// More of a session, for whoever looks at this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDetails {
    /// What is said of each.
    pub info: SessionInfo,
    /// How long it has run, or ran.
    pub age: Duration,
    /// Its stream, or its last one.
    pub stream: Option<StreamDetails>,
}

/// What a stream was set up with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDetails {
    /// What the client negotiated, as far as it was granted.
    pub spec: StreamSpec,
    /// The line.
    pub about: LineAbout,
}

/// Why a session or a stream could not be had. The text says what happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No app has this number.
    #[error("there is no app with the number {}", app.0)]
    UnknownApp {
        /// The number.
        app: AppId,
    },
    /// This client already runs another app.
    #[error("\"{title}\" is still running for this device; quit it first")]
    Busy {
        /// What runs.
        title: String,
    },
    /// The owner trusts this client no more.
    #[error("this device is not paired with this host (any more); pair it anew")]
    NotPaired,
    /// The client was a guest.
    #[error("this device's time as a guest is over; ask the owner of this host for more")]
    GuestTimeOver,
    /// The client may not start anything.
    #[error("this device may not start apps on this host; its owner can allow it")]
    MayNotLaunch,
    /// As many sessions run as this machine allows.
    #[error("{max} devices already play on this host, which is its limit")]
    Full {
        /// The limit.
        max: usize,
    },
    /// Nothing runs for this client.
    #[error("nothing is running for this device")]
    NotRunning,
    /// The app or its display did not start.
    #[error("\"{title}\" could not be started: {reason}")]
    Start {
        /// The app.
        title: String,
        /// Why.
        reason: String,
    },
    /// The stream could not be set up.
    #[error("the stream could not be set up: {reason}")]
    Stream {
        /// Why.
        reason: String,
    },
    /// The daemon is stopping.
    #[error("the host is shutting down")]
    Stopping,
}

/// A stream whose parts are open and whose threads do not run yet. Dropping it gives everything back.
pub trait PreparedStream: Send {
    /// Starts the threads. Video goes to `video_peer`; sound to `audio_peer`, or once
    /// [`StreamControl::set_audio_peer`] names one. Does not block.
    fn start(self: Box<Self>, video_peer: Peer, audio_peer: Option<Peer>)
    -> Arc<dyn StreamControl>;
}

/// What [`SessionDesk::prepare_stream`] hands to a door.
pub struct StreamGrant {
    /// The stream, to be started when the client's addresses are known.
    pub stream: Box<dyn PreparedStream>,
    /// The session's input devices, for the door's receiving thread.
    pub input: Box<dyn InputSink>,
}

/// The desk every door goes to. All calls may come from any thread; those marked so may block for seconds.
pub trait SessionDesk: Send + Sync {
    /// What can be played, in the order to show it.
    fn apps(&self) -> Vec<App>;

    /// The codecs this machine encodes in real time; always has H.264.
    fn codecs(&self) -> Vec<Codec>;

    /// What runs for this client.
    fn running(&self, client: ClientId) -> Option<Running>;

    /// Opens an output and starts an app on it. Blocks until the app runs. If the client already runs this app, its
    /// session is returned and its output gets the new mode; a stream it may have is ended as
    /// [`EndReason::Replaced`].
    ///
    /// # Errors
    /// See [`SessionError`]; nothing is left running.
    fn launch(&self, client: ClientId, app: AppId, mode: Mode) -> Result<Running, SessionError>;

    /// Launches the Test card for the self-test, which takes no owner's place: it is offered or not, and as many devices
    /// play as may. There is one such session at a time.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    fn launch_self_test(&self, client: ClientId, mode: Mode) -> Result<Running, SessionError> {
        self.launch(client, apps::app_id(apps::TEST_CARD), mode)
    }

    /// Ends whatever stream the client's session has, so that a new one can be prepared. Blocks until its threads ended.
    ///
    /// # Errors
    /// [`SessionError::NotRunning`].
    fn resume(&self, client: ClientId) -> Result<Running, SessionError>;

    /// Opens capture, encoder, sound and input for a stream of this session; gives the output the stream's mode.
    /// Blocks until it is open.
    ///
    /// # Errors
    /// The session goes on; the client may try again.
    fn prepare_stream(
        &self,
        session: SessionId,
        spec: StreamSpec,
        line: StreamLine,
    ) -> Result<StreamGrant, SessionError>;

    /// Ends the client's session: stream, app and output. Blocks until all is gone. Fine if nothing runs. A session
    /// whose app is still starting ends as soon as it runs; its launch then fails.
    fn quit(&self, client: ClientId);

    /// The sessions that run and the newest of those that have ended, oldest first.
    fn sessions(&self) -> Vec<SessionInfo>;

    /// The newest frame traces of a session, oldest first; also of the one that has ended last.
    fn traces(&self, session: SessionId) -> Vec<FrameTrace>;

    /// More of one session, also of one that has ended a short while ago.
    fn details(&self, session: SessionId) -> Option<SessionDetails> {
        let info = self.sessions().into_iter().find(|info| info.id == session)?;
        Some(SessionDetails { info, age: Duration::ZERO, stream: None })
    }

    /// How a session is doing, once a second; `None` if there is no such session, or it has no figures. The last of them
    /// say why it ended.
    fn follow(&self, _session: SessionId) -> Option<Follower> {
        None
    }

    /// Ends this session and no other: stream, app and output. Blocks until all is gone; gives back what it was, or
    /// nothing if it does not run.
    fn end(&self, session: SessionId) -> Option<SessionInfo> {
        let runs = |info: &SessionInfo| info.id == session && info.ended.is_none();
        let info = self.sessions().into_iter().find(runs)?;
        self.quit(info.client);
        Some(SessionInfo { streaming: false, ended: Some(EndReason::Quit), ..info })
    }

    /// Ends every session; no new one can be started. Blocks until all is gone.
    fn shut_down(&self, reason: EndReason);
}
