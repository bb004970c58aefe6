//! Backup and restore of homes: what games saved and set, of every device that has played, in one stream of any size.
//!
//! A home belongs to the user of its device's profile, and only that user opens anything in it: [`hands`] start an agent in
//! the profile, as for a session, and `tar` under it. What comes out passes through as it is, in [`records`], sealed in
//! [`chunks`]. So a hostile home can spoil its own part of a backup, and a hostile backup a home, and nothing else.
//!
//! A home that cannot be read ends nothing but its own part: the backup says that this home is not whole, and goes on. No
//! restore touches the home of such a part.
//!
//! A restore puts every home beside what is there. When the last chunk was authenticated, and not before, each home takes
//! its place by one rename, which holds also if the power goes after it, or is taken back (see `host/agent/src/home.rs`).
//! Profiles are taken before anything is begun: nobody plays in a home that is read or replaced.
//!
//! Deliberately absent: homes where sessions have none of their own. Without a launcher they play in the home of whoever
//! runs the host, which is no business of ours.

mod chunks;
mod hands;
mod records;

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand;

use self::chunks::{Begun, Opener, Sealer};
use self::hands::{Hands, Trouble, Unpacking};
use self::records::{About, End, MAX_PIECE_BYTES, Record, Whose};
use super::{BackupError, Backups, Deed, Passphrase, Strength, Turn, Turns};
use crate::agent::{AgentError, AgentStarter, Place, ProfileNumber};
use crate::machine::storage;
use crate::store::{ClientId, Store, StoreError};

/// Why there is no backup of homes, or none was restored. No home has changed then.
#[derive(Debug, thiserror::Error)]
pub enum HomesError {
    /// What every backup may be refused for.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// There are no homes here.
    #[error(
        "sessions have no homes of their own here: they play in the home of the user who runs the host, which is backed up \
         as the rest of that home is. Devices have homes where the host was started by root (ci/start) or is a box"
    )]
    NoHomes,
    /// They play.
    #[error("{} in use: {}; end what is played first, then try again", homes_of(.0), .0.join(", "))]
    InUse(Vec<String>),
    /// It was begun well and went on badly.
    #[error("the file was changed or cut off since it was made; nothing was restored")]
    Changed,
    /// It did not come.
    #[error("the file did not come to its end: {0}; nothing was restored")]
    Broken(#[source] io::Error),
    /// Nobody wants it any more.
    #[error("whoever wanted the backup has gone")]
    Gone,
    /// Nobody can be put into any home.
    #[error("the homes cannot be reached: {0}")]
    Agent(#[from] AgentError),
}

impl From<StoreError> for HomesError {
    fn from(error: StoreError) -> Self {
        Self::Backup(error.into())
    }
}

fn homes_of(names: &[String]) -> &'static str {
    if names.len() == 1 { "a home is" } else { "homes are" }
}

/// Where a backup goes.
pub trait Outlet: Send {
    /// Takes the next bytes, and waits until there is room for them; whether anybody still wants more.
    fn put(&mut self, bytes: Vec<u8>) -> bool;

    /// Whether nobody wants more.
    fn is_gone(&self) -> bool;
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredHomes {
    /// The version of the host that made the backup.
    pub made_by: String,
    /// Games that stores can fetch again were in it.
    pub games: bool,
    /// What became of each home, in the backup's order.
    pub homes: Vec<RestoredHome>,
}

/// What became of a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredHome {
    /// Whose it is.
    pub device: ClientId,
    /// What the device is called here, or was where the backup was made.
    pub name: String,
    /// What was done with it.
    pub outcome: Outcome,
}

/// What was done with a home of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it was when it was backed up.
    Restored {
        /// The length of its archive.
        bytes: u64,
        /// What was said while it was backed up: mostly what could not be read. Empty if nothing was.
        said: String,
    },
    /// Nobody here has it; nothing was done.
    NotPaired,
    /// The backup has only a part of it, for this reason; it is as it was before.
    NotWhole(String),
    /// The disk is too full; it is as it was before.
    NoSpace,
    /// It could not be restored and is as it was before, unless the words say otherwise.
    Failed(String),
}

/// Makes and restores backups of homes, one at a time together with other backups; clones share that. All calls take long.
#[derive(Clone)]
pub struct Homes {
    store: Store,
    strength: Strength,
    turns: Turns,
    agents: Arc<dyn AgentStarter>,
    has_room: HasRoom,
}

/// Whether a restore may fill the disk of a folder further.
type HasRoom = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

impl fmt::Debug for Homes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Homes").finish_non_exhaustive()
    }
}

