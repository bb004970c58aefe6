//! The fence: sessions may use the network, but not the doors of this host, where its owner's devices come in. One
//! table of the kernel's packet filter says so. It is laid anew with every session, because whoever flushes all tables
//! of the machine takes it along.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::{Error, Options};

/// The rules, as `nft -f -` reads them, in one transaction. What is sent to everybody comes to this host as well.
pub fn rules(options: &Options) -> String {
    let (first, last) = (options.first_uid, options.first_uid + u32::from(options.profiles) - 1);
    let ports = &options.ports;
    let here = "fib daddr type { local, broadcast, multicast, anycast }";
    format!(
        "{NONE}table inet punktfunk_sessions {{
  chain output {{
    type filter hook output priority filter; policy accept;
    meta skuid {first}-{last} {here} tcp dport {{ {ports} }} reject with tcp reset
    meta skuid {first}-{last} {here} udp dport {{ {ports} }} reject
  }}
}}
"
    )
}

/// A table must be there to be deleted.
pub(crate) const NONE: &str =
    "table inet punktfunk_sessions {}\ndelete table inet punktfunk_sessions\n";

/// Lays the [`rules`], or none.
pub(crate) fn apply(rules: &str) -> Result<(), Error> {
    let mut command = Command::new("/usr/sbin/nft");
    command.args(["-f", "-"]).env_clear().stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut nft = command.spawn().map_err(Error::io("/usr/sbin/nft"))?;
    // What it could not read it complains of.
    let _ = nft.stdin.take().map(|mut stdin| stdin.write_all(rules.as_bytes()));
    let done = nft.wait_with_output().map_err(Error::io("/usr/sbin/nft"))?;
    let said = String::from_utf8_lossy(&done.stderr).lines().next().unwrap_or("?").to_owned();
    let refused = Error::Refused(format!("the packet filter takes no rules: {said}"));
    if done.status.success() { Ok(()) } else { Err(refused) }
}
