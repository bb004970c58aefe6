//! The interface on the bus.

use std::sync::Arc;

use zbus::message::{Header, Message};
use zbus::names::ErrorName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, DBusError, OwnedFd, interface};

use super::desk::{Desk, What};
use super::life::Life;
use super::worker::{Answer, Job};
use super::{ERROR, authority};
use crate::error::UpdateError;
use crate::name::{Channel, Commit};

/// The object.
pub(super) struct Os1 {
    desk: Arc<Desk>,
    life: Life,
}

/// Why something was not done, as it goes over the bus.
#[derive(Debug)]
pub(super) struct Refused(String);

impl From<UpdateError> for Refused {
    fn from(error: UpdateError) -> Self {
        // What cannot be put into JSON has no code, and is told as it is.
        Self(serde_json::to_string(&error).unwrap_or_else(|_| error.to_string()))
    }
}

impl DBusError for Refused {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.0.as_str())
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(ERROR)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.0)
    }
}

/// A commit and what is wished of it, as they come.
struct Wish<'a> {
    commit: &'a str,
    flag: bool,
}

impl Os1 {
    pub(super) fn new(desk: Arc<Desk>, life: Life) -> Self {
        Self { desk, life }
    }

    async fn ask(
        &self,
        call: &Header<'_>,
        emitter: &SignalEmitter<'_>,
        what: What,
        job: Job,
    ) -> Answer {
        let caller = allowed(call, emitter.connection(), what.verb).await?;
        self.desk.ask(what, job, caller, emitter).await
    }

    async fn of_commit(
        &self,
        call: &Header<'_>,
        emitter: &SignalEmitter<'_>,
        verb: &'static str,
        wish: Wish<'_>,
        job: impl FnOnce(Commit, bool) -> Job,
    ) -> Result<(), Refused> {
        let _call = self.life.call();
        let commit: Commit = wish.commit.parse().map_err(malformed)?;
        let what = What { verb, of: format!("{commit} {}", wish.flag) };
        self.ask(call, emitter, what, job(commit, wish.flag)).await?;
        Ok(())
    }
}

fn malformed(error: crate::name::NameError) -> UpdateError {
    UpdateError::Malformed { detail: error.to_string() }
}

/// Who asks, if they may.
async fn allowed(
    call: &Header<'_>,
    connection: &Connection,
    verb: &str,
) -> Result<zbus::names::OwnedUniqueName, UpdateError> {
    let caller = call.sender().ok_or(UpdateError::NotAllowed)?;
    authority::ask(connection, caller, verb).await?;
    Ok(caller.to_owned().into())
}

#[interface(name = "org.punktfunk.Os1")]
impl Os1 {
    async fn check(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<String, Refused> {
        let _call = self.life.call();
        let what = What { verb: "check", of: String::new() };
        Ok(self.ask(&call, &emitter, what, Job::Check).await?)
    }

    async fn download(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        commit: &str,
        insist: bool,
    ) -> Result<(), Refused> {
        let wish = Wish { commit, flag: insist };
        let job = |commit, insist| Job::Download { commit, insist };
        self.of_commit(&call, &emitter, "download", wish, job).await
    }

    async fn stage(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        commit: &str,
        insist: bool,
    ) -> Result<(), Refused> {
        let wish = Wish { commit, flag: insist };
        let job = |commit, insist| Job::Stage { commit, insist };
        self.of_commit(&call, &emitter, "stage", wish, job).await
    }

    async fn apply(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        commit: &str,
        insist: bool,
    ) -> Result<(), Refused> {
        let wish = Wish { commit, flag: insist };
        let job = |commit, insist| Job::Apply { commit, insist };
        self.of_commit(&call, &emitter, "apply", wish, job).await
    }

    async fn pin(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        commit: &str,
        pinned: bool,
    ) -> Result<(), Refused> {
        let wish = Wish { commit, flag: pinned };
        let job = |commit, pinned| Job::Pin { commit, pinned };
        self.of_commit(&call, &emitter, "pin", wish, job).await
    }

    async fn follow(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        channel: &str,
    ) -> Result<(), Refused> {
        let _call = self.life.call();
        let channel: Channel = channel.parse().map_err(malformed)?;
        let what = What { verb: "follow", of: channel.to_string() };
        self.ask(&call, &emitter, what, Job::Follow(channel)).await?;
        Ok(())
    }

    async fn import_archive(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        archive: OwnedFd,
    ) -> Result<String, Refused> {
        let _call = self.life.call();
        // No two are the same.
        let of = call.primary().serial_num().to_string();
        let what = What { verb: "import", of };
        let is_stick = authority::is_root(emitter.connection(), &call).await;
        let job = Job::Import { from: archive.into(), is_stick };
        Ok(self.ask(&call, &emitter, what, job).await?)
    }

    async fn cancel(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refused> {
        let _call = self.life.call();
        allowed(&call, connection, "cancel").await?;
        self.desk.stop();
        Ok(())
    }

    /// How far a release is here, in bytes.
    #[zbus(signal)]
    pub(super) async fn progress(
        emitter: &SignalEmitter<'_>,
        commit: &str,
        done: u64,
        total: u64,
    ) -> zbus::Result<()>;
}
