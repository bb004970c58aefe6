//! `punktfunk-sound CHANNELS`: captures the session's sink until the sound server goes. See the library.

use std::path::PathBuf;
use std::process::ExitCode;

use punktfunk_sound::{CaptureError, Options, SOCKET_NAME, run};

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("punktfunk-sound: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What to capture, from the command line, and where to, from the session's environment.
fn options() -> Result<Options, CaptureError> {
    let refused = |reason: &str| CaptureError::Start { reason: reason.to_owned() };
    let channels = std::env::args().nth(1).and_then(|word| word.parse().ok());
    let channels = channels.ok_or_else(|| refused("it takes a number of channels"))?;
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let folder = folder.ok_or_else(|| refused("there is no XDG_RUNTIME_DIR"))?;
    Ok(Options { channels, socket: folder.join(SOCKET_NAME) })
}
