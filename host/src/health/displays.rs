//! Displays and their input devices: an output is opened, has to show a picture of its own size, takes a key.

use std::time::{Duration, Instant};

use punktfunk_core::input::{InputEvent, KeyCode};
use punktfunk_core::media::{Mode, ModeError};

use super::{DOCTOR, Finding};
use crate::agent::{AgentError, AgentStarter};
use crate::capture::{CaptureError, CapturedFrame};
use crate::display::{DisplayBackend, DisplayError, OutputSpec, VirtualOutput};
use crate::input::InputError;

/// How long a new output may show nothing.
const FIRST_PICTURE: Duration = Duration::from_secs(5);

/// How long an output may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// A key that does nothing by itself: the left shift.
const HARMLESS: KeyCode = KeyCode(42);

/// Opens an output and waits for a picture.
pub(super) fn picture(backend: &dyn DisplayBackend, agents: &dyn AgentStarter) -> Finding {
    on_an_output(backend, agents, |output| {
        let began = Instant::now();
        let mode = output.mode();
        let mut source = output.open_capture()?;
        while began.elapsed() < FIRST_PICTURE {
            let Some(frame) = source.next_frame(Duration::from_millis(100))? else { continue };
            return judge(&frame, mode);
        }
        Err(Trouble::Nothing { seconds: FIRST_PICTURE.as_secs() })
    })
}

fn judge(frame: &CapturedFrame, mode: Mode) -> Result<String, Trouble> {
    if (frame.width, frame.height) != (mode.width(), mode.height()) {
        let (width, height) = (frame.width, frame.height);
        return Err(Trouble::Size { width, height, mode });
    }
    if frame.pixels.bytes().len() < frame.stride * frame.height as usize {
        return Err(Trouble::Short { got: frame.pixels.bytes().len() });
    }
    Ok(format!("showed a picture of {}x{}", frame.width, frame.height))
}

/// Opens an output and presses a key on it.
pub(super) fn input(backend: &dyn DisplayBackend, agents: &dyn AgentStarter) -> Finding {
    on_an_output(backend, agents, |output| {
        let mut devices = output.open_input()?;
        for pressed in [true, false] {
            devices.apply(&InputEvent::Key { key: HARMLESS, pressed })?;
        }
        devices.apply(&InputEvent::PointerPosition { x: 0.5, y: 0.5 })?;
        devices.release_all()?;
        // What a compositor does not understand, it answers by ending the connection or itself.
        output.check()?;
        Ok("took a key and a movement of the pointer".to_owned())
    })
}

fn on_an_output(
    backend: &dyn DisplayBackend,
    agents: &dyn AgentStarter,
    act: impl FnOnce(&mut dyn VirtualOutput) -> Result<String, Trouble>,
) -> Finding {
    let report = match backend.probe() {
        Ok(report) => report,
        Err(DisplayError::Unavailable { reason, .. }) => return unavailable(&reason),
        Err(error) => return Finding::broken(&error),
    };
    let tried = (|| {
        let agent = if backend.needs_agent() { Some(agents.start(DOCTOR)?) } else { None };
        let mode = Mode::new(640, 360, 60_000)?;
        let mut output = backend.open(&OutputSpec { mode, agent: agent.clone() })?;
        let evidence = act(output.as_mut());
        output.close(GRACE);
        if let Some(agent) = agent {
            agent.end(GRACE);
        }
        evidence
    })();
    match tried {
        Ok(evidence) => Finding::works_with(format!("{evidence} ({})", report.detail)),
        Err(Trouble::Agent(error)) => Finding::without_agent(&error),
        // It is no loss that something nobody has seen working does not work.
        Err(trouble) if !report.proven => Finding::Unproven {
            reason: format!("{}: {}", report.detail, super::in_a_line(&trouble)),
        },
        Err(trouble) => Finding::broken(&trouble),
    }
}

/// Backends end their reason with what to do, in brackets, where there is something to do.
fn unavailable(reason: &str) -> Finding {
    match reason.rsplit_once(" (Debian: ") {
        Some((reason, remedy)) => Finding::missing(reason, remedy.trim_end_matches(')')),
        None => Finding::missing(reason, "ask the host while it runs: punktfunk-host doctor"),
    }
}

