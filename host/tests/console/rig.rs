//! A door with nothing behind it: a host that is still starting, so that whoever is let in is told so (503) and nothing
//! happens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use punktfunk_host::access::{Access, Scope, Scopes};
use punktfunk_host::identity::ConsoleIdentity;
use punktfunk_host::listen::Inherited;
use punktfunk_host::mgmt::{
    About, Basics, Claimed, Credentials, HostNames, HttpsLimits, HttpsOptions, HttpsServer,
    Startup, Who,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Runtime;

use super::browser::Browser;

/// The CSRF token of every login here.
pub(crate) const CSRF: &str = "X-Punktfunk-Csrf: word-of-the-page";

/// Knows the cookies `owner` and `viewer`, and the tokens `pf_SCOPE`.
pub(crate) struct Known {
    pub(crate) claimed: Claimed,
    pub(crate) logged_out: AtomicBool,
}

impl Credentials for Known {
    fn claimed(&self) -> Claimed {
        self.claimed
    }

    fn logged_in(&self, cookie: &str) -> Option<Who> {
        match cookie {
            "owner" if !self.logged_out.load(Ordering::Relaxed) => Some(Who::Owner),
            "viewer" => Some(Who::Viewer),
            _ => None,
        }
    }

    fn csrf_matches(&self, _cookie: &str, csrf: &str) -> bool {
        csrf == "word-of-the-page"
    }

    fn token(&self, token: &str) -> Option<Who> {
        let scope: Scope = token.strip_prefix("pf_")?.parse().ok()?;
        Some(Who::Token { id: token.to_owned(), scopes: Scopes::from_iter([scope]) })
    }
}

/// How a door is made.
pub(crate) struct Making {
    pub(crate) port: u16,
    pub(crate) claimed: Claimed,
    pub(crate) limits: HttpsLimits,
    pub(crate) inherited: Vec<Inherited>,
    /// The owner's room, in the place of somebody who knows simple words.
    pub(crate) access: Option<Access>,
    /// What needs no host that is complete.
    pub(crate) basics: Option<Basics>,
}

impl Default for Making {
    fn default() -> Self {
        Self {
            port: 0,
            claimed: Claimed::Yes,
            limits: HttpsLimits::default(),
            inherited: Vec::new(),
            access: None,
            basics: None,
        }
    }
}

/// An open door.
pub(crate) struct Rig {
    pub(crate) server: Option<HttpsServer>,
    pub(crate) errors: Vec<String>,
    pub(crate) at: SocketAddr,
    pub(crate) identity: ConsoleIdentity,
    pub(crate) known: Arc<Known>,
    pub(crate) startup: Startup,
    pub(crate) runtime: Runtime,
}

impl Rig {
    pub(crate) fn start(making: Making) -> Self {
        let runtime = Runtime::new().unwrap();
        let identity = ConsoleIdentity::in_memory("sofa").unwrap();
        let known = Arc::new(Known { claimed: making.claimed, logged_out: AtomicBool::new(false) });
        let credentials: Arc<dyn Credentials> = match making.access.clone() {
            Some(access) => Arc::new(access),
            None => known.clone(),
        };
        let mut startup = Startup::new(&["finding the plug", "plugging it in"]).about(About {
            name: "sofa".to_owned(),
            fingerprint: Some(identity.fingerprint().to_string()),
            credentials: credentials.clone(),
        });
        if let Some(access) = making.access {
            startup = startup.with_access(access);
        }
        if let Some(basics) = making.basics {
            startup = startup.with_basics(basics);
        }
        let options = HttpsOptions {
            listen: Ipv4Addr::LOCALHOST.into(),
            port: making.port,
            names: HostNames::new("sofa", None, &[]),
            inherited: making.inherited,
            limits: making.limits,
        };
        let guard = runtime.enter();
        let (server, errors) = HttpsServer::start(options, &identity, credentials, startup.clone());
        drop(guard);
        let at = server.address().unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        let errors = errors.iter().map(ToString::to_string).collect();
        Self { server: Some(server), errors, at, identity, known, startup, runtime }
    }

    /// A connection from this address of the loopback.
    pub(crate) fn reach(&self, from: [u8; 4]) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&self.at.into())?;
        Ok(socket.into())
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::connect(self.at, self.identity.certificate_der()).unwrap()
    }
}