/// A backup that may be written.
pub struct Making {
    agents: Arc<dyn AgentStarter>,
    about: About,
    places: Vec<Place>,
    begun: Begun,
    _turn: Turn,
}

/// What a backup has become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Whose homes are not whole in it, and are not restored from it.
    pub not_whole: Vec<String>,
}

/// So often it is looked at whether there is still room, in bytes of archives.
const LOOK_EVERY_BYTES: usize = 1 << 20;
/// What sessions are told that come while a home is worked on.
const PURPOSE: &str = "its home is being backed up or restored; try again when that is done";

impl Homes {
    /// The homes that these agents are started in, of a host that makes its other backups with `backups`.
    pub fn new(backups: &Backups, agents: Arc<dyn AgentStarter>) -> Self {
        let Backups { store, strength, turns } = backups.clone();
        Self { store, strength, turns, agents, has_room: Arc::new(storage::keeps_reserve) }
    }

    /// The same with another judge of whether a restore may fill the disk that a home lies on.
    #[must_use]
    pub fn with_room(self, has_room: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        Self { has_room: Arc::new(has_room), ..self }
    }

    /// Begins a backup of the homes of all paired devices that have played, with or without games that stores can fetch
    /// again. What can be known before it is written has been looked at then: until [`Making`] is dropped nobody plays in
    /// these homes.
    ///
    /// # Errors
    /// Most of [`HomesError`].
    pub fn begin(&self, passphrase: &Passphrase, games: bool) -> Result<Making, HomesError> {
        passphrase.check_new()?;
        self.check_there_are_homes()?;
        let turn = self.turns.take(Deed::MakeOfHomes)?;
        let mut homes = Vec::new();
        for (device, profile) in self.store.profiles()? {
            if let Some(client) = self.store.client(device) {
                homes.push((Whose { device, name: client.name }, profile));
            }
        }
        let places =
            self.take_all(homes.iter().map(|(whose, profile)| (&*whose.name, *profile)))?;
        self.check_reachable(&places)?;
        let begun = chunks::begin(passphrase, self.strength)?;
        let homes = homes.into_iter().map(|(whose, _)| whose).collect();
        let about = About { made_by: env!("CARGO_PKG_VERSION").to_owned(), games, homes };
        Ok(Making { agents: Arc::clone(&self.agents), about, places, begun, _turn: turn })
    }

    /// Restores what it reads, to the devices that are paired here.
    ///
    /// # Errors
    /// See [`HomesError`]; what became of each home is in the answer.
    pub fn restore(
        &self,
        passphrase: &Passphrase,
        source: &mut dyn Read,
    ) -> Result<RestoredHomes, HomesError> {
        passphrase.check_known()?;
        self.check_there_are_homes()?;
        let _turn = self.turns.take(Deed::RestoreOfHomes)?;
        let mut opener = Opener::new(passphrase, source)?;
        let about = records::about(&mut opener)?;
        let mut homes = Vec::new();
        for Whose { device, name } in &about.homes {
            let client = self.store.client(*device);
            let profile = client.as_ref().map(|_| self.store.profile_of(*device)).transpose()?;
            let name = client.map_or_else(|| name.clone(), |client| client.name);
            homes.push((*device, name, profile));
        }
        let here = homes.iter().filter_map(|(_, name, profile)| Some((&**name, (*profile)?)));
        let mut places = self.take_all(here)?.into_iter();
        let targets = homes.into_iter().map(|(device, name, profile)| {
            let place = profile.and_then(|_| places.next());
            let state = place.map_or(State::Over(Outcome::NotPaired), State::Here);
            Target { device, name, state }
        });
        let way = Way {
            agents: &*self.agents,
            has_room: &*self.has_room,
            folder: folder()?,
            games: about.games,
        };
        let homes = Restoring { way, targets: targets.collect() }.carry_out(&mut opener)?;
        Ok(RestoredHomes { made_by: about.made_by, games: about.games, homes })
    }

    fn check_there_are_homes(&self) -> Result<(), HomesError> {
        if self.agents.isolates() { Ok(()) } else { Err(HomesError::NoHomes) }
    }

