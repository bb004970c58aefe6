//! The owner's doors, which open before anything else is there and stay open whatever fails: the box has no other face.
//!
//! All they need is the store, and a certificate for the console; where there is no store they open without. One thing
//! ends the daemon here: another one that runs already, because two would spoil each other's state.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::report::reachable_addresses;
use crate::access::{Access, AccessOptions, hide_claim};
use crate::config::Config;
use crate::identity::ConsoleIdentity;
use crate::listen::{any_address, inherited};
use crate::mgmt::wire::Listen;
use crate::mgmt::{
    About, Credentials, Failure, HostNames, HttpsLimits, HttpsOptions, HttpsServer, LocalName,
    MgmtError, MgmtOptions, MgmtServer, Nobody, Startup,
};
use crate::store::{Store, StoreError};

/// What the host remembers, as far as it could be opened.
pub(super) struct Memory {
    /// The store; or why there is none.
    pub(super) store: Result<Store, Failure>,
    /// Who may come in; nobody where there is no store.
    pub(super) access: Option<Access>,
    pub(super) console: ConsoleIdentity,
    /// What the owner is told.
    pub(super) problems: Vec<String>,
}

impl Memory {
    /// Opens the state folder, and takes what was prepared. May take as long as the disk does.
    ///
    /// # Errors
    /// Another host uses it, or the system gives no keys at all.
    pub(super) fn open(
        folder: Option<&Path>,
        name: &str,
        prepared: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let no_folder = || Failure {
            plain: "There is no folder for what the host is to remember. Whoever starts it must name one.",
            whole: "there is no folder for the host's state; set HOME or give --state-dir"
                .to_owned(),
        };
        let opened = folder.map(Store::open);
        if let (Some(folder), Some(Err(StoreError::Damaged { .. } | StoreError::TooNew { .. }))) =
            (folder, &opened)
        {
            // The folder is the host's own then, and no other host uses it.
            hide_claim(folder);
        }
        let store = match opened {
            Some(Err(error @ StoreError::InUse { .. })) => return Err(error.into()),
            Some(opened) => opened.map_err(|error| why_no_store(&error)),
            None => Err(no_folder()),
        };
        let mut problems = Vec::new();
        let kept = match &store {
            Ok(store) => ConsoleIdentity::load_or_create(store, name)
                .map_err(|error| problems.push(in_memory_because(&error.to_string())))
                .ok(),
            Err(error) => {
                problems.push(in_memory_because(&error.whole));
                None
            }
        };
        let console = match kept {
            Some(console) => console,
            None => ConsoleIdentity::in_memory(name)?,
        };
        let access = match (&store, folder) {
            (Ok(store), Some(folder)) => {
                let options = AccessOptions::of_machine(folder.to_owned());
                Access::open(store.clone(), options)
                    .map_err(|error| problems.push(format!("nobody can log in: {error}")))
                    .ok()
            }
            _ => None,
        };
        if let (Some(file), Some(access)) = (prepared, &access) {
            problems.extend(super::prepared::take(file, access));
        }
        Ok(Self { store, access, console, problems })
    }
}

/// Nobody can log in where there is no store; so everybody is told what to do about it.
fn why_no_store(error: &StoreError) -> Failure {
    let plain = match error {
        StoreError::Damaged { .. } => {
            "What the host remembers is damaged; nothing in it was changed. Restore a copy of its state folder, or move \
             it aside and start again: every device must then be paired anew."
        }
        StoreError::TooNew { .. } => {
            "What the host remembers was written by a newer version, which this one cannot read. Start that version \
             again."
        }
        _ => {
            "The host cannot use the folder with what it remembers: its disk may be full or broken, or the folder is \
             not the host's own. The host's log says which."
        }
    };
    Failure { plain, whole: error.to_string() }
}

fn in_memory_because(why: &str) -> String {
    format!("the console's certificate is made anew at each start, with another fingerprint: {why}")
}

/// Where the doors are.
pub(super) struct Places {
    pub(super) socket: PathBuf,
    pub(super) owner_uid: Option<u32>,
}

/// How the console is opened.
pub(super) type Addresses = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Where the console answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Console {
    listen: IpAddr,
    /// By which it is announced.
    pub(super) port: u16,
}

impl Console {
    /// What people type into a browser, as of now: addresses come and go.
    pub(super) fn address(self) -> String {
        browser_address(self.listen, self.port)
    }

    /// As the status names it.
    pub(super) fn listens(self) -> Listen {
        Listen { protocol: "console".to_owned(), address: self.address() }
    }
}

/// The open doors.
pub(super) struct Doors {
    socket: Option<MgmtServer>,
    https: HttpsServer,
    /// What could not be opened.
    pub(super) problems: Vec<String>,
    /// The console, if it is open.
    pub(super) console: Option<Console>,
    /// The ports that a service manager has opened for it.
    pub(super) handed: Vec<u16>,
}

