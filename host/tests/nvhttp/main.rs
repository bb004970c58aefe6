//! The HTTP and HTTPS doors of GameStream over real sockets: TLS with odd clients, pairing, the API.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod api;
mod client;
mod host;
mod pairing;
mod secrets;
mod selftest;
mod tls;
