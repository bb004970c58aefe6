//! The command line.

use std::path::PathBuf;

use crate::Error;

/// What the launcher is told when it starts; nothing of it comes from the daemon.
#[derive(Debug)]
pub struct Options {
    pub(crate) daemon_uid: u32, // The only user beside root who may ask.
    pub(crate) first_uid: u32,  // Profile 0's; the others' follow, then as many for sweepers.
    pub(crate) profiles: u16,
    pub(crate) folder: PathBuf, // Has `launcher.sock` and the runtime folders of sessions.
    pub(crate) homes: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) ports: String, // The product's own, TCP and UDP alike, with commas.
    pub(crate) systemd: bool, // Start `punktfunk-session@N.service` instead of forking.
}

impl Options {
    /// Reads the command line. Each option is needed, but for `--systemd`, which stands last.
    pub fn parse(words: &[String]) -> Result<Self, Error> {
        let systemd = words.last().is_some_and(|word| word == "--systemd");
        let words = &words[..words.len() - usize::from(systemd)];
        if words.len() != 14 {
            return Err(Error::Refused("seven options are to have a value each".to_owned()));
        }
        let value = |name: &str| Some(&words.chunks(2).find(|pair| pair[0] == name)?[1]);
        let wrong = |name: &str| Error::Refused(format!("{name} is missing or wrong"));
        let number = |name: &str, range: std::ops::RangeInclusive<u32>| {
            let number = value(name).and_then(|text| text.parse().ok());
            number.filter(|number| range.contains(number)).ok_or_else(|| wrong(name))
        };
        let path = |name: &str| {
            let path = value(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute()).ok_or_else(|| wrong(name))
        };
        let is_list = |list: &&String| list.split(',').all(|port| port.parse::<u16>().is_ok());
        Ok(Self {
            daemon_uid: number("--daemon-uid", 1..=u32::MAX - 1)?,
            first_uid: number("--first-uid", 1000..=i32::MAX as u32)?,
            profiles: number("--profiles", 1..=64)? as u16,
            folder: path("--folder")?,
            homes: path("--homes")?,
            agent: path("--agent")?,
            ports: value("--ports").filter(is_list).ok_or_else(|| wrong("--ports"))?.clone(),
            systemd,
        })
    }
}
