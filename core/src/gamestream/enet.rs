//! A look at ENet datagrams before the ENet library sees them.
//!
//! The library keeps connections, order and repetition; its parser is C turned into Rust and walks raw pointers. So
//! every datagram is first taken apart here, in code that cannot misread: all commands must lie inside the datagram,
//! nothing may be compressed, and the sizes that make the library allocate are bounded. What a datagram is for (which
//! peer, a connection request and its data, which messages) also decides things that the library does not know:
//! who may connect at all, and whether a peer's address may change.

/// The longest datagram the library takes, in bytes.
pub const MAX_DATAGRAM_BYTES: usize = 4096;
/// The longest message that may be sent in fragments, in bytes. Stock clients send none.
pub const MAX_FRAGMENTED_BYTES: u32 = 4096;

/// The peer number of datagrams that belong to no connection yet.
const NO_PEER: u16 = 0x0FFF;
const COMPRESSED: u16 = 0x4000;
const HAS_SENT_TIME: u16 = 0x8000;
/// More commands than the library ever puts in one datagram.
const MAX_COMMANDS: usize = 64;
/// Channels that a connection may ask for.
const CHANNELS: std::ops::RangeInclusive<u32> = 1..=255;

/// A datagram whose structure is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// It asks for a connection.
    Connect(Connect),
    /// It belongs to a connection.
    Peer {
        /// The host's number of the peer.
        peer: u16,
        /// Its commands, checked.
        commands: Commands<'a>,
    },
}

/// A request for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect {
    /// What the client says it connects for.
    pub data: u32,
    /// The client's random number of this attempt; the same in every repetition.
    pub connect_id: u32,
    /// How many channels it would like.
    pub channels: u32,
}

/// The commands of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commands<'a>(&'a [u8]);

/// Why a datagram is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It is cut off, or longer than any.
    #[error("an ENet datagram of {got} bytes is malformed")]
    Malformed {
        /// Its length in bytes.
        got: usize,
    },
    /// It is compressed, has an unknown command, or one that only hosts send.
    #[error("an ENet datagram has the {what}, which no client sends")]
    Unexpected {
        /// What it has.
        what: &'static str,
    },
    /// It announces more than the limit.
    #[error("an ENet datagram announces {got} {what}, the limit is {max}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much.
        got: u32,
        /// The limit.
        max: u32,
    },
}

impl<'a> Datagram<'a> {
    /// Takes a client's datagram apart.
    ///
    /// # Errors
    /// [`DatagramError`]: nothing of it may reach the library.
    // spec: gamestream 5.1
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DatagramError> {
        let malformed = DatagramError::Malformed { got: bytes.len() };
        if bytes.len() > MAX_DATAGRAM_BYTES {
            return Err(malformed);
        }
        let (head, rest) = bytes.split_first_chunk::<2>().ok_or(malformed)?;
        let head = u16::from_be_bytes(*head);
        if head & COMPRESSED != 0 {
            return Err(DatagramError::Unexpected { what: "compression flag" });
        }
        let rest = if head & HAS_SENT_TIME != 0 { rest.get(2..).ok_or(malformed)? } else { rest };
        let peer = head & NO_PEER;
        let commands = Commands(rest);
        let mut connect = None;
        let mut count = 0;
        let mut left = rest;
        while !left.is_empty() {
            let (command, after) = Command::split(left).ok_or(malformed)?;
            command.check()?;
            count += 1;
            if count > MAX_COMMANDS {
                return Err(DatagramError::Unexpected { what: "number of commands" });
            }
            if command.id == CONNECT {
                connect = Some(command.connect().ok_or(malformed)?);
            }
            left = after;
        }
        match (peer, connect, count) {
            (_, _, 0) => Err(malformed),
            (NO_PEER, Some(connect), 1) => Ok(Self::Connect(connect)),
            (NO_PEER, _, _) => Err(DatagramError::Unexpected { what: "missing peer number" }),
            (_, Some(_), _) => Err(DatagramError::Unexpected { what: "second CONNECT" }),
            (peer, None, _) => Ok(Self::Peer { peer, commands }),
        }
    }
}

