//! The test card as a display: needs no compositor, no GPU and no process, and ships.
//!
//! An output honours its mode exactly and changes it while it runs. What input arrives is shown on the card. Tests get
//! at the [`Stage`] of an output to make it stand still, fail or die.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use punktfunk_core::media::Mode;

use super::{DisplayBackend, DisplayError, OutputSpec, ProbeReport, VirtualOutput};
use crate::capture::FrameSource;
use crate::capture::pattern::{Behaviour, PatternSource, Stage};
use crate::input::InputSink;
use crate::input::recording::RecordingSink;

/// Makes test cards.
#[derive(Debug, Default)]
pub struct PatternBackend {
    newest: Mutex<Option<Arc<Stage>>>,
}

impl PatternBackend {
    /// The stage of the output that was opened last, for tests that act on it.
    pub fn newest_stage(&self) -> Option<Arc<Stage>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl DisplayBackend for PatternBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self) -> Result<ProbeReport, DisplayError> {
        Ok(ProbeReport { detail: "test card, drawn by the host itself".to_owned(), proven: true })
    }

    fn needs_agent(&self) -> bool {
        false
    }

    fn open(&self, spec: &OutputSpec) -> Result<Box<dyn VirtualOutput>, DisplayError> {
        let stage = Arc::new(Stage::new(spec.mode));
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&stage));
        Ok(Box::new(PatternOutput { stage, mode: spec.mode }))
    }
}

/// One test card.
#[derive(Debug)]
struct PatternOutput {
    stage: Arc<Stage>,
    mode: Mode,
}

impl VirtualOutput for PatternOutput {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn set_mode(&mut self, mode: Mode) -> Result<(), DisplayError> {
        self.check()?;
        self.stage.set_mode(mode);
        self.mode = mode;
        Ok(())
    }

    fn child_env(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn open_capture(&mut self) -> Result<Box<dyn FrameSource>, DisplayError> {
        self.check()?;
        Ok(Box::new(PatternSource::new(Arc::clone(&self.stage), self.mode)))
    }

    fn open_input(&mut self) -> Result<Box<dyn InputSink>, DisplayError> {
        self.check()?;
        Ok(Box::new(RecordingSink::new(Arc::clone(&self.stage))))
    }

    fn check(&mut self) -> Result<(), DisplayError> {
        if self.stage.behaviour() == Behaviour::Dead {
            let reason = "the card was told to die".to_owned();
            return Err(DisplayError::Died { backend: NAME, reason });
        }
        Ok(())
    }

    fn close(self: Box<Self>, _grace: Duration) {}
}

impl Drop for PatternOutput {
    fn drop(&mut self) {
        // Sources and devices of a closed output are lost, as they are with a compositor.
        self.stage.set_behaviour(Behaviour::Dead);
    }
}

const NAME: &str = "pattern";
