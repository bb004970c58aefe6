//! A registry on loopback that does as it is told, and notes what it was asked and what it gave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// By their names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The first byte that is wanted.
    pub(crate) fn offset(&self) -> usize {
        let range = self.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
    }
}

/// An answer, piece by piece.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// Without it the end of the connection is the end of the body.
    pub(crate) length: Option<usize>,
    pub(crate) body: Vec<u8>,
    /// Afterwards nothing comes, and the connection stays.
    pub(crate) stalls: bool,
    /// The body comes again and again.
    pub(crate) endless: bool,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, length: Some(0), ..Self::default() }
    }

    pub(crate) fn whole(body: &[u8]) -> Self {
        Self { status: 200, length: Some(body.len()), body: body.to_vec(), ..Self::default() }
    }

    /// As a good registry answers, with a range if one is wanted.
    pub(crate) fn good(asked: &Asked, body: &[u8]) -> Self {
        let offset = asked.offset();
        if offset == 0 {
            return Self::whole(body);
        }
        let range = format!("bytes {offset}-{}/{}", body.len() - 1, body.len());
        let mut answer = Self::whole(&body[offset..]).with("content-range", &range);
        answer.status = 206;
        answer
    }

    pub(crate) fn to(location: &str) -> Self {
        Self::status(307).with("location", location)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Breaks off after so many bytes of the body.
    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.body.truncate(after);
        self
    }
}

type Talk = dyn Fn(&Asked) -> Answer + Send + Sync;

struct Shared {
    talk: Box<Talk>,
    tls: Option<Arc<rustls::ServerConfig>>,
    log: Mutex<Vec<(Asked, usize)>>,
    /// How many connections stall, and whether they shall end.
    stalling: Mutex<(usize, bool)>,
    changed: Condvar,
}

/// The registry. It ends with this.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn new(talk: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(Box::new(talk), None)
    }

    pub(crate) fn with_tls(
        tls: rustls::ServerConfig,
        talk: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(Box::new(talk), Some(Arc::new(tls)))
    }

    fn start(talk: Box<Talk>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            talk,
            tls,
            log: Mutex::default(),
            stalling: Mutex::default(),
            changed: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                if own.stalling.lock().unwrap().1 {
                    break;
                }
                let (own, stream) = (Arc::clone(&own), stream.unwrap());
                open.push(std::thread::spawn(move || own.serve(stream)));
            }
            open.into_iter().for_each(|one| one.join().unwrap());
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.address)
    }

    /// What was asked for, and how many bytes of a body each was given.
    pub(crate) fn log(&self) -> Vec<(Asked, usize)> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How many bytes were given for paths that end so.
    pub(crate) fn served(&self, end: &str) -> usize {
        self.log()
            .iter()
            .filter(|(asked, _)| asked.path.ends_with(end))
            .map(|(_, bytes)| bytes)
            .sum()
    }

    /// Waits until a connection stalls.
    pub(crate) fn wait_for_stall(&self) {
        let stalling = self.shared.stalling.lock().unwrap();
        drop(self.shared.changed.wait_while(stalling, |stalling| stalling.0 == 0).unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stalling.lock().unwrap().1 = true;
        self.shared.changed.notify_all();
        // So that it looks.
        drop(TcpStream::connect(self.address));
        let ended = self.accepting.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        match &self.tls {
            Some(tls) => {
                let tls = rustls::ServerConnection::new(Arc::clone(tls)).unwrap();
                self.talk(&mut rustls::StreamOwned::new(tls, stream));
            }
            None => self.talk(&mut &stream),
        }
    }

    fn talk(&self, stream: &mut dyn Stream) {
        let Some(asked) = listen(stream) else { return };
        let answer = (self.talk)(&asked);
        let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(length) = answer.length {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        let body = if asked.method == "HEAD" { &[][..] } else { &answer.body };
        let number = {
            let mut log = self.log.lock().unwrap();
            log.push((asked, 0));
            log.len() - 1
        };
        // Whoever asked may have gone.
        let mut say = |bytes: &[u8]| stream.write_all(bytes).and_then(|()| stream.flush());
        if say(format!("{head}\r\n").as_bytes()).is_err() {
            return;
        }
        loop {
            for piece in body.chunks(4096) {
                // Before it is given: who has it may look at once.
                self.log.lock().unwrap()[number].1 += piece.len();
                if say(piece).is_err() {
                    return;
                }
            }
            if !answer.endless {
                break;
            }
        }
        if answer.stalls {
            let mut stalling = self.stalling.lock().unwrap();
            stalling.0 += 1;
            self.changed.notify_all();
            drop(self.changed.wait_while(stalling, |stalling| !stalling.1).unwrap());
        }
    }
}

fn listen(stream: &mut dyn Stream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, headers, body })
}
