//! Questions to root's program and its answers: for what the owner proves to want.
//!
//! Whoever asks blocks until there is an answer or no connection; the connection is the attendant's. An answer names no
//! question, so one is asked at a time, and after one that is not answered the connection is another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::{Heard, Said, SaidDeed, bytes, hex, line_of};
use crate::access::{Asked, Deed, Nonce, OwnerProof, Root, RootError};

/// An answer that has not come for so long does not come.
const LIMIT: Duration = Duration::from_secs(10);

/// The way to root's program, while there is a connection; clones share it.
#[derive(Clone)]
pub(in super::super) struct RootLine {
    questions: Arc<Mutex<Option<mpsc::Sender<Question>>>>,
    limit: Duration,
}

impl Default for RootLine {
    fn default() -> Self {
        Self { questions: Arc::default(), limit: LIMIT }
    }
}

/// A question on its way.
pub(super) struct Question {
    pub(super) line: Vec<u8>,
    until: Instant,
    answer: oneshot::Sender<Answer>,
}

/// What root says to a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Asked(Asked),
    Taken,
    Refused(RootError),
}

impl RootLine {
    /// One on which an answer has to come that soon.
    #[cfg(test)]
    pub(super) fn within(limit: Duration) -> Self {
        Self { limit, ..Self::default() }
    }

    /// There is a connection, on which these are to be asked; who asked on one before is told that it is gone.
    pub(super) fn open(&self) -> mpsc::Receiver<Question> {
        let (sender, receiver) = mpsc::channel(1);
        *self.questions.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    fn question(&self, said: &Said<'_>) -> Result<Answer, RootError> {
        let line = line_of(said).map_err(|_| RootError::Absent)?;
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, answered) = oneshot::channel();
        let question = Question { line, until: Instant::now() + self.limit, answer };
        // Where there is no connection any more nobody receives them.
        let sent = questions.and_then(|questions| questions.blocking_send(question).ok());
        sent.and_then(|()| answered.blocking_recv().ok()).ok_or(RootError::Absent)
    }
}

impl Root for RootLine {
    fn ask(&self, deed: Deed) -> Result<Asked, RootError> {
        match self.question(&Said::AskProof { deed: SaidDeed::of(deed) })? {
            Answer::Asked(asked) => Ok(asked),
            Answer::Refused(why) => Err(why),
            Answer::Taken => Err(RootError::Proof),
        }
    }

    fn bring(&self, deed: Deed, proof: &OwnerProof) -> Result<(), RootError> {
        let (nonce, proof) = (hex(&proof.nonce.0), hex(&proof.signature));
        match self.question(&Said::BringProof { deed: SaidDeed::of(deed), nonce, proof })? {
            Answer::Taken => Ok(()),
            Answer::Refused(why) => Err(why),
            Answer::Asked(_) => Err(RootError::Proof),
        }
    }
}

impl Question {
    /// Ends when this one has not been answered in time; never where there is none.
    pub(super) async fn silence(asked: Option<&Self>) {
        match asked {
            Some(question) => sleep_until(question.until).await,
            None => std::future::pending().await,
        }
    }

    /// Answers it. Who asked may be gone.
    pub(super) fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

impl Answer {
    /// What a line says, if it is an answer.
    pub(super) fn of(line: &[u8]) -> Option<Self> {
        match serde_json::from_slice(line).ok()? {
            Heard::ProofAsked { nonce, salt, key } => {
                let parts = bytes(&nonce).zip(bytes(&salt)).zip(bytes(&key));
                let asked =
                    parts.map(|((nonce, salt), key)| Asked { salt, key, nonce: Nonce(nonce) });
                Some(asked.map_or(Self::Refused(RootError::Proof), Self::Asked))
            }
            Heard::ProofTaken => Some(Self::Taken),
            Heard::ProofRefused { why } => Some(Self::Refused(match why.as_str() {
                "no-key" => RootError::NoKey,
                "needs-presence" => RootError::Presence,
                "not-kept" => RootError::NotKept,
                _ => RootError::Proof,
            })),
            _ => None,
        }
    }
}

impl SaidDeed {
    pub(super) fn of(deed: Deed) -> Self {
        match deed {
            Deed::FactoryReset => Self::FactoryReset,
            Deed::RollbackBelowFloor { commit } => {
                Self::RollbackBelowFloor { commit: hex(&commit) }
            }
        }
    }
}
