//! What stands between the self-test and a door: relays that drop, change and forge.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::rig::at;

/// How soon a relay notices that it is over.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Threads that end when this is dropped.
pub(crate) struct Between {
    pub(crate) at: SocketAddr,
    /// Datagrams that were not passed on.
    pub(crate) dropped: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Between {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Passes datagrams to a port and those that `keep` says, as it leaves them, back.
pub(crate) fn datagrams(
    to: u16,
    mut keep: impl FnMut(&mut [u8]) -> bool + Send + 'static,
) -> Between {
    let socket = |address: SocketAddr| {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(LOOK_AGAIN)).unwrap();
        Arc::new(socket)
    };
    let (front, back) = (socket(at(0)), socket(at(0)));
    back.connect(at(to)).unwrap();
    let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    let (over, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let address = front.local_addr().unwrap();
    let there = {
        let (front, back, client) = (front.clone(), back.clone(), client.clone());
        let over = over.clone();
        move || {
            let mut datagram = [0; 2048];
            while !over.load(Ordering::SeqCst) {
                let Ok((bytes, from)) = front.recv_from(&mut datagram) else { continue };
                *client.lock().unwrap() = Some(from);
                let _ = back.send(&datagram[..bytes]);
            }
        }
    };
    let again = {
        let (over, dropped) = (over.clone(), dropped.clone());
        move || {
            let mut datagram = [0; 2048];
            while !over.load(Ordering::SeqCst) {
                let Ok(bytes) = back.recv(&mut datagram) else { continue };
                let client = *client.lock().unwrap();
                if keep(&mut datagram[..bytes]) {
                    let _ = front.send_to(&datagram[..bytes], client.unwrap());
                } else {
                    dropped.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    };
    let threads = vec![std::thread::spawn(there), std::thread::spawn(again)];
    Between { at: address, dropped, over, threads }
}

/// Takes connections and does with each what it likes, one after the other.
pub(crate) fn connections(mut serve: impl FnMut(TcpStream) + Send + 'static) -> Between {
    let listener = TcpListener::bind(at(0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let accept = {
        let over = over.clone();
        move || {
            while !over.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        serve(stream);
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        std::thread::park_timeout(LOOK_AGAIN);
                    }
                }
            }
        }
    };
    let threads = vec![std::thread::spawn(accept)];
    Between { at: address, dropped: Arc::default(), over, threads }
}

/// Passes plain HTTP to a port; `change` may rewrite the head of each request.
pub(crate) fn requests(
    to: u16,
    mut change: impl FnMut(String) -> String + Send + 'static,
) -> Between {
    connections(move |mut client| {
        let Some(head) = read_head(&mut client) else { return };
        let mut host = TcpStream::connect(at(to)).unwrap();
        host.write_all(change(head).as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = host.read_to_end(&mut answer);
        let _ = client.write_all(&answer);
    })
}

/// The head of a request, or nothing if it is cut off.
fn read_head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let count = client.read(&mut piece).ok().filter(|count| *count > 0)?;
        head.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(head).ok()
}

/// Replaces the value of a parameter of a request.
pub(crate) fn with_value(head: &str, name: &str, change: impl Fn(&str) -> String) -> String {
    let Some((before, rest)) = head.split_once(&format!("&{name}=")) else {
        return head.to_owned();
    };
    let end = rest.find(['&', ' ']).unwrap();
    format!("{before}&{name}={}{}", change(&rest[..end]), &rest[end..])
}
