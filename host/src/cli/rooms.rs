//! Which backends work here: each is tried before it is chosen.

use std::collections::BTreeMap;
use std::sync::Arc;

use punktfunk_core::media::Codec;

use crate::audio::pipewire::SoundOptions;
use crate::display::DisplayBackend;
use crate::display::pattern::PatternBackend;
use crate::display::sway::SwayBackend;
use crate::encode::EncoderBackend;
use crate::encode::x264::X264Backend;
use crate::health::child::Examiner;
use crate::health::{self, Finding};
use crate::mgmt::wire::Backend;

/// What hardware rooms have to offer here.
pub(super) struct Rooms {
    pub(super) displays: BTreeMap<String, Arc<dyn DisplayBackend>>,
    pub(super) encoder: Arc<dyn EncoderBackend>,
    pub(super) codecs: Vec<Codec>,
    /// How to make the sound of programs.
    pub(super) sound: Option<SoundOptions>,
    pub(super) found: Vec<Backend>,
    pub(super) problems: Vec<String>,
}

impl Rooms {
    fn none() -> Self {
        Self {
            displays: BTreeMap::new(),
            encoder: Arc::new(X264Backend),
            codecs: vec![],
            sound: None,
            found: vec![],
            problems: vec![],
        }
    }

    pub(super) fn probe(examiner: &Examiner) -> Self {
        let mut rooms = Self::none();
        let displays: [Arc<dyn DisplayBackend>; 2] =
            [Arc::new(SwayBackend::default()), Arc::new(PatternBackend::default())];
        for display in displays {
            rooms.try_display(examiner, display);
        }
        rooms.try_encoder(examiner);
        rooms.try_sound(examiner);
        rooms
    }

    /// A display is chosen once it has shown a picture here: that it is installed says nothing.
    fn try_display(&mut self, examiner: &Examiner, display: Arc<dyn DisplayBackend>) {
        let name = display.name();
        let tried = display.probe().map_err(|error| error.to_string()).and_then(|report| {
            match examiner.examine(&health::display_check(Arc::clone(&display))) {
                Ok(Finding::Works { evidence }) => Ok(evidence),
                Ok(finding) => Err(format!("the display backend {name} is not used: {finding}")),
                // As with the encoder, below.
                Err(_) if report.proven => Ok(report.detail),
                Err(_) => Err(format!("the display backend {name} is unproven: {}", report.detail)),
            }
        });
        match tried {
            Ok(why) => {
                let (room, chosen) = ("display".to_owned(), name.to_owned());
                self.found.push(Backend { room, chosen, why });
                self.displays.insert(name.to_owned(), display);
            }
            Err(problem) => self.problems.push(problem),
        }
    }

    /// As with displays; but a stream without the sound of programs is still one.
    fn try_sound(&mut self, examiner: &Examiner) {
        let probed = crate::audio::pipewire::probe();
        let tried = probed
            .and_then(|report| Ok((report.options()?, report)))
            .map_err(|error| error.to_string())
            .and_then(|found| match examiner.examine(&health::sound_check()) {
                Ok(finding) if !finding.works() => {
                    Err(format!("programs are not heard, pipewire is {finding}"))
                }
                Ok(_) | Err(_) => Ok(found),
            });
        let (chosen, why) = match tried {
            Ok((options, report)) => {
                self.sound = Some(options);
                (report.to_string(), "each session has a sound server of its own")
            }
            Err(problem) => {
                self.problems.push(problem);
                ("built in".to_owned(), "the test card brings its own tone")
            }
        };
        let (room, why) = ("sound".to_owned(), why.to_owned());
        self.found.push(Backend { room, chosen, why });
    }

    /// The encoder is tried in a process of its own: one that crashes does not take the host along, and what it
    /// leaves in memory goes with that process.
    fn try_encoder(&mut self, examiner: &Examiner) {
        let tried = match examiner.examine(&health::encoder_check(Arc::clone(&self.encoder))) {
            Ok(Finding::Works { .. }) => Ok(self.encoder.codecs()),
            Ok(finding) => Err(format!("{} {finding}", self.encoder.name())),
            // Where this program is not the host's own but one that has the host in it.
            Err(_) => self.encoder.probe().map_err(|error| error.to_string()),
        };
        match tried {
            Ok(codecs) => {
                let names: Vec<String> = codecs.iter().map(Codec::to_string).collect();
                self.found.push(Backend {
                    room: "encoder".to_owned(),
                    chosen: self.encoder.name().to_owned(),
                    why: format!(
                        "encodes {} in software; this version has no hardware encoder",
                        names.join(", ")
                    ),
                });
                self.codecs = codecs;
            }
            // The console must come up even when streaming cannot; a launch will be refused with this reason.
            Err(error) => self.problems.push(format!("no stream is possible: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::{DisplayError, OutputSpec, ProbeReport, VirtualOutput};

    /// Says of itself that it works.
    #[derive(Debug)]
    struct Installed;

    impl DisplayBackend for Installed {
        fn name(&self) -> &'static str {
            "installed"
        }

        fn probe(&self) -> Result<ProbeReport, DisplayError> {
            Ok(ProbeReport { detail: "version 1".to_owned(), proven: true })
        }

        fn needs_agent(&self) -> bool {
            true
        }

        fn open(&self, _: &OutputSpec) -> Result<Box<dyn VirtualOutput>, DisplayError> {
            unreachable!("a display is tried in a process of its own")
        }
    }

    /// Rooms in which every check ends with these words.
    fn rooms(said: &str) -> Rooms {
        let script = format!("echo '{said}'");
        let examiner = Examiner::new("/bin/sh".into(), vec!["-c".into(), script.into()]);
        let mut rooms = Rooms::none();
        rooms.try_display(&examiner, Arc::new(Installed));
        rooms.try_encoder(&examiner);
        rooms.try_sound(&examiner);
        rooms
    }

    #[test]
    fn what_delivered_is_offered_with_the_evidence() {
        let rooms = rooms(r#"{"outcome":"works","evidence":"a picture"}"#);
        assert!(rooms.displays.contains_key("installed") && !rooms.codecs.is_empty());
        let display = rooms.found.iter().find(|found| found.room == "display").unwrap();
        assert_eq!((display.chosen.as_str(), display.why.as_str()), ("installed", "a picture"));
    }

    #[test]
    fn what_is_installed_and_delivers_nothing_is_not_offered() {
        for said in [
            r#"{"outcome":"broken","reason":"it is dark"}"#,
            r#"{"outcome":"unproven","reason":"it is dark"}"#,
            r#"{"outcome":"missing","reason":"it is dark","remedy":"light"}"#,
        ] {
            let rooms = rooms(said);
            assert!(rooms.displays.is_empty() && rooms.codecs.is_empty(), "{said}");
            assert!(rooms.sound.is_none(), "{said}");
            let told = |of| {
                let mut problems = rooms.problems.iter();
                problems.any(|text| text.contains(of) && text.contains("it is dark"))
            };
            assert!(
                told("the display backend installed") && told("no stream is possible"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_program_that_has_the_host_in_it_can_only_ask_what_is_installed() {
        let rooms = rooms("usage: something else");
        assert_eq!(rooms.found.first().unwrap().why, "version 1");
        assert!(rooms.problems.iter().all(|problem| !problem.contains("installed is not used")));
    }
}
