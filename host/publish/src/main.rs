//! `punktfunk-publish VERB ..`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use punktfunk_os::{calendar, files};
use punktfunk_publish::keys::{self, SecretKey};
use punktfunk_publish::sign::{self, Signing};
use punktfunk_publish::verbs::ReleaseVerb;
use punktfunk_update::statement::{KeyRing, MAX_ENVELOPE_BYTES, PublicKey};

/// For those who make the box: releases out of commits, signed statements, keys, archives
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key: NAME.key, which signs, and NAME.pub for the image
    Keygen {
        /// Where the files are put
        folder: PathBuf,
        /// What they are called, such as `current`
        name: String,
        /// A key for tests, which no release may hold
        #[arg(long)]
        test: bool,
    },
    /// Sign a statement, if a box would believe it
    Sign {
        /// The secret key; a second one for a statement that either of two keys vouches for
        #[arg(long = "key", value_name = "FILE", required = true)]
        keys: Vec<PathBuf>,
        /// The envelope that the boxes have now: whether those that believed it believe this one, too
        #[arg(long, value_name = "ENVELOPE")]
        previous: Option<PathBuf>,
        /// When it is to hold, in seconds since 1970, instead of now
        #[arg(long, value_name = "SECONDS")]
        at: Option<u64>,
        /// The statement as JSON
        statement: PathBuf,
        /// Where the envelope is put
        out: PathBuf,
    },
    /// Say what an envelope says, and who signed it
    Show {
        /// The folder with current.pub and next.pub to check signatures with
        #[arg(long, value_name = "FOLDER")]
        keys: Option<PathBuf>,
        /// The envelope
        envelope: PathBuf,
    },
    #[command(flatten)]
    Release(ReleaseVerb),
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(said) => {
            print(&said);
            ExitCode::SUCCESS
        }
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "punktfunk-publish: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked for, and says what is to be said of it.
fn run(verb: Verb) -> anyhow::Result<String> {
    match verb {
        Verb::Keygen { folder, name, test } => {
            let made = keys::keygen(&folder, &name, test)?;
            Ok(format!("{}\t{}\t{}\n", made.id, made.secret.display(), made.public.display()))
        }
        Verb::Sign { keys, previous, at, statement, out } => {
            let keys: Vec<SecretKey> =
                keys.iter().map(|path| SecretKey::read(path)).collect::<Result<_, _>>()?;
            let previous = previous.map(|path| read(&path)).transpose()?;
            let text = String::from_utf8(read(&statement)?)
                .with_context(|| format!("{} is no text", statement.display()))?;
            let unix = at.unwrap_or_else(calendar::now);
            let signing = Signing { keys: &keys, previous: previous.as_deref(), unix };
            let envelope = sign::sign(&text, signing)
                .with_context(|| format!("{} is not signed", statement.display()))?;
            // The folder of a bare name is brought to the disk, too.
            files::replace(&std::path::absolute(out)?, &envelope, 0o644)?;
            Ok(String::new())
        }
        Verb::Show { keys, envelope } => {
            let ring = keys.map(|folder| KeyRing::read(&folder)).transpose()?;
            let trusted: Vec<PublicKey> = ring.iter().flat_map(KeyRing::keys).copied().collect();
            sign::show(&read(&envelope)?, &trusted)
        }
        Verb::Release(verb) => verb.run(),
    }
}

/// A file that is not longer than an envelope may be.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(files::read(path, MAX_ENVELOPE_BYTES)?)
}

/// Nobody may be there to read it.
fn print(said: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(said.as_bytes());
}