/// Why an output did not do what it was opened for.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Display(#[from] DisplayError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Mode(#[from] ModeError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("it showed no picture in {seconds} seconds")]
    Nothing { seconds: u64 },
    #[error("it showed a picture of {width}x{height}; {mode} was asked for")]
    Size { width: u32, height: u32, mode: Mode },
    #[error("its picture has {got} bytes, which is less than its size needs")]
    Short { got: usize },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::capture::FrameSource;
    use crate::capture::pattern::{Behaviour, PatternSource, Stage};
    use crate::display::ProbeReport;
    use crate::display::pattern::PatternBackend;
    use crate::health::machine::tests::Agents;
    use crate::input::InputSink;
    use crate::input::recording::RecordingSink;

    /// A display that goes wrong where it is told to.
    #[derive(Clone, Copy, PartialEq)]
    enum Fake {
        NotInstalled,
        DoesNotStart,
        ShowsNothing,
        WrongSize,
        Dies,
        NobodySawIt,
        NoAgent,
    }

    impl DisplayBackend for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn probe(&self) -> Result<ProbeReport, DisplayError> {
            if *self == Self::NotInstalled {
                let reason = "the program `fake` is not installed (Debian: apt install fake)";
                return Err(DisplayError::Unavailable { backend: "fake", reason: reason.into() });
            }
            Ok(ProbeReport { detail: "fake 1.0".into(), proven: *self != Self::NobodySawIt })
        }

        fn needs_agent(&self) -> bool {
            *self == Self::NoAgent
        }

        fn open(&self, spec: &OutputSpec) -> Result<Box<dyn VirtualOutput>, DisplayError> {
            if matches!(self, Self::DoesNotStart | Self::NobodySawIt) {
                let reason = "it has no screen".to_owned();
                return Err(DisplayError::Start { backend: "fake", reason });
            }
            Ok(Box::new(FakeOutput { fake: *self, mode: spec.mode }))
        }
    }

    struct FakeOutput {
        fake: Fake,
        mode: Mode,
    }

    impl VirtualOutput for FakeOutput {
        fn mode(&self) -> Mode {
            self.mode
        }
        fn set_mode(&mut self, mode: Mode) -> Result<(), DisplayError> {
            self.mode = mode;
            Ok(())
        }
        fn child_env(&self) -> BTreeMap<String, String> {
            BTreeMap::new()
        }
        fn open_capture(&mut self) -> Result<Box<dyn FrameSource>, DisplayError> {
            let mode = match self.fake {
                Fake::WrongSize => Mode::new(320, 180, 60_000).unwrap(),
                _ => self.mode,
            };
            let stage = Arc::new(Stage::new(mode));
            match self.fake {
                Fake::Dies => stage.set_behaviour(Behaviour::Dead),
                Fake::ShowsNothing => return Ok(Box::new(Nothing)),
                _ => {}
            }
            Ok(Box::new(PatternSource::new(stage, mode)))
        }
        fn open_input(&mut self) -> Result<Box<dyn InputSink>, DisplayError> {
            Ok(Box::new(RecordingSink::new(Arc::new(Stage::new(self.mode)))))
        }
        fn check(&mut self) -> Result<(), DisplayError> {
            match self.fake {
                Fake::Dies => {
                    Err(DisplayError::Died { backend: "fake", reason: "out of memory".into() })
                }
                _ => Ok(()),
            }
        }
        fn close(self: Box<Self>, _: Duration) {}
    }

    struct Nothing;

    impl FrameSource for Nothing {
        fn next_frame(&mut self, _: Duration) -> Result<Option<CapturedFrame>, CaptureError> {
            Ok(None)
        }
    }

    fn try_picture(backend: &dyn DisplayBackend) -> Finding {
        picture(backend, &Agents::default())
    }

    #[test]
    fn a_display_that_shows_a_picture_works_and_says_which() {
        let Finding::Works { evidence } = try_picture(&PatternBackend::default()) else { panic!() };
        assert!(evidence.contains("640x360"), "{evidence}");
    }

    #[test]
    fn what_is_not_installed_is_missing_with_the_command_that_installs_it() {
        let Finding::Missing { reason, remedy } = try_picture(&Fake::NotInstalled) else {
            panic!()
        };
        assert_eq!(reason, "the program `fake` is not installed");
        assert_eq!(remedy, "apt install fake");
    }

    #[test]
    fn what_does_not_deliver_is_broken_and_says_why() {
        for (fake, word) in [
            (Fake::DoesNotStart, "no screen"),
            (Fake::ShowsNothing, "no picture in 5 seconds"),
            (Fake::WrongSize, "320x180"),
            (Fake::Dies, "told to die"),
            (Fake::NoAgent, "no session can be started: nobody starts agents"),
        ] {
            let Finding::Broken { reason } = try_picture(&fake) else { panic!("{word}") };
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn what_never_delivered_anywhere_is_unproven() {
        let Finding::Unproven { reason } = try_picture(&Fake::NobodySawIt) else { panic!() };
        assert!(reason.contains("fake 1.0") && reason.contains("no screen"), "{reason}");
    }

    #[test]
    fn devices_work_if_the_output_outlives_a_key() {
        assert!(input(&PatternBackend::default(), &Agents::default()).works());
        let Finding::Broken { reason } = input(&Fake::Dies, &Agents::default()) else { panic!() };
        assert!(reason.contains("out of memory"), "{reason}");
    }
}
