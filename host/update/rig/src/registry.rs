//! A registry on loopback, out of a folder: manifests by tag and digest, blobs by digest, from any byte to their end. It can
//! be told to stand still after so many bytes of blobs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use punktfunk_update::name::BlobDigest;
use punktfunk_update::transport::bundle;

/// What it calls what it has.
const NAME: &str = "punktfunk/box";
/// What is given at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;

pub(crate) struct Server {
    at: SocketAddr,
    folder: PathBuf,
    inside: Arc<Inside>,
}

struct Inside {
    folder: PathBuf,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Default)]
struct Gate {
    /// So many more bytes of blobs; nothing for as many as there are.
    left: Option<u64>,
    given: u64,
    tags: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
    closed: bool,
}

impl Server {
    pub(crate) fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let folder = folder.to_path_buf();
        let gate = Mutex::default();
        let inside = Arc::new(Inside { folder: folder.clone(), gate, changed: Condvar::new() });
        let served = Arc::clone(&inside);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if served.gate.lock().unwrap().closed {
                    return;
                }
                let (Ok(stream), inside) = (stream, Arc::clone(&served)) else { continue };
                // Who asks may go away at any time, and then nothing is said.
                thread::spawn(move || drop(inside.answer(&stream)));
            }
        });
        Self { at, folder, inside }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}/{NAME}", self.at)
    }

    /// Puts an envelope under a tag.
    pub(crate) fn tell(&self, tag: &str, envelope: &[u8]) {
        let manifest = bundle::write_envelope_manifest(envelope).unwrap();
        for blob in [envelope, bundle::EMPTY] {
            let name = BlobDigest::of(blob).digits();
            fs::write(self.folder.join("blobs/sha256").join(name), blob).unwrap();
        }
        let mut gate = self.inside.gate.lock().unwrap();
        gate.tags.insert(tag.to_owned(), (manifest, envelope.to_vec()));
    }

    /// The envelope under a tag.
    pub(crate) fn told(&self, tag: &str) -> Vec<u8> {
        self.inside.gate.lock().unwrap().tags[tag].1.clone()
    }

    pub(crate) fn gate(&self, left: Option<u64>) {
        self.inside.gate.lock().unwrap().left = left;
        self.inside.changed.notify_all();
    }

    pub(crate) fn given_bytes(&self) -> u64 {
        self.inside.gate.lock().unwrap().given
    }

    /// Nobody is answered any more.
    pub(crate) fn close(&self) {
        self.inside.gate.lock().unwrap().closed = true;
        self.inside.changed.notify_all();
        // So that it looks.
        drop(TcpStream::connect(self.at));
    }
}

impl Inside {
    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut from = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(range) = line.strip_prefix("range: bytes=") {
                from = range.trim_end_matches('-').parse().unwrap();
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let path = path.strip_prefix(&format!("/v2/{NAME}/")).unwrap_or_default();
        let (kind, name) = path.split_once('/').unwrap_or_default();
        let found = match kind {
            "manifests" => self.manifest(name),
            "blobs" => self.blob(name),
            _ => None,
        };
        let Some(bytes) = found else {
            let nothing =
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return (&*stream).write_all(nothing.as_bytes());
        };
        let (all, rest) = (bytes.len(), &bytes[bytes.len().min(from)..]);
        let (status, range) = match from {
            0 => ("200 OK", String::new()),
            _ => {
                let range = format!("Content-Range: bytes {from}-{}/{all}\r\n", all - 1);
                ("206 Partial Content", range)
            }
        };
        let kind =
            if kind == "manifests" { bundle::MANIFEST_TYPE } else { "application/octet-stream" };
        let digest = BlobDigest::of(&bytes);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}Content-Type: {kind}\r\n\
             Docker-Content-Digest: {digest}\r\nConnection: close\r\n\r\n",
            rest.len()
        );
        (&*stream).write_all(head.as_bytes())?;
        for piece in rest.chunks(PIECE_BYTES) {
            self.give(stream, piece, name.starts_with("sha256:"))?;
        }
        stream.shutdown(Shutdown::Write)
    }

    /// Gives a piece when it may be given.
    fn give(&self, mut stream: &TcpStream, piece: &[u8], counts: bool) -> std::io::Result<()> {
        let bytes = piece.len() as u64;
        let mut gate = self.gate.lock().unwrap();
        if counts {
            gate = self
                .changed
                .wait_while(gate, |gate| !gate.closed && gate.left.is_some_and(|left| left < bytes))
                .unwrap();
            if gate.closed {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            gate.left = gate.left.map(|left| left - bytes);
            gate.given += bytes;
        }
        drop(gate);
        stream.write_all(piece)
    }

    fn manifest(&self, name: &str) -> Option<Vec<u8>> {
        let tagged = self.gate.lock().unwrap().tags.get(name).map(|(manifest, _)| manifest.clone());
        tagged.or_else(|| self.blob(name))
    }

    fn blob(&self, name: &str) -> Option<Vec<u8>> {
        let digest: BlobDigest = name.parse().ok()?;
        fs::read(self.folder.join("blobs/sha256").join(digest.digits())).ok()
    }
}