impl<'a> Commands<'a> {
    /// The messages in it that are not fragments, whole and in order.
    pub fn messages(self) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(|command| {
                matches!(command.id, SEND_RELIABLE | SEND_UNRELIABLE | SEND_UNSEQUENCED)
            })
            .map(|command| command.data)
    }

    /// Whether one of them takes leave.
    pub fn disconnects(self) -> bool {
        self.iter().any(|command| command.id == DISCONNECT)
    }

    /// Whether there is a piece of a message: what it belongs to cannot be checked before the library has put it
    /// together. Clients' messages fit into one datagram.
    pub fn fragments(self) -> bool {
        self.iter().any(|command| matches!(command.id, SEND_FRAGMENT | SEND_UNRELIABLE_FRAGMENT))
    }

    fn iter(self) -> impl Iterator<Item = Command<'a>> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let (command, after) = Command::split(left)?;
            left = after;
            Some(command)
        })
    }
}

const ACKNOWLEDGE: u8 = 1;
const CONNECT: u8 = 2;
const VERIFY_CONNECT: u8 = 3;
const DISCONNECT: u8 = 4;
const PING: u8 = 5;
const SEND_RELIABLE: u8 = 6;
const SEND_UNRELIABLE: u8 = 7;
const SEND_FRAGMENT: u8 = 8;
const SEND_UNSEQUENCED: u8 = 9;
const BANDWIDTH_LIMIT: u8 = 10;
const THROTTLE_CONFIGURE: u8 = 11;
const SEND_UNRELIABLE_FRAGMENT: u8 = 12;

/// One command: its fixed part and the data after it.
struct Command<'a> {
    id: u8,
    fixed: &'a [u8],
    data: &'a [u8],
}

