//! What the log says of secrets, at its most talkative: nothing.

use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tracing::Level;
use tracing::dispatcher::{self, Dispatch};

use crate::client::{LOCALHOST, Paired, Pairing, SHARED_ID, get_tls, shared_device};
use crate::host::{DESKTOP, Host};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const WRONG_PIN: &str = "7391";
const PIN: &str = "8402";
const KEY: &str = "c0ffee0123456789abcdefc0ffee4321";

async fn pair_and_launch() {
    let host = Host::start().await;
    let device = shared_device();
    let attempt =
        Pairing { host: &host, device: &device, from: LOCALHOST, pin: PIN, unique_id: SHARED_ID };
    let (refused, ()) = tokio::join!(attempt.run(), host.enter_pin(WRONG_PIN));
    assert!(matches!(refused, Paired::Broken(_)));
    let (paired, ()) = tokio::join!(attempt.run(), host.enter_pin(PIN));
    assert_eq!(paired, Paired::Yes);
    for target in [
        format!("/launch?appid={DESKTOP}&rikey={KEY}&rikeyid=1&corever=1"),
        format!("/resume?rikey={KEY}&rikeyid=2"),
        format!("/launch?appid=1&rikey={KEY}&rikeyid=3"),
        format!("/launch?appid={DESKTOP}&rikey={KEY}"),
        format!("/launch?appid={DESKTOP}&rikey={KEY}00&rikeyid=4"),
    ] {
        get_tls(&host, Some(&device), &target).await;
    }
    host.stop().await;
}

/// Set in the process that runs this one test.
const ALONE: &str = "PUNKTFUNK_TEST_ALONE";

// spec: gamestream 13 item 123
#[test]
fn neither_pins_nor_keys_are_logged() {
    // Which events are wanted at all is remembered for the whole process, so tests beside this one could make it deaf:
    // it runs in a process of its own.
    if std::env::var_os(ALONE).is_none() {
        let alone = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "secrets::neither_pins_nor_keys_are_logged", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&alone.stdout);
        assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&alone.stderr));
        return;
    }
    let log = Log::default();
    let writer = log.clone();
    let logging = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    dispatcher::set_global_default(Dispatch::new(logging)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(pair_and_launch());
    drop(runtime);

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap().to_ascii_lowercase();
    for told in ["a device was paired", "a stream may begin", "a wish was refused", "asked"] {
        assert!(text.contains(told), "{told:?} is not in the log: {text}");
    }
    assert!(!text.contains(KEY), "a key is in the log");
    // Ports are numbers too, of five digits.
    let words = || text.split(|symbol: char| !symbol.is_ascii_alphanumeric());
    assert!(words().all(|word| word != PIN && word != WRONG_PIN), "a PIN is in the log");
}
