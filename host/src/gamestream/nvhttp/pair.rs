//! `/pair`: attempts at pairing between their steps, and the way from the last step into the store.
//!
//! The steps themselves are `core::gamestream::pairing`; who may try, how often and with which PIN is decided at the
//! pairing desk. Here an attempt is found again by unique id and address, is answered once per step, and is reported
//! to the desk when it ended. A waiting attempt belongs to its open request: if the client goes, it goes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use punktfunk_core::gamestream::certificate::Certificate;
use punktfunk_core::gamestream::pairing::{
    Answer, Attempt, Drawn, Event, HostSide, PairRequest, RefuseReason,
};
use punktfunk_core::gamestream::query::{Query, encode_hex};
use punktfunk_core::gamestream::replies::{self, Refusal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::NvHttp;
use crate::gamestream::http::{Caller, Reply};
use crate::pairing::{Asking, PairingDesk, PairingOutcome, RequestId};
use crate::store::{ClientId, NewClient};

/// How long the steps after the PIN may take together; a client does them in one go.
const STEPS_TTL: Duration = Duration::from_secs(60);
/// A client that is silent for this long after step 3 saw that the PIN was wrong. It would answer within milliseconds.
// spec: gamestream 3.4
const SILENCE_MEANS_WRONG_PIN: Duration = Duration::from_secs(10);
/// The longest unique id, in bytes; clients send 16 hex digits.
const MAX_UNIQUE_ID_BYTES: usize = 128;

impl NvHttp {
    /// Steps 1 to 4, over plain HTTP.
    // spec: gamestream 3.1
    pub(super) async fn pair(&self, caller: &Caller, query: &Query) -> Reply {
        let unique_id = query.get("uniqueid").unwrap_or_default();
        if unique_id.len() > MAX_UNIQUE_ID_BYTES {
            return not_paired(&Refusal::new(400, "the unique id is too long"));
        }
        let device = Device { unique_id: unique_id.to_owned(), remote: caller.remote };
        let answered = match PairRequest::read(query) {
            Ok(PairRequest::HostCertificate { salt, certificate }) => {
                let name = query.get("devicename").unwrap_or_default();
                self.first_step(device, name, salt, certificate).await
            }
            Ok(PairRequest::Challenge(challenge)) => {
                draw().and_then(|drawn| self.step(&device, Event::Challenge { challenge, drawn }))
            }
            Ok(PairRequest::ChallengeResponse(response)) => {
                let answered = self.step(&device, Event::ChallengeResponse(response));
                self.attempts.watch_for_silence(device);
                answered
            }
            Ok(PairRequest::Secret(secret)) => self.last_step(&device, &secret).await,
            // Over plain HTTP nobody has shown a certificate.
            Ok(PairRequest::PairChallenge) => {
                Err(Refusal::new(400, "this step of pairing goes over HTTPS"))
            }
            Err(error) => {
                self.attempts.end(&device, PairingOutcome::ProtocolError);
                // Strangers can cause this as often as they like.
                tracing::debug!(remote = %caller.remote, %error, "a pairing request was refused");
                Err(Refusal::new(400, error))
            }
        };
        match answered {
            Ok(document) => Reply::Xml(document),
            Err(refusal) => not_paired(&refusal),
        }
    }

    /// Step 5, over HTTPS with a certificate that is paired: that it got here is the proof.
    // spec: gamestream 3.1
    pub(super) fn pair_challenge(&self, query: &Query) -> Reply {
        match PairRequest::read(query) {
            Ok(PairRequest::PairChallenge) => Reply::Xml(replies::paired(None)),
            _ => not_paired(&Refusal::new(400, "this step of pairing goes over plain HTTP")),
        }
    }

    /// Waits for the PIN. Dropped with the request if the client goes away, which withdraws the attempt.
    async fn first_step(
        &self,
        device: Device,
        device_name: &str,
        salt: [u8; 16],
        certificate: Certificate,
    ) -> Result<String, Refusal> {
        // A device that begins anew has given its last attempt up.
        self.attempts.end(&device, PairingOutcome::Abandoned);
        let asking = Asking {
            unique_id: device.unique_id.clone(),
            remote: device.remote,
            device_name: device_name.to_owned(),
            client: ClientId::of_certificate(certificate.der()),
        };
        let mut wait = self.parts.pairing.ask(asking).map_err(|refusal| {
            // The desk tells the owner, at a bearable rate.
            tracing::debug!(remote = %device.remote, %refusal, "a pairing was turned away");
            Refusal::new(503, refusal)
        })?;
        let waiting = self.attempts.begin(&device, wait.id());
        let pin = wait.pin().await.map_err(|why| Refusal::new(503, why))?;
        let attempt = Attempt::begin(salt, certificate);
        let (attempt, answer) =
            self.host_side(|host| attempt.step(Event::Pin(pin.as_bytes()), host));
        if !waiting.go_on(attempt) {
            return Err(Refusal::new(400, RefuseReason::Order));
        }
        reply_to(answer)
    }

    /// Steps 2 and 3.
    fn step(&self, device: &Device, event: Event<'_>) -> Result<String, Refusal> {
        let (id, answer) = self.advance(device, event)?;
        let answered = reply_to(answer);
        if answered.is_err() {
            self.parts.pairing.report(id, PairingOutcome::ProtocolError);
        }
        answered
    }

    /// Step 4: the certificate is trusted before the client can read that it is.
    // spec: gamestream 3.2
    async fn last_step(&self, device: &Device, secret: &[u8; 272]) -> Result<String, Refusal> {
        let (id, answer) = self.advance(device, Event::Secret(secret))?;
        let certificate = match answer {
            Answer::Trust(certificate) => certificate,
            Answer::Refuse(reason) => {
                let outcome = match reason {
                    RefuseReason::WrongPin => PairingOutcome::WrongPin,
                    _ => PairingOutcome::ProtocolError,
                };
                tracing::warn!(remote = %device.remote, %reason, "a pairing failed");
                self.parts.pairing.report(id, outcome);
                return Err(Refusal::new(400, reason));
            }
            _ => return Err(Refusal::new(400, RefuseReason::Order)),
        };
        let desk = self.parts.pairing.clone();
        // The owner was told how a request ended that left the desk, and that was not "paired".
        let Some(name) = desk.name_of(id) else {
            return Err(Refusal::new(400, "this pairing took too long"));
        };
        let client = ClientId::of_certificate(certificate.der());
        if let Some(trusted) = desk.trust_self_test(id, client) {
            if !trusted {
                desk.report(id, PairingOutcome::ProtocolError);
                return Err(Refusal::new(400, "the permit of this self-test is over"));
            }
            desk.report(id, PairingOutcome::Paired { client });
            tracing::info!("the self-test is paired, for as long as it runs");
            return Ok(replies::paired(None));
        }
        let certificate_der = certificate.der().to_vec();
        let new = NewClient { certificate_der, name, remote: device.remote };
        let store = self.parts.store.clone();
        // Runs to its end even if the client leaves now, so that the desk hears what came of it.
        let trusted = spawn_blocking(move || match store.add_client(new) {
            Ok(client) => {
                desk.note_name(id, &client.name);
                desk.report(id, PairingOutcome::Paired { client: client.id });
                tracing::info!(client = %client.id, name = client.name, "a device was paired");
                true
            }
            Err(error) => {
                desk.report(id, PairingOutcome::ProtocolError);
                tracing::warn!(%error, "a paired device could not be remembered");
                false
            }
        });
        if trusted.await.unwrap_or(false) {
            Ok(replies::paired(None))
        } else {
            Err(Refusal::new(503, "the host could not remember this device"))
        }
    }

    /// Takes the attempt out, steps it, and puts it back unless it ended.
    fn advance(&self, device: &Device, event: Event<'_>) -> Result<(RequestId, Answer), Refusal> {
        self.host_side(|host| self.attempts.step(device, event, host))
            .ok_or_else(|| Refusal::new(400, RefuseReason::Order))
    }

    fn host_side<T>(&self, act: impl FnOnce(&HostSide<'_>) -> T) -> T {
        let identity = &self.parts.identity;
        act(&HostSide {
            certificate_pem: identity.certificate_pem(),
            certificate_signature: identity.signature_bytes(),
            sign: &|message| match identity.sign(message) {
                Ok(signature) => Some(signature),
                Err(error) => {
                    tracing::error!(%error, "the host's key failed");
                    None
                }
            },
        })
    }
}

/// By what a device is found again between two steps. No identity: most clients share one unique id.
// spec: gamestream 3.2
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Device {
    unique_id: String,
    remote: IpAddr,
}

/// The attempts that are under way. The pairing desk bounds how many there can be.
pub(super) struct Attempts {
    desk: PairingDesk,
    entries: Mutex<HashMap<Device, Entry>>,
}

struct Entry {
    id: RequestId,
    stage: Stage,
}

enum Stage {
    /// The request of step 1 is open and waits for a PIN.
    Waiting,
    /// The PIN is known.
    Stepping { attempt: Attempt, until: Instant },
}

impl Attempts {
    pub(super) fn new(desk: PairingDesk) -> Self {
        Self { desk, entries: Mutex::default() }
    }

    /// A device says that it gave up.
    pub(super) fn abandon(&self, remote: IpAddr, unique_id: &str) {
        let device = Device { unique_id: unique_id.to_owned(), remote };
        self.end(&device, PairingOutcome::Abandoned);
    }

    /// Ends a device's attempt, if it has one. One that saw our secret and was not heard of again had a wrong PIN.
    fn end(&self, device: &Device, outcome: PairingOutcome) {
        let ended = self.entries().remove(device);
        if let Some(entry) = ended {
            let outcome = if entry.awaits_secret() { PairingOutcome::WrongPin } else { outcome };
            self.desk.report(entry.id, outcome);
        }
    }

    fn begin(self: &Arc<Self>, device: &Device, id: RequestId) -> Waiting {
        self.forget_late();
        let mut entries = self.entries();
        // Of two first steps at the same moment the desk kept the one with the higher number.
        if entries.get(device).is_none_or(|entry| entry.id < id) {
            entries.insert(device.clone(), Entry { id, stage: Stage::Waiting });
        }
        drop(entries);
        Waiting { attempts: self.clone(), device: device.clone(), id }
    }

    fn step(
        &self,
        device: &Device,
        event: Event<'_>,
        host: &HostSide<'_>,
    ) -> Option<(RequestId, Answer)> {
        self.forget_late();
        // Held over the step, which is a millisecond of arithmetic: an attempt that was out of the map could be put
        // back over the one with which the device began anew meanwhile.
        let mut entries = self.entries();
        let Entry { id, stage } = entries.remove(device)?;
        let Stage::Stepping { attempt, until } = stage else {
            drop(entries);
            self.desk.report(id, PairingOutcome::ProtocolError);
            return None;
        };
        let (attempt, answer) = attempt.step(event, host);
        if !matches!(attempt, Attempt::Ended) {
            let entry = Entry { id, stage: Stage::Stepping { attempt, until } };
            entries.insert(device.clone(), entry);
        }
        Some((id, answer))
    }

    /// Ends the attempt as a wrong PIN if step 4 does not follow.
    fn watch_for_silence(self: &Arc<Self>, device: Device) {
        let id = self.entries().get(&device).filter(|entry| entry.awaits_secret()).map(|e| e.id);
        let (Some(id), attempts) = (id, Arc::downgrade(self)) else { return };
        tokio::spawn(async move {
            sleep(SILENCE_MEANS_WRONG_PIN).await;
            let Some(attempts) = attempts.upgrade() else { return };
            let is_silent = attempts.entries().get(&device).is_some_and(|entry| entry.id == id);
            if is_silent {
                attempts.end(&device, PairingOutcome::WrongPin);
            }
        });
    }

    fn forget_late(&self) {
        let now = Instant::now();
        let mut late = Vec::new();
        self.entries().retain(|_, entry| {
            let is_late = matches!(entry.stage, Stage::Stepping { until, .. } if until <= now);
            if is_late {
                late.push(entry.id);
            }
            !is_late
        });
        for id in late {
            self.desk.report(id, PairingOutcome::Abandoned);
        }
    }

    // The map is whole after a panic of another thread: nothing panics while it is changed.
    fn entries(&self) -> MutexGuard<'_, HashMap<Device, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn awaits_secret(&self) -> bool {
        matches!(self.stage, Stage::Stepping { attempt: Attempt::AwaitSecret { .. }, .. })
    }
}

/// An attempt whose first request is open. Dropped with it, it leaves the map.
struct Waiting {
    attempts: Arc<Attempts>,
    device: Device,
    id: RequestId,
}

impl Waiting {
    /// The PIN came; false if the attempt was ended meanwhile.
    fn go_on(self, attempt: Attempt) -> bool {
        let until = Instant::now() + STEPS_TTL;
        let mut entries = self.attempts.entries();
        match entries.get_mut(&self.device).filter(|entry| entry.id == self.id) {
            Some(entry) => {
                entry.stage = Stage::Stepping { attempt, until };
                true
            }
            None => false,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut entries = self.attempts.entries();
        let is_own = entries
            .get(&self.device)
            .is_some_and(|entry| entry.id == self.id && matches!(entry.stage, Stage::Waiting));
        if is_own {
            entries.remove(&self.device);
        }
    }
}

/// The document for an answer of the machine; a refusal if it says so.
fn reply_to(answer: Answer) -> Result<String, Refusal> {
    Ok(match answer {
        Answer::HostCertificate(pem) => {
            replies::paired(Some(("plaincert", &encode_hex(pem.as_bytes()))))
        }
        Answer::ChallengeResponse(bytes) => {
            replies::paired(Some(("challengeresponse", &encode_hex(&bytes))))
        }
        Answer::Secret(bytes) => replies::paired(Some(("pairingsecret", &encode_hex(&*bytes)))),
        Answer::Trust(_) => return Err(Refusal::new(400, RefuseReason::Order)),
        Answer::Refuse(reason) => return Err(Refusal::new(400, reason)),
    })
}

fn draw() -> Result<Drawn, Refusal> {
    let mut drawn = Drawn { secret: [0; 16], challenge: [0; 16] };
    let filled = rand::fill(&mut drawn.secret).and_then(|()| rand::fill(&mut drawn.challenge));
    filled.map_err(|_| {
        tracing::error!("the system gave no random bytes");
        Refusal::new(503, "the host has no random bytes")
    })?;
    Ok(drawn)
}

fn not_paired(refusal: &Refusal) -> Reply {
    Reply::Xml(replies::not_paired(refusal))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::identity::Identity;
    use crate::pairing::{DeskMode, DeskOptions};
    use crate::store::Store;

    #[test]
    fn a_device_that_begins_anew_is_not_overtaken_by_its_last_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let identity = Identity::load_or_create(&store).unwrap();
        let desk = PairingDesk::new(DeskOptions::new(DeskMode::Prompt));
        let attempts = Arc::new(Attempts::new(desk));
        let device = Device { unique_id: "x".into(), remote: [10, 0, 0, 1].into() };
        let host = |sign| HostSide { certificate_pem: "", certificate_signature: &[], sign };

        let client = Certificate::from_der(identity.certificate_der()).unwrap();
        let (attempt, _) =
            Attempt::begin([0; 16], client).step(Event::Pin(b"1234"), &host(&|_| None));
        assert!(attempts.begin(&device, RequestId(1)).go_on(attempt));
        let challenge = Event::Challenge { challenge: [0; 16], drawn: draw().unwrap() };
        attempts.step(&device, challenge, &host(&|_| None)).unwrap();

        // While the third step is being answered, the device begins anew.
        let (began, has_begun) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let anew = thread::spawn({
            let (attempts, device) = (attempts.clone(), device.clone());
            move || {
                let () = told.recv().unwrap();
                let waiting = attempts.begin(&device, RequestId(2));
                began.send(()).unwrap();
                waiting
            }
        });
        let sign = |message: &[u8]| {
            tell.send(()).unwrap();
            let _ = has_begun.recv_timeout(Duration::from_millis(100));
            identity.sign(message).ok()
        };
        attempts.step(&device, Event::ChallengeResponse([0; 32]), &host(&sign)).unwrap();
        let waiting = anew.join().unwrap();
        assert_eq!(attempts.entries().get(&device).map(|entry| entry.id), Some(RequestId(2)));
        drop(waiting);
    }
}
