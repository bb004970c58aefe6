//! Sticks are looked at on a thread of their own, one after the other: one that does not answer keeps nobody from the button,
//! and no other stick for longer than a look may take.
//!
//! A look is a few kilobytes, read by the kernel, which tries again and again with a device that is broken; nobody can end
//! that, not even with the process it is done for. So a look that takes too long is left to itself, and what it finds in
//! the end is nothing. So many at a time are left like that; with more, sticks wait until one of those has ended.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::stick::Found;

/// So many devices wait to be looked at; more are none that anybody has plugged in.
const MAX_WAITING: usize = 16;

/// So long a look may take. The kernel gives up on most of what is broken before.
const LIMIT: Duration = Duration::from_secs(600);

/// So many looks are left to themselves at a time.
const MAX_LEFT: usize = 8;

/// How a device of this name is looked at.
pub type Look = Arc<dyn Fn(&str) -> io::Result<Option<Found>> + Send + Sync>;

/// Those that are looked at.
pub struct Looks {
    look: Look,
    waiting: VecDeque<String>,
    looking: Option<Looking>,
    /// So many looks are left to themselves.
    left: usize,
    begun: u64,
    /// Rings when one was looked at.
    rung: PipeReader,
    bell: Arc<PipeWriter>,
    report: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
}

struct Looking {
    number: u64,
    name: String,
    until: Duration,
}

/// Which look found what.
type Report = (u64, io::Result<Option<Found>>);

/// Tells what a look found, and rings, when it is let go, however that comes.
struct Bell {
    number: u64,
    found: Option<io::Result<Option<Found>>>,
    report: mpsc::Sender<Report>,
    bell: Arc<PipeWriter>,
}

impl Looks {
    /// None yet.
    pub fn new(look: Look) -> io::Result<Self> {
        let (rung, bell) = io::pipe()?;
        let (report, reports) = mpsc::channel();
        let (waiting, bell) = (VecDeque::new(), Arc::new(bell));
        Ok(Self { look, waiting, looking: None, left: 0, begun: 0, rung, bell, report, reports })
    }

    /// A device has appeared, at this time of the machine.
    pub fn add(&mut self, name: String, now: Duration) {
        if self.waiting.len() >= MAX_WAITING || self.waiting.contains(&name) {
            return;
        }
        self.waiting.push_back(name);
        self.begin(now);
    }

    /// It rang: what was found on which device. The next one is begun.
    pub fn found(&mut self, now: Duration) -> Option<(String, io::Result<Option<Found>>)> {
        let _ = self.rung.read(&mut [0]);
        let (number, found) = self.reports.try_recv().ok()?;
        let looking = self.looking.take_if(|looking| looking.number == number);
        if looking.is_none() {
            self.left -= 1;
        }
        self.begin(now);
        Some((looking?.name, found))
    }

    /// When the look that is under way is to have ended.
    pub fn deadline(&self) -> Option<Duration> {
        self.looking.as_ref().map(|looking| looking.until)
    }

    /// Leaves a look that takes too long to itself. The next one is begun.
    pub fn give_up(&mut self, now: Duration) {
        if let Some(looking) = self.looking.take_if(|looking| now >= looking.until) {
            complain!("{} does not answer and is left", looking.name);
            self.left += 1;
            self.begin(now);
        }
    }

    fn begin(&mut self, now: Duration) {
        if self.looking.is_some() || self.left >= MAX_LEFT {
            return;
        }
        let Some(name) = self.waiting.pop_front() else { return };
        self.begun += 1;
        let (number, report) = (self.begun, self.report.clone());
        let mut bell = Bell { number, found: None, report, bell: Arc::clone(&self.bell) };
        let (look, device) = (Arc::clone(&self.look), name.clone());
        // Made before: a thread that cannot be begun rings, too.
        self.looking = Some(Looking { number, name, until: now.saturating_add(LIMIT) });
        let thread = thread::Builder::new().name("stick".to_owned()).spawn(move || {
            bell.tell(look(&device));
        });
        if let Err(error) = thread {
            complain!("nothing can be looked at: {error}");
        }
    }
}

impl Bell {
    fn tell(&mut self, found: io::Result<Option<Found>>) {
        self.found = Some(found);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let unseen = || Err(io::Error::other("nobody looked at it"));
        // Whoever attends may be gone; and the bell holds far more than ever rings.
        let _ = self.report.send((self.number, self.found.take().unwrap_or_else(unseen)));
        let _ = self.bell.as_ref().write_all(&[0]);
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

    const NOW: Duration = Duration::from_secs(5);

    #[test]
    fn one_that_does_not_answer_is_left_and_the_next_is_looked_at() {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let look = move |name: &str| {
            if name.starts_with("bad") {
                gone.lock().unwrap().recv().unwrap();
            }
            Ok(None)
        };
        let mut looks = Looks::new(Arc::new(look)).unwrap();
        let late = NOW + LIMIT;
        looks.add("bad1".to_owned(), NOW);
        looks.add("sdc1".to_owned(), NOW);
        looks.give_up(late - Duration::from_nanos(1));
        assert_eq!((looks.left, looks.deadline()), (0, Some(late)));
        looks.give_up(late);
        assert_eq!((looks.left, looks.deadline()), (1, Some(late + LIMIT)));
        assert_eq!(looks.found(late).unwrap().0, "sdc1");
        // As many are left as may be; one more stick waits until one of them has ended.
        let mut now = late;
        for at in 2..=MAX_LEFT {
            looks.add(format!("bad{at}"), now);
            now += LIMIT;
            looks.give_up(now);
        }
        looks.add("sdd1".to_owned(), now);
        assert_eq!((looks.left, looks.deadline()), (MAX_LEFT, None));
        go.send(()).unwrap();
        assert!(looks.found(now).is_none(), "what it finds so late is nothing");
        assert_eq!((looks.left, looks.found(now).unwrap().0), (MAX_LEFT - 1, "sdd1".to_owned()));
    }

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
            looks.add(format!("sd{}", char::from(b'b' + at % 25)) + "1", NOW);
        }
        let mut names = Vec::new();
        while looks.looking.is_some() {
            go.send(()).unwrap();
            let (name, found) = looks.found(NOW).unwrap();
            assert_eq!(found.is_err(), name == "sdc1", "{name}");
            names.push(name);
        }
        assert_eq!(names.len(), 1 + MAX_WAITING);
        assert_eq!((names[0].as_str(), names[1].as_str()), ("sdb1", "sdc1"));
        assert!(names.windows(2).all(|two| two[0] < two[1]), "{names:?}");
    }
}