    /// Whoever starts agents is asked for one before anything is promised. One home that has none ends nothing.
    fn check_reachable(&self, places: &[Place]) -> Result<(), HomesError> {
        let mut refused = None;
        for place in places {
            match Hands::new(&*self.agents, place) {
                Ok(_) => return Ok(()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Takes all of these profiles, or none.
    fn take_all<'a>(
        &self,
        profiles: impl Iterator<Item = (&'a str, ProfileNumber)>,
    ) -> Result<Vec<Place>, HomesError> {
        let (mut places, mut busy) = (Vec::new(), Vec::new());
        for (name, profile) in profiles {
            match self.agents.take(profile, PURPOSE) {
                Ok(place) => places.push(place),
                Err(AgentError::Taken { .. }) => busy.push(name.to_owned()),
                Err(other) => return Err(other.into()),
            }
        }
        if busy.is_empty() { Ok(places) } else { Err(HomesError::InUse(busy)) }
    }
}

impl Making {
    /// Writes the backup; what cannot be read of the homes is told. A device may play again as soon as its home was read.
    ///
    /// # Errors
    /// What was written is no backup then: it has no end.
    pub fn write(self, outlet: &mut dyn Outlet) -> Result<Made, HomesError> {
        let Self { agents, about, places, begun, _turn } = self;
        let mut sealer = Sealer::new(begun, outlet)?;
        records::put_about(&mut sealer, &about)?;
        let mut not_whole = Vec::new();
        for (Whose { name, .. }, place) in about.homes.iter().zip(places) {
            let (bytes, end) = pack(&*agents, &place, about.games, &mut sealer)?;
            let (said, whole) = (&end.said, end.whole);
            if !whole {
                tracing::warn!(device = name, said, "a home could not be backed up");
                not_whole.push(name.clone());
            } else if !said.is_empty() {
                tracing::warn!(device = name, said, "not all of a home could be backed up");
            }
            tracing::info!(device = name, bytes, whole, "a home was read for a backup");
            records::put_end(&mut sealer, end)?;
        }
        sealer.finish()?;
        tracing::info!(homes = about.homes.len(), "a backup of homes was made");
        Ok(Made { not_whole })
    }
}

/// Reads a home as far as that goes; the length of its archive, and what follows it.
fn pack(
    agents: &dyn AgentStarter,
    place: &Place,
    games: bool,
    sealer: &mut Sealer<'_>,
) -> Result<(usize, End), HomesError> {
    let mut bytes = 0;
    let packed = Hands::new(agents, place).map_err(Trouble::from).and_then(|hands| {
        hands.check_is_one()?;
        hands.pack(games, |piece| match piece {
            Some(piece) => {
                bytes += piece.len();
                records::put_piece(sealer, piece)
            }
            None if sealer.is_gone() => Err(HomesError::Gone),
            None => Ok(()),
        })
    });
    let end = match packed {
        Ok(said) => End { whole: true, said },
        Err(Trouble::Elsewhere(error)) => return Err(error),
        Err(trouble) => End { whole: false, said: trouble.to_string() },
    };
    Ok((bytes, end))
}

/// A restore that goes on.
struct Restoring<'a> {
    way: Way<'a>,
    targets: Vec<Target>,
}

/// How homes are restored.
struct Way<'a> {
    agents: &'a dyn AgentStarter,
    has_room: &'a dyn Fn(&Path) -> bool,
    /// What lies beside, in each home.
    folder: String,
    games: bool,
}

/// A home that is to be restored.
struct Target {
    device: ClientId,
    name: String,
    state: State,
}

/// How far it is.
enum State {
    /// Its device is paired here; nothing was done.
    Here(Place),
    /// All of it lies beside what is there.
    Beside {
        place: Place,
        bytes: u64,
        said: String,
    },
    Over(Outcome),
}

impl Restoring<'_> {
    fn carry_out(mut self, opener: &mut Opener<'_>) -> Result<Vec<RestoredHome>, HomesError> {
        if let Err(error) = self.put_all_beside(opener) {
            self.put_away();
            return Err(error);
        }
        // All of it was authenticated: now, and only now, homes change.
        let Self { way, targets } = self;
        let restored = targets.into_iter().map(|Target { device, name, state }| {
            let outcome = match state {
                State::Beside { place, bytes, said } => match way.put_in_place(&place) {
                    Ok(()) => Outcome::Restored { bytes, said },
                    Err(trouble) => outcome_of(trouble),
                },
                State::Here(_) => Outcome::Failed("the backup has nothing of it".to_owned()),
                State::Over(outcome) => outcome,
            };
            tracing::info!(device = name, ?outcome, "a home was in a backup that was restored");
            RestoredHome { device, name, outcome }
        });
        Ok(restored.collect())
    }

    fn put_all_beside(&mut self, opener: &mut Opener<'_>) -> Result<(), HomesError> {
        let mut room = vec![0; MAX_PIECE_BYTES];
        for Target { state, .. } in &mut self.targets {
            let before = std::mem::replace(state, State::Over(Outcome::NotPaired));
            *state = match before {
                State::Here(place) => self.way.put_beside(place, opener, &mut room)?,
                other => {
                    skip(opener, &mut room)?;
                    other
                }
            };
        }
        if opener.is_at_end()? {
            return Ok(());
        }
        Err(BackupError::unfit("there is more in it than it says").into())
    }

    /// Removes what lies beside; what cannot be removed now is removed at the next try.
    fn put_away(self) {
        for Target { name, state, .. } in self.targets {
            if let State::Beside { place, .. } = state {
                let away = Hands::new(self.way.agents, &place).map_err(Trouble::from);
                if let Err(trouble) = away.and_then(|hands| hands.clean()) {
                    tracing::warn!(device = name, %trouble, "what a restore began is still there");
                }
            }
        }
    }
}

impl Way<'_> {
    /// Reads a home to the folder beside; if that fails, the rest of it is read and goes nowhere.
    fn put_beside(
        &self,
        place: Place,
        opener: &mut Opener<'_>,
        room: &mut [u8],
    ) -> Result<State, HomesError> {
        let (hands, mut unpacking) = match self.begin(&place) {
            Ok(begun) => begun,
            Err(trouble) => {
                skip(opener, room)?;
                return Ok(State::Over(outcome_of(trouble)));
            }
        };
        let read = self.unpack(&hands, &mut unpacking, opener, room);
        let end = match read {
            Ok(end) => end,
            Err(error) => {
                drop(unpacking);
                let _ = hands.clean();
                return Err(error);
            }
        };
        let unpacked = unpacking.finish();
        let done = match end {
            End { whole: false, said } => Err(Outcome::NotWhole(said)),
            End { whole: true, said } => unpacked
                .and_then(|bytes| hands.flush(&self.folder).map(|()| (bytes, said)))
                .map_err(outcome_of),
        };
        Ok(match done {
            Ok((bytes, said)) => State::Beside { place, bytes, said },
            Err(outcome) => {
                clean(&hands);
                State::Over(outcome)
            }
        })
    }

