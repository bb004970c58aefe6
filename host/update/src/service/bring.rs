//! A file on a stick, handed over to the service by root.
//!
//! The stick may be slow, lie about itself, or not answer for ever. So only this process reads it, and the service reads a
//! pipe: whatever becomes of the stick, the service waits no longer than for anybody else. A file that ends before its end
//! is an archive that was cut, which is none.
//!
//! Deliberately absent: what is in the file, and whether it may be installed.

use std::fs::File;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::Duration;

use zbus::Connection;
use zbus::connection::Builder;

use super::{ERROR, NAME, PATH};
use crate::error::UpdateError;

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// While something else is being done it is asked so often again,
const ASKS: usize = 60;
/// and so long is waited in between.
const PAUSE: Duration = Duration::from_secs(5);

/// Why a file was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// It cannot be read, or no pipe can be made.
    #[error("the file cannot be handed over")]
    Io(#[from] io::Error),
    /// The bus does not answer, or the service does not.
    #[error("the service for updates cannot be asked")]
    Bus(#[from] zbus::Error),
    /// The service does not take it.
    #[error(transparent)]
    Refused(#[from] UpdateError),
}

/// Hands a file over, on another bus than the system's if one is said. Gives the service's answer, which is JSON.
///
/// # Errors
/// What is no file is not handed over; else what the service says.
pub fn bring(bus: Option<&str>, file: File) -> Result<String, BringError> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let builder = match bus {
            Some(address) => Builder::address(address),
            None => Builder::system(),
        };
        let connection = builder.build().await?;
        for _ in 1..ASKS {
            match ask(&connection, &file).await {
                Err(BringError::Refused(UpdateError::Busy { .. })) => {}
                done => return done,
            }
            tokio::time::sleep(PAUSE).await;
        }
        ask(&connection, &file).await
    })
}

async fn ask(connection: &Connection, file: &File) -> Result<String, BringError> {
    let (pipe, to) = io::pipe()?;
    let file = file.try_clone()?;
    // It ends with the pipe. One that waits for the stick is left behind when this process ends.
    thread::Builder::new().name("stick".to_owned()).spawn(move || {
        if let Err(error) = pump(&file, to) {
            let _ = writeln!(io::stderr(), "punktfunk-update: the file could not be read: {error}");
        }
    })?;
    let body = (zbus::OwnedFd::from(OwnedFd::from(pipe)),);
    let answer = connection.call_method(Some(NAME), PATH, Some(NAME), "ImportArchive", &body).await;
    match answer {
        Ok(message) => Ok(message.body().deserialize()?),
        Err(zbus::Error::MethodError(name, Some(word), _)) if name.as_str() == ERROR => {
            let said = serde_json::from_str(&word);
            Err(said.unwrap_or_else(|_| UpdateError::failed("take it", word)).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives the file to its end, or as much of it as is wanted.
fn pump(file: &File, mut to: PipeWriter) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut piece, at)?;
        if count == 0 {
            return Ok(());
        }
        match to.write_all(&piece[..count]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            done => done?,
        }
        at += count as u64;
    }
}