impl Doors {
    /// Opens whatever can be opened, and says so. To be called on a tokio runtime.
    ///
    /// # Errors
    /// Another host answers on the local socket.
    pub(super) fn open(
        places: Places,
        config: &Config,
        console: &ConsoleIdentity,
        startup: &Startup,
        credentials: Arc<dyn Credentials>,
    ) -> anyhow::Result<Self> {
        let mut problems = Vec::new();
        let options = MgmtOptions {
            socket: places.socket,
            owner_uid: places.owner_uid,
            appliance: config.appliance,
        };
        let socket = match MgmtServer::start(&options, startup.clone()) {
            Ok(socket) => Some(socket),
            Err(error @ MgmtError::AlreadyRunning { .. }) => return Err(error.into()),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        let left = inherited().unwrap_or_else(|error| {
            problems.push(format!("the sockets that systemd opened cannot be served: {error}"));
            Vec::new()
        });
        let at = left.iter().filter_map(|socket| socket.listener.local_addr().ok());
        let handed = at.map(|address| address.port()).collect();
        let has_443 = left.iter().any(|socket| socket.name == "https");
        let listen = everywhere(config.listen.address);
        let options = HttpsOptions {
            listen,
            port: config.console_port(),
            names: HostNames::new(&config.name, machine_name().as_deref(), &config.console.hosts)
                .announced_as(startup.local_name()),
            inherited: left,
            limits: HttpsLimits::default(),
        };
        let (https, errors) = HttpsServer::start(options, console, credentials, startup.clone());
        problems.extend(errors.iter().map(ToString::to_string));
        let port = if has_443 { Some(443) } else { https.address().map(|address| address.port()) };
        let fingerprint = console.fingerprint();
        let console = port.map(|port| Console { listen, port });
        if let Some(console) = console {
            let address = console.address();
            tracing::info!(address, %fingerprint, "the console is open");
        }
        Ok(Self { socket, https, problems, console, handed })
    }

    /// The local socket, if it is open.
    pub(super) fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(MgmtServer::socket)
    }

    /// How the console is opened, as of when it is asked: by the name that the network knows, and by address.
    pub(super) fn addresses(&self, local_name: LocalName) -> Addresses {
        let console = self.console;
        Arc::new(move || {
            let Some(console) = console else { return vec![] };
            let named =
                local_name.newest().map(|name| match (name.trim_end_matches('.'), console.port) {
                    (name, 443) => format!("https://{name}/"),
                    (name, port) => format!("https://{name}:{port}/"),
                });
            named.into_iter().chain([console.address()]).collect()
        })
    }

    /// Closes both; what is under way gets two seconds.
    pub(super) async fn close(self) {
        self.https.stop().await;
        if let Some(socket) = self.socket {
            socket.stop().await;
        }
    }
}

/// What the doors know of the host before anything else does.
pub(super) fn about(
    config: &Config,
    console: &ConsoleIdentity,
    credentials: &Arc<dyn Credentials>,
) -> About {
    About {
        name: config.name.clone(),
        fingerprint: Some(console.fingerprint().to_string()),
        credentials: Arc::clone(credentials),
    }
}

/// Who may come in.
pub(super) fn credentials(memory: &Memory) -> Arc<dyn Credentials> {
    match &memory.access {
        Some(access) => Arc::new(access.clone()),
        None => Arc::new(Nobody { why: why_nobody(memory.store.as_ref().err()) }),
    }
}

/// Why it is not known who owns the host, and what to do, for everybody.
fn why_nobody(no_store: Option<&Failure>) -> &'static str {
    no_store.map_or(
        "Start it again; if that does not help, its log says what is wrong with its state folder.",
        |failure| failure.plain,
    )
}

/// The link and the code by which the host is claimed, while it has no owner. The link holds its secret in the fragment,
/// which no browser sends; for the terminal of whoever started the host, and nowhere else.
pub(super) fn claim_shown(
    memory: &Memory,
    address: &str,
) -> Option<(Zeroizing<String>, Zeroizing<String>)> {
    if memory.access.as_ref()?.is_claimed() {
        return None;
    }
    let claim = memory.store.as_ref().ok()?.claim().ok()??;
    let mut link = Zeroizing::new(format!("{address}#claim="));
    for byte in claim.token {
        let _ = write!(link, "{byte:02x}");
    }
    // In two groups, which are typed more easily.
    let (first, second) = claim.code.split_at_checked(claim.code.len() / 2)?;
    Some((link, Zeroizing::new(format!("{first}-{second}"))))
}

/// A machine without IPv6 cannot listen on `::`, which is the default and means "everywhere".
pub(super) fn everywhere(address: IpAddr) -> IpAddr {
    if address.is_unspecified() { any_address() } else { address }
}

fn machine_name() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok()
}

fn browser_address(listen: IpAddr, port: u16) -> String {
    let host = if listen.is_unspecified() {
        reachable_addresses().unwrap_or_default().into_iter().next()
    } else {
        Some(listen)
    };
    let host = match host {
        Some(IpAddr::V6(v6)) => format!("[{v6}]"),
        Some(v4) => v4.to_string(),
        None => "localhost".to_owned(),
    };
    if port == 443 { format!("https://{host}/") } else { format!("https://{host}:{port}/") }
}
