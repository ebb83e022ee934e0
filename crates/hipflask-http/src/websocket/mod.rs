//! The WebSocket protocol: RFC 6455 with permessage-deflate (RFC 7692), bytes in, events out.
//!
//! [`accept`] judges a handshake; after it, a [`Decoder`] reads what the other end sends and an [`Encoder`] writes what
//! goes to it. Neither answers by itself: whoever owns the connection sends the pong, echoes the close and ends the
//! connection. Both ends are here, the client's for tests and load generators.
//!
//! Strict: whatever breaks a MUST of either RFC is an [`Error`] with the close code to send, and ends the connection.
//! No size is unbounded: see [`Limits`].
//!
//! # Memory
//! A quiet connection holds about 260 bytes for its decoder and encoder. A compression context costs 287 KiB
//! and a decompression context 47 KiB; they are made when a first compressed message comes or goes, and only a
//! connection that negotiated context takeover keeps them. The others share one spare of each per thread.

mod close;
mod decoder;
mod deflate;
mod encoder;
mod error;
mod extension;
mod handshake;
mod mask;

pub use close::{Close, code};
pub use decoder::{Decoder, Event};
pub use encoder::{Encoder, SharedMessage, control, message};
pub use error::Error;
pub use extension::{Deflate, DeflatePolicy};
pub use handshake::{Handshake, HandshakeError, accept, accept_key};

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads masked frames, writes plain ones.
    Server,
    /// Reads plain frames, writes masked ones.
    Client,
}

/// What a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// What a control frame says, other than close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Control {
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

/// Limits on what the other end may send, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A message: the sum of its frames, and again what they decompress to. Messages are held in memory.
    pub message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { message: 1 << 20 }
    }
}

/// What a control frame carries at most (RFC 6455 §5.5).
pub const CONTROL: usize = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV: u8 = 0x70;
const MASKED: u8 = 0x80;

impl Kind {
    fn opcode(self) -> u8 {
        match self {
            Kind::Text => TEXT,
            Kind::Binary => BINARY,
        }
    }
}
