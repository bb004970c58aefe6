//! Whether this machine has what the sound of a session needs.

use std::process::{Command, Stdio};

use super::{ManagerKind, SoundError, SoundReport};

/// Looks for the programs and asks them for their versions. Takes a moment; starts no server.
///
/// # Errors
/// [`SoundError::Missing`] says which program is not there and what to install, [`SoundError::Unsupported`] which is too
/// old or too new to be known.
pub fn probe() -> Result<SoundReport, SoundError> {
    let server = version("pipewire", "pipewire-bin")?;
    let manager = version("wireplumber", "wireplumber")?;
    let kind = manager_kind(&manager).ok_or_else(|| SoundError::Unsupported {
        program: "wireplumber",
        got: manager.clone(),
        known: "0.4 and 0.5",
    })?;
    Ok(SoundReport { server, manager, kind })
}

fn version(program: &'static str, package: &'static str) -> Result<String, SoundError> {
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let said = asked.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => SoundError::Missing { program, package },
        _ => SoundError::Refused { program, reason: error.to_string() },
    })?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    linked_version(&text).map(str::to_owned).ok_or(SoundError::Refused {
        program,
        reason: format!("it does not say its version ({})", said.status),
    })
}

/// The version in `Linked with libpipewire 0.3.65`.
fn linked_version(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("Linked with ")?.split_whitespace().nth(1))
}

fn manager_kind(version: &str) -> Option<ManagerKind> {
    let mut parts = version.split('.');
    match (parts.next()?, parts.next()?) {
        ("0", "4") => Some(ManagerKind::Lua),
        ("0", "5") => Some(ManagerKind::Profiles),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        let said = "pipewire\nCompiled with libpipewire 0.3.60\nLinked with libpipewire 0.3.65\n";
        assert_eq!(linked_version(said), Some("0.3.65"));
        assert_eq!(linked_version("Usage: pipewire\n"), None);
        assert_eq!(manager_kind("0.4.13"), Some(ManagerKind::Lua));
        assert_eq!(manager_kind("0.5.8"), Some(ManagerKind::Profiles));
        for unknown in ["0.6.0", "1.0", "", "0"] {
            assert_eq!(manager_kind(unknown), None);
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_package() {
        let error = version("no-such-program", "its-package").unwrap_err();
        assert_eq!(
            error,
            SoundError::Missing { program: "no-such-program", package: "its-package" }
        );
        assert!(error.to_string().contains("install its-package"), "{error}");
    }
}
