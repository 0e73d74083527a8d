//! The framing of Firkin's guest link, as `docs/protocol.md` specifies it: bytes in, events out, no I/O.
//!
//! [`Endpoint`] is one side of the link. Its owner moves bytes between it and a port, and asks it for [`Event`]s.

#![forbid(unsafe_code)]

mod checksum;
mod endpoint;
mod frame;
mod hello;
mod search;
mod streams;

pub use checksum::crc32;
pub use endpoint::{Endpoint, Event, OpenError};
pub use frame::{Fault, HEADER_BYTES, Kind, MAX_PAYLOAD, encode_header};
pub use hello::{BLOCK_BYTES, Hello, INITIAL_SENTINEL, Identity, MAJOR, MINOR, NONCE_BYTES};
pub use streams::{CONNECTION_WINDOW, MAX_STREAMS, MAX_WINDOW, STREAM_WINDOW, Side, WIDE_WINDOW};
