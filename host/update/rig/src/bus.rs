//! A bus of one's own, with an authority that says yes unless it is told to say no.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use zbus::{Connection, OwnedVariant, interface};

use punktfunk_update::service::ACTIONS;

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:tmpdir=FOLDER</listen>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

pub(crate) struct Bus {
    daemon: Child,
    address: String,
    forbidden: Arc<Mutex<BTreeSet<String>>>,
    /// The authority's, and that of whoever looks who has which name.
    connection: Connection,
    runtime: Runtime,
}

/// Somebody is about to have a name.
pub(crate) struct Owned<'a> {
    bus: &'a Bus,
    owned: oneshot::Receiver<()>,
}

impl Bus {
    pub(crate) fn new(folder: &Path) -> Self {
        let config = folder.join("bus.conf");
        fs::write(&config, CONFIG.replace("FOLDER", folder.to_str().unwrap())).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address=1", "--config-file"])
            .arg(&config)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let forbidden = Arc::<Mutex<BTreeSet<String>>>::default();
        let authority = Authority { forbidden: Arc::clone(&forbidden) };
        let connection = runtime.block_on(async {
            zbus::connection::Builder::address(address.as_str())
                .serve_at("/org/freedesktop/PolicyKit1/Authority", authority)
                .name("org.freedesktop.PolicyKit1")
                .build()
                .await
                .unwrap()
        });
        Self { daemon, address, forbidden, connection, runtime }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn forbid(&self, verb: &str) {
        self.forbidden.lock().unwrap().insert(format!("{ACTIONS}{verb}"));
    }

    /// Looks from now on whether somebody gets a name.
    pub(crate) fn owned(&self, name: &'static str) -> Owned<'_> {
        let (told, owned) = oneshot::channel();
        let changes = self.runtime.block_on(async {
            let bus = zbus::fdo::DBusProxy::new(&self.connection).await.unwrap();
            bus.receive_name_owner_changed_with_args(&[(0, name)]).await.unwrap()
        });
        self.runtime.spawn(async move {
            let mut changes = changes;
            while let Some(change) = next(&mut changes).await {
                if change.args().unwrap().new_owner.is_some() {
                    // Whoever waited may be gone.
                    let _ = told.send(());
                    return;
                }
            }
        });
        Owned { bus: self, owned }
    }
}

/// The next of a stream.
pub(crate) async fn next<S: zbus::export::futures_core::Stream + Unpin>(
    stream: &mut S,
) -> Option<S::Item> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *stream).poll_next(context)).await
}

impl Owned<'_> {
    pub(crate) fn wait(self) {
        self.bus.runtime.block_on(self.owned).unwrap();
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // It is gone already, or goes now.
        let _ = self.daemon.kill().and_then(|()| self.daemon.wait());
    }
}

struct Authority {
    forbidden: Arc<Mutex<BTreeSet<String>>>,
}

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: &str,
        _details: HashMap<String, String>,
        _flags: u32,
        _cancellation: &str,
        #[zbus(connection)] connection: &Connection,
    ) -> ((bool, bool, HashMap<String, String>),) {
        let (kind, about) = subject;
        assert_eq!(kind, "system-bus-name");
        let name: String = about["name"].try_clone().unwrap().try_into().unwrap();
        let bus = zbus::fdo::DBusProxy::new(connection).await.unwrap();
        let known = bus.get_connection_unix_user(name.as_str().try_into().unwrap()).await;
        let may = known.is_ok() && !self.forbidden.lock().unwrap().contains(action);
        ((may, false, HashMap::new()),)
    }
}
