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

/// What is in an archive is not known, so each is another one. Every connection counts its calls by itself, and the number
/// alone would be another one's too; with the connection's name, which the bus gives to nobody else while it lives, it is
/// no other's. A service that is started anew knows of none.
fn import(call: &Header<'_>) -> What {
    let sender = call.sender().map_or("", |name| name.as_str());
    What { verb: "import", of: format!("{sender} {}", call.primary().serial_num()) }
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
        let what = import(&call);
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn an_archive_of_another_is_another_one_though_both_have_counted_as_far() {
        let import_of = |sender: &str, serial: u32| {
            let call = Message::method_call("/", "ImportArchive").sender(sender);
            let call = call.serial(NonZeroU32::new(serial).unwrap());
            import(&call.build(&()).unwrap().header())
        };
        assert_eq!(import_of(":1.7", 5), import_of(":1.7", 5));
        assert_ne!(import_of(":1.7", 5), import_of(":1.8", 5));
        assert_ne!(import_of(":1.7", 5), import_of(":1.7", 6));
        assert_ne!(import_of(":1.7", 15), import_of(":1.71", 5));
    }
}
