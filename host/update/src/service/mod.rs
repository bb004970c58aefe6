//! The engine on the system bus, for those who may ask it.
//!
//! A program of its own, started by the bus when somebody asks and gone when nobody has for a while. The engine works on
//! one thread; the bus is answered on another and never waits for it. One thing is done at a time. What is done goes on
//! when whoever asked for it goes away; the same question by somebody else then waits for the same answer.
//!
//! [`bring`] is who asks for what a stick brought.
//!
//! Whoever asks is trusted with nothing: a commit is looked up in what is signed, and a file is copied before it is read.
//! Whether they may ask at all, polkit says, for each verb: `org.punktfunk.os1.<verb>`.
//!
//! Deliberately absent: what everybody may know. It lies in a file that the engine writes, before this has its name on
//! the bus.

mod authority;
pub mod bring;
mod desk;
mod life;
mod os1;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use zbus::connection::Builder;

use crate::engine::Engine;

use desk::Desk;
use life::Life;
use os1::Os1;

/// What the service is called.
pub const NAME: &str = "org.punktfunk.Os1";
/// Where it answers, under the interface of the same name.
pub const PATH: &str = "/org/punktfunk/Os1";
/// What its errors are called; their message is a [`crate::error::UpdateError`] as JSON.
pub const ERROR: &str = "org.punktfunk.Os1.Error";
/// What its verbs are called where it is said who may ask, before their own names.
pub const ACTIONS: &str = "org.punktfunk.os1.";

/// After its name is given back so long is waited for what the bus had handed over before.
const LAST_CALLS: Duration = Duration::from_millis(200);

/// How the service is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The address of another bus than the system's.
    pub bus: Option<String>,
    /// After so long without a question it ends.
    pub idle: Duration,
}

/// Why the service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nobody asked for anything.
    Idle,
    /// It was to.
    Stopped,
    /// The bus is gone.
    NoBus,
}

/// Serves until nobody asks any more, or `stop` is there. What is being done then is stopped and waited for.
///
/// # Errors
/// There is no bus, or somebody else has the name.
pub async fn serve(
    engine: Engine,
    options: Options,
    stop: impl Future<Output = ()>,
) -> zbus::Result<End> {
    let worker = worker::Worker::start(engine)?;
    let life = Life::default();
    let desk = Arc::new(Desk::new(worker));
    desk.begin().await;
    let os1 = Os1::new(Arc::clone(&desk), life.clone());
    let builder = match &options.bus {
        Some(address) => Builder::address(address.as_str()),
        None => Builder::system(),
    };
    let connection = builder.serve_at(PATH, os1).build().await?;
    connection.request_name(NAME).await?;
    let mut stop = std::pin::pin!(stop);
    let end = loop {
        tokio::select! {
            () = &mut stop => break End::Stopped,
            () = connection.closed() => break End::NoBus,
            () = life.idle(options.idle) => {}
        }
        // Who asks from now on has another one started.
        let before = life.count();
        connection.release_name(NAME).await?;
        tokio::time::sleep(LAST_CALLS).await;
        if life.count() == before {
            break End::Idle;
        }
        connection.request_name(NAME).await?;
    };
    // Whoever waits for an answer gets none any more, and holds the desk no longer than the bus.
    desk.stop();
    Ok(end)
}
