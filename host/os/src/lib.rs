//! Root's program on the box.
//!
//! The daemon that streams is not root. What must be root on an appliance is here, behind fixed verbs: keeping the boot
//! loader's entries in step with the deployments on the disk, judging a deployment after it was started, going back, and
//! saying who is at the machine. Every decision is a pure function over a model; a thin layer reads files, starts
//! programs and carries out what was decided.
//!
//! - [`model`]: what the disk holds, as values.
//! - [`mirror`]: OSTree's deployments become entries of the boot loader, safe against a power cut at any moment.
//! - [`policy`]: the verdict, falling back, giving a try back, going back.
//! - [`ledger`] and [`status`]: what root remembers, and what it says to everybody.
//! - [`attend`]: the claim on stick and screen, the power button, the reset file, the owner's key.
//! - [`proof`]: the owner's proof for what cannot be undone: the factory reset ([`reset`], [`sweep`]), and going back below
//!   the floor ([`permit`]).
//! - [`rescue`]: a page that answers when the console does not.
//! - [`verbs`]: what can be asked for, over [`ostree`], [`programs`] and [`place`].
//!
//! Deliberately absent: streaming, the network, and any path below a folder that the daemon owns; what was the daemon's is
//! removed without following a link, and from a folder of root's.

/// Says a line to the journal. When nobody takes it the work goes on.
macro_rules! tell {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($part)*);
    }};
}

/// The same for what went wrong.
macro_rules! complain {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}

pub mod attend;
pub mod calendar;
pub mod facts;
pub mod files;
pub mod ledger;
pub mod mirror;
pub mod model;
pub mod ostree;
pub mod permit;
pub mod place;
pub mod policy;
pub mod programs;
pub mod proof;
pub mod rescue;
pub mod reset;
pub mod status;
pub mod sweep;
pub mod verbs;
