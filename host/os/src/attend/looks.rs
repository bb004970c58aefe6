//! Sticks are looked at on a thread of their own, one after the other: one that does not answer keeps nobody from the button.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::stick::Found;

/// So many devices wait to be looked at; more are none that anybody has plugged in.
const MAX_WAITING: usize = 16;

/// How a device of this name is looked at.
pub type Look = Arc<dyn Fn(&str) -> io::Result<Option<Found>> + Send + Sync>;

/// Those that are looked at.
pub struct Looks {
    look: Look,
    waiting: VecDeque<String>,
    looking: Option<(String, JoinHandle<io::Result<Option<Found>>>)>,
    /// Rings when one was looked at.
    rung: PipeReader,
    bell: Arc<PipeWriter>,
}

/// Rings when it is let go, however that comes.
struct Bell(Arc<PipeWriter>);

impl Looks {
    /// None yet.
    pub fn new(look: Look) -> io::Result<Self> {
        let (rung, bell) = io::pipe()?;
        let bell = Arc::new(bell);
        Ok(Self { look, waiting: VecDeque::new(), looking: None, rung, bell })
    }

    /// A device has appeared.
    pub fn add(&mut self, name: String) {
        if self.waiting.len() >= MAX_WAITING || self.waiting.contains(&name) {
            return;
        }
        self.waiting.push_back(name);
        self.begin();
    }

    /// It rang: what was found on which device. The next one is begun.
    pub fn found(&mut self) -> Option<(String, io::Result<Option<Found>>)> {
        let _ = self.rung.read(&mut [0]);
        let (name, thread) = self.looking.take()?;
        let found = thread.join().unwrap_or_else(|_| Err(io::Error::other("nobody looked at it")));
        self.begin();
        Some((name, found))
    }

    fn begin(&mut self) {
        if self.looking.is_some() {
            return;
        }
        let Some(name) = self.waiting.pop_front() else { return };
        let (look, bell) = (Arc::clone(&self.look), Bell(Arc::clone(&self.bell)));
        let device = name.clone();
        let thread = thread::Builder::new().name("stick".to_owned()).spawn(move || {
            let _bell = bell;
            look(&device)
        });
        match thread {
            Ok(thread) => self.looking = Some((name, thread)),
            Err(error) => complain!("{name} could not be looked at: {error}"),
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // It holds far more than ever rings.
        let _ = self.0.as_ref().write_all(&[0]);
    }
}

impl AsFd for Looks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rung.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn one_is_looked_at_after_the_other_and_all_of_them_are() {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let look = move |name: &str| {
            gone.lock().unwrap().recv().unwrap();
            assert_ne!(name, "sdc1", "a look that fails is one, too");
            Ok(None)
        };
        let mut looks = Looks::new(Arc::new(look)).unwrap();
        // The first is looked at, and so many wait.
        for at in 0..100 {
            looks.add(format!("sd{}", char::from(b'b' + at % 25)) + "1");
        }
        let mut names = Vec::new();
        while looks.looking.is_some() {
            go.send(()).unwrap();
            let (name, found) = looks.found().unwrap();
            assert_eq!(found.is_err(), name == "sdc1", "{name}");
            names.push(name);
        }
        assert_eq!(names.len(), 1 + MAX_WAITING);
        assert_eq!((names[0].as_str(), names[1].as_str()), ("sdb1", "sdc1"));
        assert!(names.windows(2).all(|two| two[0] < two[1]), "{names:?}");
    }
}
