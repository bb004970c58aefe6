//! `/launch`, `/resume` and `/cancel`: from a paired client's wish to a session and a ticket for its stream.

use punktfunk_core::gamestream::query::{Query, QueryError, SessionParameters};
use punktfunk_core::gamestream::replies::{self, Refusal};
use punktfunk_core::media::Mode;
use tokio::task::spawn_blocking;

use super::{Guest, NvHttp, Rights};
use crate::gamestream::http::{Caller, Reply};
use crate::gamestream::ticket::{TicketError, TicketRequest};
use crate::session::apps::test_card;
use crate::session::{AppId, Running, SessionDesk, SessionError};
use crate::store::ClientId;

impl NvHttp {
    /// Starts an app; if this client already runs this app, resumes it with the new parameters.
    // spec: gamestream 2.11
    pub(super) async fn launch(&self, caller: &Caller, client: &Guest, query: &Query) -> Reply {
        let outcome = self.try_launch(caller, *client, query).await;
        log("launch", client.id, &outcome);
        Reply::Xml(replies::launch(outcome.as_ref().map(String::as_str)))
    }

    // spec: gamestream 2.12
    pub(super) async fn resume(&self, caller: &Caller, client: ClientId, query: &Query) -> Reply {
        let outcome = self.try_resume(caller, client, query).await;
        log("resume", client, &outcome);
        Reply::Xml(replies::resume(outcome.as_ref().map(String::as_str)))
    }

    /// Ends this client's session; the answer comes when all is gone.
    // spec: gamestream 2.13
    pub(super) async fn cancel(&self, client: ClientId) -> Reply {
        self.parts.tickets.withdraw(client);
        let ended = self.at_the_desk(move |desk| {
            desk.quit(client);
            Ok(())
        });
        match ended.await {
            Ok(()) => {
                tracing::info!(%client, "a client quit its session");
                Reply::Xml(replies::cancelled())
            }
            Err(refusal) => super::refuse(&refusal),
        }
    }

    async fn try_launch(
        &self,
        caller: &Caller,
        guest: Guest,
        query: &Query,
    ) -> Result<String, Refusal> {
        let (client, rights) = (guest.id, guest.rights);
        let parameters = SessionParameters::read(query).map_err(bad_request)?;
        let app =
            parameters.app.ok_or(QueryError::Missing { name: "appid" }).map_err(bad_request)?;
        let app = AppId(app);
        if rights == Rights::TestCard && app != test_card().id {
            let error = SessionError::UnknownApp { app };
            return Err(Refusal::new(code_of(&error), error));
        }
        let mode = parameters.mode.unwrap_or_else(usual_mode);
        // What was promised before is void: the new key replaces the old one.
        self.parts.tickets.withdraw(client);
        let was_running = self.parts.desk.running(client).is_some();
        let (store, pairing) = (self.parts.store.clone(), self.parts.pairing.clone());
        let remote = caller.remote;
        let launched = self.at_the_desk(move |desk| {
            let (running, is_known) = match rights {
                Rights::All => (desk.launch(client, app, mode)?, store.client(client).is_some()),
                Rights::TestCard => {
                    let running = desk.launch_self_test(client, mode)?;
                    (running, pairing.accepts_self_test(client, remote))
                }
            };
            if is_known {
                return Ok(Some(running));
            }
            // Removed while the app was starting: whoever ended this client's session found none yet.
            desk.quit(client);
            Ok(None)
        });
        let running =
            launched.await?.ok_or_else(|| Refusal::new(401, "this device is not paired"))?;
        let issued = self.issue(caller, client, &parameters, &running);
        if issued.is_err() && !was_running {
            // The client was told that nothing started, so nothing may be left running for it.
            self.at_the_desk(move |desk| {
                desk.quit(client);
                Ok(())
            })
            .await?;
        }
        issued
    }

    async fn try_resume(
        &self,
        caller: &Caller,
        client: ClientId,
        query: &Query,
    ) -> Result<String, Refusal> {
        let parameters = SessionParameters::read(query).map_err(bad_request)?;
        self.parts.tickets.withdraw(client);
        let running = self.at_the_desk(move |desk| desk.resume(client)).await?;
        self.issue(caller, client, &parameters, &running)
    }

    /// Promises a stream; returns where to begin it.
    fn issue(
        &self,
        caller: &Caller,
        client: ClientId,
        parameters: &SessionParameters,
        running: &Running,
    ) -> Result<String, Refusal> {
        let request = TicketRequest {
            client,
            session: running.session,
            key: parameters.key.clone(),
            key_id: parameters.key_id,
            remote: caller.remote,
            mode: parameters.mode.unwrap_or(running.mode),
            encrypted_rtsp: parameters.encrypted_rtsp,
        };
        self.parts.tickets.issue(request).map_err(|error| {
            let code = match error {
                TicketError::KeyInUse => 400,
                TicketError::TooMany { .. } | TicketError::NoRandomness => 503,
            };
            Refusal::new(code, error)
        })?;
        Ok(replies::session_url(caller.local, self.parts.ports.rtsp, parameters.encrypted_rtsp))
    }

    /// Does something at the session desk that may block for seconds. It is done to its end even if the client leaves.
    async fn at_the_desk<T: Send + 'static>(
        &self,
        act: impl FnOnce(&dyn SessionDesk) -> Result<T, SessionError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let desk = self.parts.desk.clone();
        match spawn_blocking(move || act(&*desk)).await {
            Ok(outcome) => outcome.map_err(|error| Refusal::new(code_of(&error), error)),
            Err(error) => {
                tracing::error!(%error, "the session desk failed");
                Err(Refusal::new(503, "the host failed; its log says more"))
            }
        }
    }
}

// spec: gamestream 2.15
fn code_of(error: &SessionError) -> u16 {
    match error {
        SessionError::UnknownApp { .. } => 404,
        SessionError::Busy { .. } => 400,
        SessionError::NotPaired | SessionError::GuestTimeOver => 401,
        SessionError::MayNotLaunch => 403,
        SessionError::Full { .. }
        | SessionError::NotRunning
        | SessionError::Start { .. }
        | SessionError::Stream { .. }
        | SessionError::Stopping => 503,
    }
}

fn bad_request(error: QueryError) -> Refusal {
    Refusal::new(400, error)
}

/// For clients that name no mode: every client decodes it, and RTSP says what it really wants.
#[expect(clippy::expect_used, reason = "constants within the limits of a mode")]
fn usual_mode() -> Mode {
    Mode::new(1280, 720, 60_000).expect("720p60 is a mode")
}

fn log(wish: &'static str, client: ClientId, outcome: &Result<String, Refusal>) {
    match outcome {
        Ok(_) => tracing::info!(%client, wish, "a stream may begin"),
        Err(refusal) => {
            let (code, reason) = (refusal.code, &refusal.message);
            tracing::warn!(%client, wish, code, reason, "a wish was refused");
        }
    }
}
