//! The GameStream door: HTTP and HTTPS, RTSP, the control stream and the media sockets.
//!
//! The meaning of the bytes is in `punktfunk_core::gamestream`; here are the sockets. HTTP, HTTPS and RTSP are control
//! planes on tokio; control, input and media pings of all sessions live on one native thread, `pf-recv`.

mod door;
pub mod http;
pub mod nvhttp;
pub mod recv;
pub mod rtsp;
pub mod ticket;
pub mod tls;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

pub use door::{Door, DoorError, DoorParts};

/// Where the door listens and what it insists on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The address to listen on; `::` serves IPv4 as well, see [`any_address`](crate::listen::any_address).
    pub listen: IpAddr,
    /// The ports; 0 takes any free one (for tests; stock clients find the others through HTTP).
    pub ports: Ports,
    /// The name clients show, not empty.
    pub host_name: String,
    /// What must be encrypted.
    pub encryption: EncryptionPolicy,
    /// FEC parity in percent of the data packets, 0..=100.
    pub fec_percentage: u8,
    /// No stream gets more than this, in kbit/s.
    pub max_bitrate_kbps: u32,
}

impl Options {
    /// That part of them which may change while the door is open.
    pub const fn tuning(&self) -> Tuning {
        Tuning {
            encryption: self.encryption,
            fec_percentage: self.fec_percentage,
            max_bitrate_kbps: self.max_bitrate_kbps,
        }
    }
}

/// What may change while the door is open; a stream keeps what it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// What must be encrypted.
    pub encryption: EncryptionPolicy,
    /// FEC parity in percent of the data packets, 0..=100.
    pub fec_percentage: u8,
    /// No stream gets more than this, in kbit/s.
    pub max_bitrate_kbps: u32,
}

/// The tuning of an open door; clones share it.
#[derive(Debug, Clone)]
pub struct SharedTuning(Arc<Mutex<Tuning>>);

impl SharedTuning {
    /// Begins with this.
    pub fn new(tuning: Tuning) -> Self {
        Self(Arc::new(Mutex::new(tuning)))
    }

    /// What the next stream begins with.
    pub fn now(&self) -> Tuning {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next stream begins with this.
    pub fn set(&self, tuning: Tuning) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tuning;
    }
}

/// The ports of the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Plain HTTP (TCP), default 47989.
    pub http: u16,
    /// HTTPS (TCP), default 47984.
    pub https: u16,
    /// RTSP (TCP), default 48010.
    pub rtsp: u16,
    /// Video (UDP), default 47998.
    pub video: u16,
    /// Control (UDP), default 47999.
    pub control: u16,
    /// Audio (UDP), default 48000.
    pub audio: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { http: 47989, https: 47984, rtsp: 48010, video: 47998, control: 47999, audio: 48000 }
    }
}

/// Which parts of a session must be encrypted; a client that cannot is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncryptionPolicy {
    /// Offer encryption of the control stream alone, for machines that cannot afford more.
    ControlOnly,
    /// Offer everything, insist on the control stream (spec: gamestream 4.5). Clients with AES hardware encrypt all.
    #[default]
    Offer,
    /// Insist on control, video and audio.
    Require,
}
