//! What a session sounds like: the test card's tone, what its programs play, or nothing.
//!
//! A session is never refused for its sound. What keeps its programs from being heard is logged once, and the stream
//! carries silence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::App;
use crate::agent::Agent;
use crate::audio::pipewire::{SoundOptions, SoundServer};
use crate::audio::silence::SilenceSource;
use crate::audio::tone::ToneSource;
use crate::audio::{AudioSource, AudioSpec};

/// How long programs wait for their sound server: most of them look for it once, when they start.
const SETTLE: Duration = Duration::from_secs(3);

/// How the sound of sessions is made.
#[derive(Debug, Clone)]
pub struct Sounds {
    /// Makes the sound of the test card; usually its tone.
    pub card: CardSound,
    /// How to make the sound of programs; without it they are silent.
    pub programs: Option<SoundOptions>,
}

/// Makes the sound of the test card.
pub type CardSound = fn(&AudioSpec) -> Box<dyn AudioSource>;

impl Default for Sounds {
    /// The tone of the test card, and silent programs.
    fn default() -> Self {
        Self { card: |spec| Box::new(ToneSource::new(spec.channels)), programs: None }
    }
}

/// The sound of one session.
pub(super) enum Sound {
    /// The test card's own.
    Card(CardSound),
    /// What its programs play.
    Programs(Box<SoundServer>),
    /// Nothing.
    Silence,
}

impl Sound {
    /// Starts the sound of a session of this app. `agent` is the session's, if it has programs. Does not wait.
    pub(super) fn start(app: &App, agent: Option<&Arc<dyn Agent>>, sounds: &Sounds) -> Self {
        if app.display == "pattern" {
            return Self::Card(sounds.card);
        }
        let (Some(agent), Some(options)) = (agent, &sounds.programs) else { return Self::Silence };
        match SoundServer::start(agent, options.clone()) {
            Ok(server) => Self::Programs(Box::new(server)),
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                warn!(%error, ?source, "the session's programs are silent");
                Self::Silence
            }
        }
    }

    /// Waits a moment until programs can play. Whatever is not ready then comes later, or not.
    pub(super) fn settle(&mut self) {
        if let Self::Programs(server) = self
            && !server.settle(SETTLE)
        {
            warn!("the session's sound server takes its time; programs start without it");
        }
    }

    /// What programs need in their environment.
    pub(super) fn child_env(&self) -> BTreeMap<String, String> {
        match self {
            Self::Programs(server) => server.child_env(),
            Self::Card(_) | Self::Silence => BTreeMap::new(),
        }
    }

    /// Looks after the sound server: to be called a few times a second.
    pub(super) fn check(&mut self) {
        if let Self::Programs(server) = self {
            server.check();
        }
    }

    /// The sound for a stream.
    pub(super) fn source(&mut self, spec: &AudioSpec) -> Box<dyn AudioSource> {
        match self {
            Self::Card(make) => make(spec),
            Self::Silence => Box::new(SilenceSource::new(spec.channels)),
            Self::Programs(server) => match server.source(spec.channels) {
                Ok(source) => Box::new(source),
                Err(error) => {
                    warn!(%error, "the stream is silent");
                    Box::new(SilenceSource::new(spec.channels))
                }
            },
        }
    }
}