impl<'a> Command<'a> {
    /// The first command of `bytes` and what follows it.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let id = bytes.first()? & 0x0F;
        // The size of the fixed part, and where in it the length of the data stands.
        let (size, length_at) = match id {
            ACKNOWLEDGE | DISCONNECT => (8, None),
            CONNECT => (48, None),
            VERIFY_CONNECT => (44, None),
            PING => (4, None),
            SEND_RELIABLE => (6, Some(4)),
            SEND_UNRELIABLE | SEND_UNSEQUENCED => (8, Some(6)),
            SEND_FRAGMENT | SEND_UNRELIABLE_FRAGMENT => (24, Some(6)),
            BANDWIDTH_LIMIT => (12, None),
            THROTTLE_CONFIGURE => (16, None),
            _ => return None,
        };
        let (fixed, after) = bytes.split_at_checked(size)?;
        let data_bytes = match length_at {
            None => 0,
            Some(at) => usize::from(u16::from_be_bytes(*fixed.get(at..)?.first_chunk()?)),
        };
        let (data, after) = after.split_at_checked(data_bytes)?;
        Some((Self { id, fixed, data }, after))
    }

    fn check(&self) -> Result<(), DatagramError> {
        let limit = |what, got, max| {
            if got > max { Err(DatagramError::TooMuch { what, got, max }) } else { Ok(()) }
        };
        match self.id {
            VERIFY_CONNECT => Err(DatagramError::Unexpected { what: "command VERIFY_CONNECT" }),
            CONNECT => {
                let channels = self.u32_be(16);
                if !CHANNELS.contains(&channels) {
                    return limit("channels", channels.max(*CHANNELS.end() + 1), *CHANNELS.end());
                }
                Ok(())
            }
            SEND_FRAGMENT | SEND_UNRELIABLE_FRAGMENT => {
                let (count, total) = (self.u32_be(8), self.u32_be(16));
                limit("bytes in fragments", total, MAX_FRAGMENTED_BYTES)?;
                limit("fragments", count, total)
            }
            _ => Ok(()),
        }
    }

    fn connect(&self) -> Option<Connect> {
        self.fixed.get(44..)?;
        Some(Connect {
            data: self.u32_be(44),
            connect_id: self.u32_be(40),
            channels: self.u32_be(16),
        })
    }

    /// A field of the fixed part; 0 where the command is shorter, which callers know it is not.
    fn u32_be(&self, at: usize) -> u32 {
        self.fixed
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .map_or(0, |field| u32::from_be_bytes(*field))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connect(channels: u32, data: u32) -> Vec<u8> {
        let mut bytes = vec![0x8F, 0xFF, 0, 9, 0x82, 0xFF, 0, 1, 0, 0, 0xFF, 0xFF];
        for field in [900, 65536, channels, 0, 0, 5000, 2, 2, 0x1234_5678, data] {
            bytes.extend_from_slice(&u32::to_be_bytes(field));
        }
        bytes
    }

    // spec: gamestream 13 item 69
    #[test]
    fn a_connect_with_1_48_or_255_channels_is_passed_on() {
        for channels in [1, 48, 255] {
            assert_eq!(
                Datagram::parse(&connect(channels, 77)),
                Ok(Datagram::Connect(Connect { data: 77, connect_id: 0x1234_5678, channels }))
            );
        }
        for channels in [0, 256, u32::MAX] {
            assert!(matches!(
                Datagram::parse(&connect(channels, 77)),
                Err(DatagramError::TooMuch { what: "channels", .. })
            ));
        }
        let bytes = connect(48, 7);
        for end in 0..bytes.len() {
            assert!(Datagram::parse(&bytes[..end]).is_err(), "{end} bytes");
        }
        let twice = [&bytes[..], &bytes[4..]].concat();
        assert!(Datagram::parse(&twice).is_err());
    }

    #[test]
    fn messages_are_found_between_other_commands() {
        let mut bytes = vec![0x90, 0x05, 0, 9];
        bytes.extend_from_slice(&[0x01, 0, 0, 1, 0, 1, 0, 2]); // ACKNOWLEDGE
        bytes.extend_from_slice(&[0x86, 0, 0, 2, 0, 2, 0xAA, 0xBB]); // reliable
        bytes.extend_from_slice(&[0x85, 0xFF, 0, 3]); // PING
        bytes.extend_from_slice(&[0x49, 0, 0, 0, 0, 1, 0, 1, 0xCC]); // unsequenced
        bytes.extend_from_slice(&[0x07, 0, 0, 0, 0, 1, 0, 0]); // unreliable, empty
        let Ok(Datagram::Peer { peer: 5, commands }) = Datagram::parse(&bytes) else { panic!() };
        let messages: Vec<_> = commands.messages().collect();
        assert_eq!(messages, [&[0xAA, 0xBB][..], &[0xCC], &[]]);
        assert!(!commands.disconnects());
        let goodbye = [&bytes[..], &[0x84, 0xFF, 0, 4, 0, 0, 0, 0]].concat();
        let Ok(Datagram::Peer { commands, .. }) = Datagram::parse(&goodbye) else { panic!() };
        assert!(commands.disconnects());
        bytes[2 + 2 + 8 + 5] = 200; // a length beyond the datagram
        assert!(Datagram::parse(&bytes).is_err());
    }

    #[test]
    fn what_no_client_sends_is_refused() {
        let ping = |head: [u8; 2]| [&head[..], &[0x05, 0xFF, 0, 1]].concat();
        assert!(Datagram::parse(&ping([0x00, 0x01])).is_ok());
        assert!(Datagram::parse(&ping([0x40, 0x01])).is_err(), "compressed");
        assert!(Datagram::parse(&ping([0x0F, 0xFF])).is_err(), "no peer");
        let verify = [&[0, 1, 0x83, 0xFF, 0, 1][..], &[0; 40]].concat();
        assert!(Datagram::parse(&verify).is_err());
        let mut fragment = [&[0, 1, 0x88, 0, 0, 1, 0, 1, 0, 1][..], &[0; 17]].concat();
        fragment[2 + 16..2 + 20].copy_from_slice(&5000u32.to_be_bytes());
        assert!(matches!(Datagram::parse(&fragment), Err(DatagramError::TooMuch { .. })));
        fragment[2 + 16..2 + 20].copy_from_slice(&1000u32.to_be_bytes());
        fragment[2 + 8..2 + 12].copy_from_slice(&1001u32.to_be_bytes());
        assert!(matches!(Datagram::parse(&fragment), Err(DatagramError::TooMuch { .. })));
        fragment[2 + 8..2 + 12].copy_from_slice(&2u32.to_be_bytes());
        assert!(Datagram::parse(&fragment).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Datagram::Peer { commands, .. }) = Datagram::parse(&bytes) {
                prop_assert!(commands.messages().map(<[u8]>::len).sum::<usize>() <= bytes.len());
            }
        }
    }
}
