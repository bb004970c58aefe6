//! Whether somebody may ask for something: polkit's word. No word is a no.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::timeout;
use zbus::fdo::DBusProxy;
use zbus::message::Header;
use zbus::names::{BusName, UniqueName};
use zbus::{Connection, Proxy, Variant};

use super::ACTIONS;
use crate::error::UpdateError;

const NAME: &str = "org.freedesktop.PolicyKit1";
const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";

/// So long polkit has to answer, which the bus may have to start first; nobody is asked for a password meanwhile.
const LIMIT: Duration = Duration::from_secs(60);

/// [`UpdateError::NotAllowed`], unless whoever has this name on the bus may ask for the verb.
///
/// # Errors
/// [`UpdateError::Failed`] when polkit has no word.
pub(super) async fn ask(
    connection: &Connection,
    caller: &UniqueName<'_>,
    verb: &str,
) -> Result<(), UpdateError> {
    let failed = |detail: &dyn std::fmt::Display| UpdateError::failed("ask who may", detail);
    let said = timeout(LIMIT, check(connection, caller, verb)).await;
    let said = said.map_err(|_| failed(&"polkit does not answer"))?;
    if said.map_err(|error| failed(&error))? { Ok(()) } else { Err(UpdateError::NotAllowed) }
}

/// Whether root itself asks, as it does for what a stick brought; nobody who cannot be asked for is.
pub(super) async fn is_root(connection: &Connection, call: &Header<'_>) -> bool {
    let Some(caller) = call.sender() else { return false };
    let Ok(bus) = DBusProxy::new(connection).await else { return false };
    bus.get_connection_unix_user(BusName::from(caller.to_owned())).await.is_ok_and(|uid| uid == 0)
}

async fn check(connection: &Connection, caller: &UniqueName<'_>, verb: &str) -> zbus::Result<bool> {
    let polkit = Proxy::new(connection, NAME, PATH, INTERFACE).await?;
    let subject = HashMap::from([("name", Variant::from(caller.as_str()))]);
    let action = format!("{ACTIONS}{verb}");
    // 0: nobody is asked for a password. The last is a name under which the question could be taken back.
    let question =
        (("system-bus-name", subject), action.as_str(), HashMap::<&str, &str>::new(), 0_u32, "");
    let answer: (bool, bool, HashMap<String, String>) =
        polkit.call("CheckAuthorization", &question).await?;
    Ok(answer.0)
}
