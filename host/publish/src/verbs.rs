//! The verbs about releases; `main` has them beside those about keys and statements.

use std::path::PathBuf;

use clap::Subcommand;
use punktfunk_update::transport::Address;

use crate::archive::archive;
use crate::encapsulate::{LEVEL, encapsulate};
use crate::layout::Layout;
use crate::push::{Push, credentials};

/// What can be done with a release.
#[derive(Debug, Subcommand)]
pub enum ReleaseVerb {
    /// Put a commit into layers, and say as JSON what a statement says of them
    Encapsulate {
        /// The repository
        #[arg(long, value_name = "FOLDER")]
        repo: PathBuf,
        /// The commit, or what names it
        #[arg(long)]
        commit: String,
        /// Where the release is put; one that is there is replaced
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
        /// How hard to compress
        #[arg(long, default_value_t = LEVEL, value_parser = clap::value_parser!(i32).range(1..=22))]
        level: i32,
    },
    /// Write a release and what is stated into one file, for boxes that reach no registry
    Archive {
        /// What is stated, signed
        #[arg(long, value_name = "FILE")]
        envelope: PathBuf,
        /// The release
        #[arg(long, value_name = "FOLDER")]
        layout: PathBuf,
        /// Where the archive is put
        out: PathBuf,
    },
    /// Put a release into a registry, and what is stated under the tag where boxes look for it
    Push {
        /// The release
        layout: PathBuf,
        /// The registry, such as ghcr.io/punktfunk/box
        registry: Address,
        /// What is stated, signed
        #[arg(long, value_name = "FILE", requires = "tag")]
        envelope: Option<PathBuf>,
        /// Under which tag, such as stable-slim
        #[arg(long, requires = "envelope")]
        tag: Option<String>,
        /// A file with user:password, if the registry wants them; else PUNKTFUNK_REGISTRY_USER has them
        #[arg(long, value_name = "FILE")]
        user: Option<PathBuf>,
        /// Speak http to a registry on another machine
        #[arg(long)]
        allow_http: bool,
    },
}

impl ReleaseVerb {
    /// Does it, and says what is to be said of it.
    ///
    /// # Errors
    /// What the verb says.
    pub fn run(self) -> anyhow::Result<String> {
        match self {
            Self::Encapsulate { repo, commit, out, level } => {
                let made = encapsulate(&repo, &commit, &out, level)?;
                Ok(format!("{}\n", serde_json::to_string(&made)?))
            }
            Self::Archive { envelope, layout, out } => {
                archive(&out, &envelope, &Layout::open(&layout)?)?;
                Ok(String::new())
            }
            Self::Push { layout, registry, envelope, tag, user, allow_http } => {
                let push = Push {
                    layout: &Layout::open(&layout)?,
                    to: registry,
                    stated: envelope.as_deref().zip(tag.as_deref()),
                    credentials: credentials(user.as_deref())?,
                    plain: allow_http,
                };
                push.run()?;
                Ok(String::new())
            }
        }
    }
}