    fn begin(&self, place: &Place) -> Result<(Hands, Unpacking), Trouble> {
        let hands = Hands::new(self.agents, place)?;
        if !self.games {
            // Games that are to stay might lie anywhere.
            hands.check_is_one()?;
        }
        hands.clean()?;
        if !(self.has_room)(hands.home()) {
            return Err(Trouble::NoSpace);
        }
        let unpacking = hands.unpack(&self.folder)?;
        Ok((hands, unpacking))
    }

    /// Hands a home over as far as there is room for it; what follows it.
    fn unpack(
        &self,
        hands: &Hands,
        unpacking: &mut Unpacking,
        opener: &mut Opener<'_>,
        room: &mut [u8],
    ) -> Result<End, HomesError> {
        let mut unseen = 0;
        loop {
            let length = match records::next(opener, room)? {
                Record::Piece(length) => length,
                Record::End(end) => return Ok(end),
            };
            unseen += length;
            if unseen >= LOOK_EVERY_BYTES {
                unseen = 0;
                if !(self.has_room)(hands.home()) {
                    unpacking.give_up(Trouble::NoSpace);
                }
            }
            unpacking.put(&room[..length]);
        }
    }

    fn put_in_place(&self, place: &Place) -> Result<(), Trouble> {
        let hands = Hands::new(self.agents, place)?;
        let done = hands.commit(&self.folder, self.games);
        // It is restored or it is not, whatever is left.
        clean(&hands);
        done
    }
}

/// Removes what lies beside and what was there before; what cannot be removed now is removed at the next try.
fn clean(hands: &Hands) {
    if let Err(trouble) = hands.clean() {
        tracing::warn!(%trouble, "what a restore left is still there");
    }
}

fn skip(opener: &mut Opener<'_>, room: &mut [u8]) -> Result<(), HomesError> {
    while !matches!(records::next(opener, room)?, Record::End(_)) {}
    Ok(())
}

fn outcome_of(trouble: Trouble) -> Outcome {
    match trouble {
        Trouble::NoSpace => Outcome::NoSpace,
        other => Outcome::Failed(other.to_string()),
    }
}

/// A name that no home has yet.
fn folder() -> Result<String, BackupError> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_err(|_| BackupError::Key("the system gave no random bytes"))?;
    Ok(format!("{}{:016x}", punktfunk_agent::RESTORING, u64::from_le_bytes(bytes)))
}
