//! The programs of an app: started on the session's output by the session's agent, ended with it.
//!
//! The end of an app is: ask all of its programs to end, wait, kill their groups. A program may leave its group
//! (terminals give their shells a session of their own); that is ended with the session, by the agent. Output goes
//! nowhere; an app's own log is its own business.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::App;
use crate::agent::{Agent, AgentError, Process, ProcessSpec};

/// The running programs of one app.
#[derive(Default)]
pub(super) struct Programs(Vec<Box<dyn Process>>);

impl Programs {
    /// Starts the app's programs with the output's environment.
    ///
    /// # Errors
    /// The program that could not be started, and why; those already started are ended.
    pub(super) fn start(
        app: &App,
        agent: Option<&dyn Agent>,
        output_env: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let mut environment = output_env.clone();
        environment.insert("LC_ALL".to_owned(), "C.UTF-8".to_owned());
        let mut programs = Self::default();
        for words in &app.commands {
            let Some((program, arguments)) = words.split_first() else { continue };
            let agent = agent.ok_or("this session cannot start programs")?;
            let spec = ProcessSpec {
                program: program.clone(),
                arguments: arguments.to_vec(),
                environment: environment.clone(),
                keeps_last_words: false,
            };
            let process = agent.spawn(&spec).map_err(|error| match error {
                AgentError::Refused { reason, .. } => {
                    format!("\"{program}\" did not start: {reason}")
                }
                other => other.to_string(),
            })?;
            programs.0.push(process);
        }
        Ok(programs)
    }

    /// Whether the app is over: its first program has ended. An app without programs never is.
    pub(super) fn over(&self) -> bool {
        self.0.first().is_some_and(|first| first.wait(Duration::ZERO))
    }

    /// Ends all programs within `grace`, by force after it.
    pub(super) fn end(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        // All are asked before one is waited for.
        for program in &self.0 {
            program.ask_to_end();
        }
        for mut program in self.0.drain(..) {
            program.terminate(deadline.saturating_duration_since(Instant::now()));
        }
    }
}
